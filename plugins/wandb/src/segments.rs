//! The folders of one W&B run: one for each process that trained it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use plugin_api::{Result, tracing};

use crate::log_file::{self, LogFile, failed};
use crate::proto::What;

/// How long the file of each folder is.
pub(crate) type Lengths = BTreeMap<String, u64>;

/// The letters of an id, as W&B makes them.
const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const ID_LENGTH: usize = 8;

/// The folders of the run `id` below `folder`.
pub(crate) struct Segments {
    folder: PathBuf,
    id: String,
}

/// One of them.
struct Segment {
    path: PathBuf,
    name: String,
    file: PathBuf,
}

impl Segments {
    /// Those of an earlier process, if there are any.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub(crate) fn earlier(folder: &Path, id: &str) -> Result<Option<Self>> {
        let this = Self { folder: folder.to_owned(), id: id.to_owned() };
        Ok((!id.is_empty() && !this.all()?.is_empty()).then_some(this))
    }

    /// Those of a new run.
    pub(crate) fn new(folder: &Path) -> Self {
        // The keys of the standard library's hash maps are random.
        let mut random = RandomState::new().hash_one(std::process::id());
        let mut id = String::new();
        for _ in 0..ID_LENGTH {
            id.push(char::from(LETTERS[(random % 36) as usize]));
            random /= 36;
        }
        Self { folder: folder.to_owned(), id }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Removes what was written after a checkpoint of `step`. `lengths` says how long the files were then; where it is not
    /// known, the first values of a later step are removed with all that follow. What was uploaded stays as it is. The last
    /// step that has values afterwards. The file `own` of this process does not count.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or cut.
    pub(crate) fn cut(&self, step: u64, lengths: Option<&Lengths>, own: &Path) -> Result<Option<u64>> {
        let mut last = None;
        for segment in self.all()?.into_iter().filter(|segment| segment.file != own) {
            let bytes = match fs::read(&segment.file) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                bytes => bytes.map_err(|error| failed("read", &segment.file, error))?,
            };
            let kept = match lengths {
                Some(lengths) => until(&bytes, lengths.get(&segment.name).copied().unwrap_or(0)),
                None => before(&bytes, step),
            };
            if segment.is_uploaded() {
                last = last.max(last_step(&bytes));
                if last_step(&bytes).is_some_and(|last| last > step) {
                    let name = &segment.name;
                    tracing::warn!(
                        "W&B has steps of `{name}` after step {step}, where the run goes on, and keeps them"
                    );
                }
                continue;
            }
            last = last.max(last_step(&bytes[..kept]));
            if kept == 0 {
                fs::remove_dir_all(&segment.path).map_err(|error| failed("remove", &segment.path, error))?;
            } else if kept < bytes.len() {
                let file = OpenOptions::new().write(true).open(&segment.file);
                let cut = file.and_then(|file| file.set_len(kept as u64));
                cut.map_err(|error| failed("cut", &segment.file, error))?;
            }
        }
        Ok(last)
    }

    /// Makes the folder of this process, and its file with the first records.
    ///
    /// # Errors
    ///
    /// When they cannot be written; then there is no folder.
    pub(crate) fn begin(&self, now: Timestamp, first: Vec<What>) -> Result<LogFile> {
        fs::create_dir_all(&self.folder).map_err(|error| failed("create the folder", &self.folder, error))?;
        let mut started = now;
        let path = loop {
            let name = format!("offline-run-{}-{}", started.strftime("%Y%m%d_%H%M%S"), self.id);
            let path = self.folder.join(name);
            match fs::create_dir(&path) {
                Ok(()) => break path,
                // The process before may have begun in the same second.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    started += jiff::SignedDuration::from_secs(1);
                }
                Err(error) => return Err(failed("create the folder", &path, error)),
            }
        };
        let file = self.file_with(&path, first);
        if file.is_err() {
            // A reader would find a run without a beginning.
            let _ = fs::remove_dir_all(&path);
        }
        file
    }

    fn file_with(&self, path: &Path, first: Vec<What>) -> Result<LogFile> {
        // W&B's folder for files that it uploads with the run.
        let files = path.join("files");
        fs::create_dir(&files).map_err(|error| failed("create the folder", &files, error))?;
        let mut file = LogFile::create(self.file_in(path))?;
        first.into_iter().try_for_each(|record| file.append(record))?;
        file.flush()?;
        Ok(file)
    }

    /// How long the files are, those of earlier processes too.
    ///
    /// # Errors
    ///
    /// When the system does not tell it.
    pub(crate) fn lengths(&self) -> Result<Lengths> {
        let length = |segment: Segment| {
            let length = fs::metadata(&segment.file).map_err(|error| failed("look at", &segment.file, error))?.len();
            Ok((segment.name, length))
        };
        self.all()?.into_iter().map(length).collect()
    }

    fn all(&self) -> Result<Vec<Segment>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed("read the folder", &self.folder, error))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed("read the folder", &self.folder, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name
                .strip_prefix("offline-run-")
                .and_then(|rest| rest.rsplit_once('-'))
                .is_some_and(|(_, id)| id == self.id)
            {
                found.push(Segment { file: self.file_in(&path), path, name });
            }
        }
        Ok(found)
    }

    fn file_in(&self, path: &Path) -> PathBuf {
        path.join(format!("run-{}.wandb", self.id))
    }
}

impl Segment {
    /// Whether `wandb sync` has uploaded it, which leaves a mark beside the file.
    fn is_uploaded(&self) -> bool {
        self.file.with_extension("wandb.synced").exists()
    }
}

/// The bytes of the records that end within `length`.
fn until(bytes: &[u8], length: u64) -> usize {
    let ends = log_file::records(bytes).into_iter().map(|(_, end)| end);
    ends.take_while(|end| *end as u64 <= length).last().unwrap_or(0)
}

/// The bytes of the records before the first values of a later step.
fn before(bytes: &[u8], step: u64) -> usize {
    let is_later = |what: &Option<What>| match what {
        Some(What::History(history)) => history.step.is_some_and(|at| at.num > step as i64),
        // What goes on has not ended.
        Some(What::Exit(_)) => true,
        _ => false,
    };
    let records = log_file::records(bytes).into_iter();
    records.take_while(|(record, _)| !is_later(&record.what)).map(|(_, end)| end).last().unwrap_or(0)
}

/// The last step that has values.
fn last_step(bytes: &[u8]) -> Option<u64> {
    let mut steps = log_file::records(bytes).into_iter().filter_map(|(record, _)| match record.what {
        Some(What::History(history)) => u64::try_from(history.step?.num).ok(),
        _ => None,
    });
    steps.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Row;

    fn write(segments: &Segments, steps: std::ops::RangeInclusive<u64>) -> PathBuf {
        let mut file = segments.begin(Timestamp::UNIX_EPOCH, Vec::new()).unwrap();
        for step in steps {
            file.append(What::History(Row::new(step, 0.0, 0.0).history())).unwrap();
        }
        file.flush().unwrap();
        file.path().to_owned()
    }

    fn steps(path: &Path) -> Vec<i64> {
        let records = log_file::records(&fs::read(path).unwrap()).into_iter();
        let step = |what| if let Some(What::History(history)) = what { history.step.unwrap().num } else { -1 };
        records.map(|(record, _)| step(record.what)).collect()
    }

    #[test]
    fn later_steps_go_and_a_further_folder_follows() {
        let folder = tempfile::tempdir().unwrap();
        let segments = Segments::new(folder.path());
        let other = write(&Segments::new(folder.path()), 1..=9);
        let first = write(&segments, 1..=9);
        assert_eq!(segments.cut(5, None, Path::new("")).unwrap(), Some(5));
        assert_eq!((steps(&first), steps(&other).len()), (vec![1, 2, 3, 4, 5], 9));
        let lengths = segments.lengths().unwrap();
        let second = write(&segments, 6..=7);
        assert!(second > first, "one second later in its name");
        segments.cut(7, Some(&lengths), Path::new("")).unwrap();
        assert!(first.exists() && !second.exists(), "written after the checkpoint that knows the lengths");
        assert!(Segments::earlier(folder.path(), segments.id()).unwrap().is_some());
        assert!(Segments::earlier(folder.path(), "other").unwrap().is_none());
    }

    #[test]
    fn what_was_uploaded_stays() {
        let folder = tempfile::tempdir().unwrap();
        let segments = Segments::new(folder.path());
        let first = write(&segments, 1..=9);
        fs::write(first.with_extension("wandb.synced"), "").unwrap();
        segments.cut(5, None, Path::new("")).unwrap();
        segments.cut(5, Some(&Lengths::new()), Path::new("")).unwrap();
        assert_eq!(steps(&first).len(), 9);
    }

    #[test]
    fn a_torn_tail_goes_too() {
        let folder = tempfile::tempdir().unwrap();
        let segments = Segments::new(folder.path());
        let first = write(&segments, 1..=3);
        let whole = fs::read(&first).unwrap();
        let lengths = segments.lengths().unwrap();
        fs::write(&first, &whole[..whole.len() - 1]).unwrap();
        segments.cut(9, Some(&lengths), Path::new("")).unwrap();
        assert_eq!(steps(&first), [1, 2]);
    }

    #[test]
    fn ids_are_those_of_wandb() {
        let ids: Vec<_> = (0..100).map(|_| Segments::new(Path::new("")).id).collect();
        assert!(ids.iter().all(|id| id.len() == 8 && id.bytes().all(|letter| LETTERS.contains(&letter))));
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
