//! The runs of a folder, TensorBoard's name for folders whose curves overlay each other: one for training, one for each
//! other split, and the folder itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plugin_api::Result;

use crate::event_file::{self, EventFile, failed};
use crate::proto::{Value, What};

/// The run of everything that belongs to no other split.
pub(crate) const TRAIN: &str = "train";
/// The folder itself, which represents the whole run: it has the hyper-parameters.
pub(crate) const WHOLE: &str = "";

/// How long event files are, by their paths in the folder.
pub(crate) type Lengths = BTreeMap<String, u64>;

/// Where a run goes on.
pub(crate) struct Resumed {
    /// The steps before.
    pub(crate) step: u64,
    /// The event files of then, if the checkpoint knows them.
    pub(crate) lengths: Option<Lengths>,
}

/// Writers of event files by run; a file is created when its run gets its first event.
pub(crate) struct Runs {
    folder: PathBuf,
    instance: String,
    resumed: u64,
    files: BTreeMap<String, EventFile>,
    every: Duration,
    flushed: Instant,
}

impl Runs {
    /// Continues in `folder`: what earlier processes wrote after the checkpoint is removed.
    ///
    /// # Errors
    ///
    /// When the folder cannot be created, or a file in it cannot be cut.
    pub(crate) fn begin(folder: PathBuf, instance: &str, resumed: Resumed, every: Duration) -> Result<Self> {
        let Resumed { step, lengths } = resumed;
        fs::create_dir_all(&folder).map_err(|error| failed("create the folder", &folder, error))?;
        let entries = fs::read_dir(&folder).map_err(|error| failed("read the folder", &folder, error))?;
        for entry in entries {
            let path = entry.map_err(|error| failed("read the folder", &folder, error))?.path();
            if path.is_dir() {
                let length = |name: &str| lengths.as_ref().map(|all| all.get(&key(&path, name)).copied().unwrap_or(0));
                event_file::cut(&path, instance, step, length)?;
            }
        }
        let (instance, files) = (instance.to_owned(), BTreeMap::new());
        Ok(Self { folder, instance, resumed: step, files, every, flushed: Instant::now() })
    }

    /// The folder of all runs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How long the files are, those of earlier processes too.
    ///
    /// # Errors
    ///
    /// When the system does not tell it.
    pub(crate) fn lengths(&self) -> Result<Lengths> {
        let mut lengths = Lengths::new();
        let entries = fs::read_dir(&self.folder).map_err(|error| failed("read the folder", &self.folder, error))?;
        for entry in entries {
            let path = entry.map_err(|error| failed("read the folder", &self.folder, error))?.path();
            if path.is_dir() {
                let files = event_file::lengths(&path, &self.instance)?;
                lengths.extend(files.into_iter().map(|(name, length)| (key(&path, &name), length)));
            }
        }
        Ok(lengths)
    }

    /// Appends an event to a run.
    ///
    /// # Errors
    ///
    /// When its file cannot be created or written.
    pub(crate) fn append(&mut self, run: &str, step: u64, what: What) -> Result<()> {
        if !self.files.contains_key(run) {
            let file = EventFile::create(&self.folder.join(run), &self.instance, self.resumed)?;
            self.files.insert(run.to_owned(), file);
        }
        match self.files.get_mut(run) {
            Some(file) => file.append(step, what)?,
            None => return Ok(()),
        }
        if self.flushed.elapsed() < self.every { Ok(()) } else { self.flush() }
    }

    /// Appends values to a run, if there are any.
    ///
    /// # Errors
    ///
    /// When its file cannot be created or written.
    pub(crate) fn summary(&mut self, run: &str, step: u64, value: Vec<Value>) -> Result<()> {
        if value.is_empty() {
            return Ok(());
        }
        self.append(run, step, What::Summary(crate::proto::Summary { value }))
    }

    /// Writes what is buffered, of every run even if one fails.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.files.values_mut().map(EventFile::flush).fold(Ok(()), Result::and)
    }

    /// Restarts the run of the whole folder, with one value: readers keep the first value of each tag.
    ///
    /// # Errors
    ///
    /// When its files cannot be removed or created.
    pub(crate) fn begin_whole(&mut self, step: u64, value: Value) -> Result<()> {
        self.files.remove(WHOLE);
        event_file::cut(&self.folder, &self.instance, 0, |_| None)?;
        self.summary(WHOLE, step, vec![value])
    }
}

/// A file of the folder of a run, as a key.
fn key(folder: &Path, name: &str) -> String {
    format!("{}/{name}", folder.file_name().unwrap_or_default().to_string_lossy())
}
