//! `host plugins list`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use host_command::arguments::Locking;
use serde::Serialize;

use super::output::cannot_write;
use crate::plugins::trust::link_target;
use crate::plugins::{Catalogue, Kind, Python, lock};
use crate::report::{Problem, Problems, Style, render, table, terminal};

/// A kind in the JSON that `--json` writes: its descriptor and where it comes from.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    descriptor: &'a plugin_api::protocol::Descriptor,
    library: &'a Path,
    build: &'a str,
}

impl<'a> From<&'a Kind> for Listed<'a> {
    fn from(kind: &'a Kind) -> Self {
        Self { descriptor: kind.descriptor(), library: kind.path(), build: kind.build() }
    }
}

/// Lists the kinds that `paths` offer, as a table or as a JSON array; files that cannot be loaded are warnings on `warnings`.
///
/// # Errors
///
/// A missing or empty folder, two libraries with one kind, a named file that cannot be loaded.
pub fn list(
    paths: &[PathBuf],
    locking: &Locking,
    json: bool,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<ExitCode, Problems> {
    let catalogue = load(paths, locking, warnings)?;
    if json {
        let kinds: Vec<Listed<'_>> = catalogue.kinds().iter().map(Listed::from).collect();
        serde_json::to_writer_pretty(&mut *out, &kinds).map_err(|error| cannot_write(error.into()))?;
        writeln!(out).map_err(cannot_write)?;
    } else {
        let rows: Vec<[String; 6]> = catalogue.kinds().iter().map(row).collect();
        table::write(
            ["KIND", "VERSION", "BY DEFAULT", "DISPATCH", "LIBRARY", "SUMMARY"],
            &rows,
            terminal::stdout_width(),
            out,
        )
        .map_err(cannot_write)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads the folders, and warns about the files that cannot be loaded and about what others can change.
pub(super) fn load(paths: &[PathBuf], locking: &Locking, warnings: &mut dyn Write) -> Result<Catalogue, Problems> {
    let lock = locking.locked.then(|| lock::path(locking.lock.as_deref(), None));
    let mut catalogue = Catalogue::load_with(paths, lock.as_deref(), None).map_err(|error| Problem::from(&error))?;
    catalogue.open_sources(&Python::default(), |_| true).map_err(|error| Problem::from(&error))?;
    write!(warnings, "{}", render(&catalogue.warnings(), Style::of_stderr())).map_err(cannot_write)?;
    Ok(catalogue)
}

fn row(kind: &Kind) -> [String; 6] {
    let descriptor = kind.descriptor();
    let mut file = kind.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(target) = link_target(kind.path()) {
        file = format!("{file} -> {}", target.display());
    }
    [
        descriptor.kind.clone(),
        descriptor.version.clone(),
        if descriptor.by_default { "yes" } else { "no" }.to_owned(),
        descriptor.dispatch.clone(),
        file,
        descriptor.summary.clone(),
    ]
}
