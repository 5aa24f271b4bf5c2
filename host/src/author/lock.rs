//! `host plugins lock`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use host_command::arguments::Locking;

use super::list::load;
use super::output::cannot_write;
use crate::plugins::lock::{Lock, Locked, lock_entry};
use crate::plugins::this_target;
use crate::plugins::trust::link_target;
use crate::report::{Problem, Problems};

/// Locks the libraries at `paths` for this target, and tells what changes.
///
/// # Errors
///
/// Folders that cannot be used, two libraries with one file name, a lock that cannot be read or written.
pub(super) fn lock(
    paths: &[PathBuf],
    file: &Path,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<ExitCode, Problems> {
    let before = Lock::read_or_empty(file).map_err(|error| Problem::from(&error))?;
    let catalogue = load(paths, &Locking::default(), warnings)?;
    let target = this_target();
    let mut after = before.clone();
    after.retain(|locked| locked.target != target);
    for kind in catalogue.kinds() {
        let path = kind.path();
        let of_library = catalogue.kinds().iter().filter(|other| other.path() == path);
        let descriptors: Vec<_> = of_library.map(|kind| kind.descriptor().clone()).collect();
        if descriptors.first().is_some_and(|first| first.kind != kind.descriptor().kind) {
            continue;
        }
        let cannot_read =
            |(path, error): (PathBuf, _)| Problem::new(format!("cannot read `{}`", path.display())).with_cause(&error);
        let mut entry = lock_entry(path, &descriptors, kind.build()).map_err(cannot_read)?;
        if after.of_target(&target).any(|other| other.file == entry.file) {
            let problem = Problem::new(format!("two libraries are called `{}`: a lock knows them by name", entry.file));
            return Err(problem.with_hint("rename one of them".to_owned()).into());
        }
        let known = before.of_target(&target).find(|known| known.file == entry.file && known.sha256 == entry.sha256);
        entry.package = known.and_then(|known| known.package.clone());
        after.put(entry);
        if let Some(real) = link_target(path) {
            writeln!(out, "`{}` is a link to `{}`", path.display(), real.display()).map_err(cannot_write)?;
        }
    }
    // Opening the libraries took a while.
    if Lock::read_or_empty(file).map_err(|error| Problem::from(&error))? != before {
        let problem = Problem::new(format!("another command has changed the lock `{}` meanwhile", file.display()));
        return Err(problem.with_hint("run `host plugins lock` again".to_owned()).into());
    }
    after.write(file).map_err(|error| Problem::from(&error))?;
    tell_changes(&before, &after, &target, out).map_err(cannot_write)?;
    let count = |is_here: bool| after.libraries().iter().filter(|locked| (locked.target == target) == is_here).count();
    let others = if count(false) > 0 { format!(", {} for other targets", count(false)) } else { String::new() };
    let plural = if count(true) == 1 { "library" } else { "libraries" };
    writeln!(out, "`{}`: {} {plural} for {target}{others}", file.display(), count(true)).map_err(cannot_write)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a line for each library that is new, that changed, or that is gone.
pub(super) fn tell_changes(before: &Lock, after: &Lock, target: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let find = |lock: &Lock, file: &str| lock.of_target(target).find(|locked| locked.file == file).cloned();
    for locked in after.of_target(target) {
        match find(before, &locked.file) {
            None => writeln!(out, "added    {}  {}", locked.file, kinds(locked))?,
            Some(old) if old.sha256 != locked.sha256 || old.beside != locked.beside => {
                writeln!(out, "changed  {}  {}, was {}", locked.file, kinds(locked), kinds(&old))?;
            }
            Some(_) => {}
        }
    }
    for old in before.of_target(target).filter(|old| find(after, &old.file).is_none()) {
        writeln!(out, "removed  {}  {}", old.file, kinds(old))?;
    }
    Ok(())
}

/// The first kinds with their versions, and how many others there are.
fn kinds(locked: &Locked) -> String {
    const SHOWN: usize = 3;
    let names: Vec<String> = locked.kinds.iter().take(SHOWN).map(ToString::to_string).collect();
    match locked.kinds.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
