//! The folder of checkpoints on the disk: its pointers, and deletion.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};

use plugin_api::{Error, Result};

/// The prefix of unfinished entries, the host's too.
const TEMPORARY: &str = ".tmp-";

/// The name of the checkpoint of a position: `epoch-0003-step-00000084`.
pub(crate) fn name_of(epoch: u64, global_step: u64) -> String {
    format!("epoch-{epoch:04}-step-{global_step:08}")
}

/// Whether `name` has the form of [`name_of`]: then it is one part of a path, and not a pointer.
pub(crate) fn is_name(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("epoch-")
        .and_then(|rest| rest.split_once("-step-"))
        .is_some_and(|(epoch, step)| digits(epoch) && digits(step))
}

/// The name of the checkpoint at `path`, if it is in `folder`; links are followed.
pub(crate) fn name_in(folder: &Path, path: &Path) -> Option<String> {
    let (folder, path) = (fs::canonicalize(folder).ok()?, fs::canonicalize(path).ok()?);
    let name = path.file_name()?.to_str()?;
    (path.parent() == Some(&folder)).then(|| name.to_owned())
}

/// Whether there is a checkpoint called `name`.
pub(crate) fn has(folder: &Path, name: &str) -> bool {
    fs::symlink_metadata(folder.join(name)).is_ok_and(|found| found.is_dir())
}

/// Makes `pointer` point at `name`, atomically: a reader sees the old checkpoint or the new one. On the disk it is after the
/// next [`flush`].
pub(crate) fn point(folder: &Path, pointer: &str, name: &str) -> io::Result<()> {
    let temporary = temporary(folder, pointer);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    link(name, &temporary)?;
    fs::rename(&temporary, folder.join(pointer))
}

/// A relative link, so that the run folder can be moved; if the file system has no links, a text file
/// with the name, which the host reads too.
fn link(name: &str, at: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if std::os::unix::fs::symlink(name, at).is_ok() {
        return Ok(());
    }
    fs::write(at, name)?;
    File::open(at)?.sync_all()
}

/// Deletes the checkpoint called `name`. It is renamed first, so that there is never a partial checkpoint
/// of that name; if it does not exist, that is not an error. One that somebody reads stays: [`io::ErrorKind::ResourceBusy`].
pub(crate) fn delete(folder: &Path, name: &str) -> io::Result<()> {
    let path = folder.join(name);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !is_name(name) || !found.is_dir() => {
            return Err(io::Error::other("it is not the folder of a checkpoint"));
        }
        Ok(_) => {}
    }
    // Whoever reads a checkpoint has a shared lock of its manifest.
    let manifest = File::open(path.join("manifest.json")).ok();
    if let Some(manifest) = &manifest
        && let Err(TryLockError::WouldBlock) = manifest.try_lock()
    {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let unnamed = temporary(folder, name);
    fs::rename(&path, &unnamed)?;
    fs::remove_dir_all(&unnamed)
}

/// The marker of a run folder, which the host writes.
const RUN_MARKER: &str = ".host-run";

/// The marker that this plugin writes into a folder outside the run folder: the run folder of its owner.
const MARKER: &str = ".host-checkpoints";

/// Makes sure that no other run owns `folder`, a path relative to the run folder or absolute, and takes it for this run. For
/// `setup`.
pub(crate) fn claim(run_folder: &Path, folder: &Path) -> Result<()> {
    if is_within(folder) {
        return Ok(());
    }
    let folder = &run_folder.join(folder);
    let failed = |error: io::Error| Error::from(error).context(folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    let (own, folder) = (fs::canonicalize(run_folder).map_err(failed)?, fs::canonicalize(folder).map_err(failed)?);
    if folder.starts_with(&own) {
        return Ok(());
    }
    if let Some(other) = folder.ancestors().find(|folder| folder.join(RUN_MARKER).exists()) {
        return Err(Error::new(format!(
            "`folder`: `{}` is in the folder of another run, `{}`; choose another folder",
            folder.display(),
            other.display()
        )));
    }
    let marker = folder.join(MARKER);
    match fs::read_to_string(&marker) {
        Ok(owner) if Path::new(owner.trim_end()) == own => Ok(()),
        Ok(owner) => Err(Error::new(format!(
            "`folder`: `{}` has the checkpoints of another run, `{}`; choose another folder, such as `{}/{{run}}`, or delete \
             `{}` if that run is over",
            folder.display(),
            owner.trim_end(),
            folder.display(),
            marker.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::write(&marker, format!("{}\n", own.display())).map_err(failed)
        }
        Err(error) => Err(Error::from(error).context(marker.display())),
    }
}

/// Removes what an interrupted process has left in `folder`, a path relative to the run folder. For `setup`: nothing is
/// written yet. A folder that is not within the run folder, which has one owner, may be another run's too, and is left
/// alone.
pub(crate) fn remove_unfinished(run_folder: &Path, folder: &Path) -> io::Result<()> {
    if !is_within(folder) {
        return Ok(());
    }
    let entries = match fs::read_dir(run_folder.join(folder)) {
        // What is no folder is told where it is written to.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let is_folder = entry.file_type()?.is_dir();
            if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }?;
        }
    }
    Ok(())
}

/// Whether a path relative to the run folder stays in it, which has one owner.
fn is_within(folder: &Path) -> bool {
    folder.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn temporary(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{TEMPORARY}{name}-{}", std::process::id()))
}

/// Flushes the folder's entries to the disk.
pub(crate) fn flush(folder: &Path) -> io::Result<()> {
    // Other systems cannot open a folder as a file.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "epoch-0001-step-00000010";
    const TWO: &str = "epoch-0002-step-00000020";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in [ONE, TWO] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("manifest.json"), name).unwrap();
        }
        folder
    }

    #[test]
    fn names_are_those_of_positions_alone() {
        assert_eq!(name_of(3, 84), "epoch-0003-step-00000084");
        assert!(is_name(&name_of(12_345, 1_000_000_000)));
        for other in
            ["last", "", "epoch-1", "epoch--step-", "epoch-1-step-../..", "epoch-1-step-2/3", "epoch-1-step-+1"]
        {
            assert!(!is_name(other), "{other}");
        }
    }

    #[test]
    fn a_pointer_moves_and_leaves_nothing_behind() {
        let folder = folder();
        for name in [ONE, TWO] {
            point(folder.path(), "last", name).unwrap();
            let shown = fs::read_to_string(folder.path().join("last").join("manifest.json")).unwrap();
            assert_eq!(shown, name);
            assert_eq!(fs::read_link(folder.path().join("last")).unwrap(), Path::new(name));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert_eq!(name_in(folder.path(), &folder.path().join("last")).as_deref(), Some(TWO));
    }

    #[test]
    fn what_an_interrupted_process_left_goes_away_within_the_run_folder() {
        let folder = folder();
        let (name, run_folder) = (folder.path().file_name().unwrap(), folder.path().parent().unwrap());
        fs::create_dir(folder.path().join(".tmp-half")).unwrap();
        fs::write(folder.path().join(".tmp-half").join("model"), "half").unwrap();
        fs::write(folder.path().join(".tmp-last-7"), ONE).unwrap();
        remove_unfinished(run_folder, folder.path()).unwrap();
        remove_unfinished(run_folder, &Path::new("..").join(name)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        remove_unfinished(run_folder, Path::new(name)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        remove_unfinished(run_folder, Path::new("there is no such folder")).unwrap();
    }

    #[test]
    fn what_is_no_checkpoint_is_not_deleted() {
        let folder = folder();
        fs::create_dir(folder.path().join("notes")).unwrap();
        point(folder.path(), "epoch-0003-step-00000030", ONE).unwrap();
        for name in ["notes", "epoch-0003-step-00000030", ".."] {
            assert!(delete(folder.path(), name).is_err(), "{name}");
        }
        delete(folder.path(), ONE).unwrap();
        delete(folder.path(), ONE).unwrap();
        assert!(!has(folder.path(), ONE) && has(folder.path(), TWO));
        assert!(folder.path().join("notes").exists());
    }

    #[test]
    fn what_somebody_reads_is_not_deleted() {
        let folder = folder();
        let manifest = File::open(folder.path().join(ONE).join("manifest.json")).unwrap();
        manifest.lock_shared().unwrap();
        assert_eq!(delete(folder.path(), ONE).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert!(has(folder.path(), ONE));
        drop(manifest);
        delete(folder.path(), ONE).unwrap();
        assert!(!has(folder.path(), ONE));
    }

    #[test]
    fn a_folder_has_one_run() {
        let (shared, first, second) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for run in [&first, &second] {
            fs::write(run.path().join(RUN_MARKER), "").unwrap();
            claim(run.path(), &run.path().join("checkpoints")).unwrap();
        }
        let outside = shared.path().join("all");
        claim(first.path(), &outside).unwrap();
        claim(first.path(), &outside).unwrap();
        let message = claim(second.path(), &outside).unwrap_err().message().to_owned();
        assert!(message.contains("has the checkpoints of another run"), "{message}");
        claim(second.path(), &shared.path().join("other")).unwrap();
        let message = claim(second.path(), &first.path().join("checkpoints")).unwrap_err().message().to_owned();
        assert!(message.contains("is in the folder of another run"), "{message}");
        fs::remove_file(outside.join(MARKER)).unwrap();
        claim(second.path(), &outside).unwrap();
    }

    #[test]
    fn a_path_elsewhere_has_no_name_here() {
        let (folder, other) = (folder(), folder());
        assert_eq!(name_in(folder.path(), &other.path().join(ONE)), None);
        assert_eq!(name_in(folder.path(), &folder.path().join("gone")), None);
    }
}
