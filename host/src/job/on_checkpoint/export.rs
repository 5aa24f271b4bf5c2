//! `export`: export plugins on a saved checkpoint.

use std::path::{Path, PathBuf};

use plugin_api::event::Outcome;
use serde_json::json;

use super::super::handle::Link;
use super::super::log::Verbosity;
use super::super::results::EXPORTS;
use super::outputs::{self, Work, refuse_existing};
use super::plan::{CheckpointPlan, DataChoice};
use super::session::{self, Prepared, make_folder};
use super::{CheckpointJobOutcome, CheckpointRequest};
use crate::data::Wanted;
use crate::report::{Problem, Problems};
use crate::services::Screen as _;

const WORK: Work = Work { job: "export", verb: "exporting", unit: "file" };

/// What to export.
#[derive(Clone, Debug, Default)]
pub struct ExportRequest {
    /// Which checkpoint, and with which exporters.
    pub job: CheckpointRequest,
    /// Data for calibration in place of the run's own.
    pub data: Option<PathBuf>,
}

/// Exports. Files appear only when every exporter is done.
pub(super) fn export(
    request: &ExportRequest,
    verbosity: Verbosity,
    link: &Link,
) -> Result<CheckpointJobOutcome, Problems> {
    let console = session::console(verbosity);
    if request.job.appended.is_empty() {
        return Err(Problem::new("no exporter is named")
            .with_hint("name one: `--plugin onnx`, `--plugin tflite`, `--plugin weights`".to_owned())
            .into());
    }
    let choice = match &request.data {
        // Samples are the run's `train` for an exporter, and need no targets.
        Some(path) => DataChoice::Other(path.clone(), Wanted::IfPresent),
        None => DataChoice::OwnIfPresent,
    };
    let mut plan = CheckpointPlan::make(&request.job, &choice)?;
    if let Some(samples) = plan.data.splits.remove(crate::data::OTHER) {
        plan.data.splits.insert(crate::data::TRAIN.to_owned(), samples);
    }
    if let Some(other) = plan.order.planned.iter().find(|planned| !planned.handles(plugin_api::EventKind::EXPORT)) {
        return Err(Problem::new(format!("`{}` exports nothing: it has no hook `on_export`", other.name()))
            .with_hint("`host plugins list` shows the kinds".to_owned())
            .into());
    }
    let folder = outputs::folder(request.job.out.as_deref(), &plan.located, EXPORTS);
    make_folder(&folder)?;
    let folder = folder.canonicalize().map_err(|error| session::cannot("find the folder of the results", &error))?;
    // Beside the results, so that files only change their names.
    let partial = tempfile::Builder::new()
        .prefix(".partial-export-")
        .tempdir_in(&folder)
        .map_err(|error| session::cannot(&format!("make a folder in `{}`", folder.display()), &error))?;
    let checkpoint = plan.located.path.display().to_string();
    // Exporters write its digest into their files.
    let run_file = partial.path().join("run.toml");
    session::write(&run_file, plan.resume.run_file().as_bytes())?;

    let mut prepared = Prepared::new(plan, partial.path(), &console, link, WORK)?;
    let outcome = prepared.run(|trainer| trainer.export_once());
    let published = prepared.published.all();
    drop(prepared);
    if outcome != Outcome::Finished {
        return Ok(CheckpointJobOutcome { outcome, folder, files: Vec::new(), result: json!({}) });
    }
    std::fs::remove_file(&run_file).map_err(|error| session::cannot("remove a temporary file", &error))?;
    let mut moves = Vec::new();
    collect(partial.path(), partial.path(), &folder, &mut moves)
        .map_err(|error| session::cannot("list what was exported", &error))?;
    let targets: Vec<PathBuf> = moves.iter().map(|(_, to)| to.clone()).collect();
    refuse_existing(&targets, request.job.force)?;
    for (from, to) in &moves {
        if let Some(parent) = to.parent() {
            make_folder(parent)?;
        }
        std::fs::rename(from, to).map_err(|error| session::cannot(&format!("publish `{}`", to.display()), &error))?;
    }
    let exports: Vec<PathBuf> = published
        .iter()
        .filter(|(kind, _)| kind == "export")
        .map(|(_, path)| folder.join(without_exports(Path::new(path))))
        .collect();
    for path in &exports {
        console.line(&format!("exported: {}", path.display()));
    }
    for (kind, path) in &published {
        if kind == "unverified_export" {
            let path = folder.join(without_exports(Path::new(path)));
            let message = format!("`{}` is not verified", path.display());
            super::super::messages::warn(&console, &Problem::new(message));
        }
    }
    let result = json!({
        "checkpoint": checkpoint,
        "exports": exports.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    });
    Ok(CheckpointJobOutcome { outcome, folder, files: targets, result })
}

/// Every file in `folder`, and where it belongs.
fn collect(root: &Path, folder: &Path, to: &Path, moves: &mut Vec<(PathBuf, PathBuf)>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, to, moves)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            let target = to.join(without_exports(relative));
            moves.push((path, target));
        }
    }
    Ok(())
}

/// Exporters write into a folder of this name by default; in the folder of exports it would be one too many.
fn without_exports(path: &Path) -> &Path {
    path.strip_prefix(EXPORTS).unwrap_or(path)
}
