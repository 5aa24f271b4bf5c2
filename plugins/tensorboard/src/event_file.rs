//! An event file: created, appended to, and cut back to the step of a resume.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use plugin_api::{Error, Result};
use prost::Message;

use crate::framing;
use crate::proto::{Event, EventPosition, SESSION_START, SessionLog, Summary, Value, What};

/// The prefix of every name: readers look for it, and read files in the order of their names.
const PREFIX: &str = "events.out.tfevents.";
/// The most buffered bytes; more are written without waiting for [`EventFile::flush`].
const BUFFER: usize = 1 << 16;

/// An event file that is being written.
pub struct EventFile {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// The length of the file: complete records.
    written: u64,
}

impl EventFile {
    /// Creates a file in `folder`, which is created too, after the existing ones. `instance` distinguishes its files
    /// from those of others. In a run that was resumed after `resumed` steps, readers that saw later ones must forget
    /// them.
    ///
    /// # Errors
    ///
    /// When the folder or the file cannot be created or written.
    pub fn create(folder: &Path, instance: &str, resumed: u64) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(folder).map_err(|error| failed("create the folder", folder, error))?;
        let after = own_files(folder, instance)?.iter().filter_map(|path| seconds_of(path)).max();
        let seconds = (now() as u64).max(after.map_or(0, |last| last + 1));
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(format!("{PREFIX}{seconds:010}.{instance}.{process}.{count}"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| failed("create", &path, error))?;
        let mut this = Self { path, file, buffer: Vec::new(), written: 0 };
        this.append(0, What::FileVersion("brain.Event:2".to_owned()))?;
        if resumed > 0 {
            this.append(resumed + 1, What::SessionLog(SessionLog { status: SESSION_START }))?;
        }
        Ok(this)
    }

    /// Appends values of a step.
    ///
    /// # Errors
    ///
    /// When the buffer cannot be written.
    pub fn summary(&mut self, step: u64, value: Vec<Value>) -> Result<()> {
        self.append(step, What::Summary(Summary { value }))
    }

    /// Appends an event.
    ///
    /// # Errors
    ///
    /// When the buffer cannot be written.
    pub fn append(&mut self, step: u64, what: What) -> Result<()> {
        let event = Event { wall_time: now(), step: step as i64, what: Some(what) };
        framing::append(&mut self.buffer, |buffer| event.encode_raw(buffer));
        if self.buffer.len() < BUFFER { Ok(()) } else { self.write() }
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or the file no longer exists.
    pub fn flush(&mut self) -> Result<()> {
        // Writes to a file that was deleted are lost without an error.
        fs::metadata(&self.path)
            .map_err(|error| failed("write", &self.path, error).context("the event file was removed during the run"))?;
        self.write()
    }

    /// Records are written completely or not at all: readers see nothing after an incomplete one.
    fn write(&mut self) -> Result<()> {
        let records = std::mem::take(&mut self.buffer);
        let Err(error) = self.file.write_all(&records) else {
            self.written += records.len() as u64;
            return Ok(());
        };
        let told = failed("write", &self.path, error);
        self.keep_whole(&records)
            .map_err(|error| told.clone().context(format!("its last record is incomplete ({error})")))?;
        Err(told)
    }

    /// After a failed write, keeps the complete records of the file.
    fn keep_whole(&mut self, records: &[u8]) -> std::io::Result<()> {
        let there = self.file.metadata()?.len().saturating_sub(self.written);
        let there = records.get(..usize::try_from(there).unwrap_or(usize::MAX)).unwrap_or(records);
        self.written += prefix(there, i64::MAX as u64) as u64;
        self.file.set_len(self.written)?;
        self.file.seek(SeekFrom::Start(self.written)).map(drop)
    }
}

impl Drop for EventFile {
    fn drop(&mut self) {
        // The run's last hook has flushed it, and reported errors.
        let _ = self.write();
    }
}

/// Removes what the files of `instance` in `folder` have beyond a checkpoint of `step`: an earlier process wrote it and
/// ended without a checkpoint of it. `length` says how long a file was then, which is 0 for one that was not there;
/// where it does not know, the first event of a later step is removed with all that follow. At step 0 nothing stays.
///
/// # Errors
///
/// When a file cannot be read or cut.
pub fn cut(folder: &Path, instance: &str, step: u64, length: impl Fn(&str) -> Option<u64>) -> Result<()> {
    for path in own_files(folder, instance)? {
        let length = length(&name_of(&path));
        if step == 0 || length == Some(0) {
            fs::remove_file(&path).map_err(|error| failed("remove", &path, error))?;
            continue;
        }
        let bytes = fs::read(&path).map_err(|error| failed("read", &path, error))?;
        let kept = match length {
            // In the file of a resumed run, the start of its session, which has the step after the resume, may be before
            // what the end of an epoch added at the step of the resume.
            Some(length) => {
                let then = bytes.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(&bytes);
                prefix(then, i64::MAX as u64)
            }
            None => prefix(&bytes, step),
        };
        if kept < bytes.len() {
            let file = OpenOptions::new().write(true).open(&path);
            let cut = file.and_then(|file| file.set_len(kept as u64));
            cut.map_err(|error| failed("cut", &path, error))?;
        }
    }
    Ok(())
}

/// The bytes of the complete records before the first of a later step.
fn prefix(bytes: &[u8], step: u64) -> usize {
    let mut rest = bytes;
    while let Some((record, tail)) = framing::first(rest) {
        if EventPosition::decode(record).is_ok_and(|event| event.step > step as i64) {
            break;
        }
        rest = tail;
    }
    bytes.len() - rest.len()
}

/// The event files that `instance` wrote to `folder`, oldest first; none if there is no folder.
fn own_files(folder: &Path, instance: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed("read the folder", folder, error))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed("read the folder", folder, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
        // Instances have names of `[a-z0-9-]+`.
        if name.and_then(|name| name.split('.').nth(1)) == Some(instance) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The files that `instance` wrote to `folder`, with their lengths.
///
/// # Errors
///
/// When the system does not tell them.
pub(crate) fn lengths(folder: &Path, instance: &str) -> Result<Vec<(String, u64)>> {
    let with_length = |path: PathBuf| {
        let length = fs::metadata(&path).map_err(|error| failed("look at", &path, error))?.len();
        Ok((name_of(&path), length))
    };
    own_files(folder, instance)?.into_iter().map(with_length).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn seconds_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An error with the action and the file.
pub(crate) fn failed(action: &str, path: &Path, error: std::io::Error) -> Error {
    Error::from(error).context(format!("cannot {action} `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::summary;

    fn steps(path: &Path) -> Vec<i64> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut steps) = (bytes.as_slice(), Vec::new());
        while let Some((record, tail)) = framing::first(rest) {
            steps.push(Event::decode(record).unwrap().step);
            rest = tail;
        }
        steps
    }

    fn write(folder: &Path, resumed: u64, range: std::ops::RangeInclusive<u64>) -> PathBuf {
        let mut file = EventFile::create(folder, "a", resumed).unwrap();
        for step in range {
            file.summary(step, vec![summary::scalar("loss", step as f64)]).unwrap();
        }
        file.flush().unwrap();
        file.path.clone()
    }

    #[test]
    fn later_steps_go_and_a_resumed_file_follows() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path(), 0, 1..=9);
        let stranger = folder.path().join("events.out.tfevents.1700000000.b.1.0");
        fs::copy(&first, &stranger).unwrap();
        cut(folder.path(), "a", 5, |_| None).unwrap();
        assert_eq!(steps(&first), [0, 1, 2, 3, 4, 5]);
        assert_eq!(steps(&stranger).len(), 10);
        let second = write(folder.path(), 5, 6..=7);
        assert!(second > first, "read in the order of names");
        assert_eq!(steps(&second), [0, 6, 6, 7]);
        cut(folder.path(), "a", 0, |_| None).unwrap();
        assert!(!first.exists() && !second.exists() && stranger.exists());
    }

    #[test]
    fn a_torn_tail_goes_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), 0, 1..=3);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        cut(folder.path(), "a", 9, |_| None).unwrap();
        assert_eq!(steps(&path), [0, 1, 2]);
        assert!(framing::first(&fs::read(&path).unwrap()).is_some());
    }

    #[test]
    fn what_came_after_the_checkpoint_of_the_same_step_goes_too() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path(), 0, 1..=3);
        let then = lengths(folder.path(), "a").unwrap();
        let length = |name: &str| Some(then.iter().find(|(other, _)| other == name).map_or(0, |(_, length)| *length));
        let mut file = OpenOptions::new().append(true).open(&first).unwrap();
        let second = write(folder.path(), 3, 3..=3);
        std::io::copy(&mut fs::File::open(&second).unwrap(), &mut file).unwrap();
        cut(folder.path(), "a", 3, length).unwrap();
        assert_eq!(steps(&first), [0, 1, 2, 3]);
        assert!(!second.exists());
        // A run that was resumed at this step, and has a checkpoint of the same step again.
        let third = write(folder.path(), 3, 3..=3);
        cut(folder.path(), "a", 3, |_| Some(fs::metadata(&third).unwrap().len())).unwrap();
        assert_eq!(steps(&third), [0, 4, 3]);
    }

    #[test]
    fn a_file_that_is_gone_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(&folder.path().join("train"), "a", 0).unwrap();
        fs::remove_dir_all(folder.path().join("train")).unwrap();
        let told = file.flush().unwrap_err().message().to_owned();
        assert!(told.starts_with("the event file was removed during the run: cannot write `"), "{told}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_within(bytes in prop::collection::vec(any::<u8>(), 0..200), step: u64) {
            prop_assert!(prefix(&bytes, step) <= bytes.len());
        }
    }
}
