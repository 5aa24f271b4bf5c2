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
    /// Continues in `folder` after `resumed` steps: events of later steps from earlier processes are removed.
    ///
    /// # Errors
    ///
    /// When the folder cannot be created, or a file in it cannot be cut.
    pub(crate) fn begin(folder: PathBuf, instance: &str, resumed: u64, every: Duration) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(|error| failed("create the folder", &folder, error))?;
        let entries = fs::read_dir(&folder).map_err(|error| failed("read the folder", &folder, error))?;
        for entry in entries {
            let path = entry.map_err(|error| failed("read the folder", &folder, error))?.path();
            if path.is_dir() {
                event_file::cut(&path, instance, resumed)?;
            }
        }
        let (instance, files) = (instance.to_owned(), BTreeMap::new());
        Ok(Self { folder, instance, resumed, files, every, flushed: Instant::now() })
    }

    /// The folder of all runs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
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
        event_file::cut(&self.folder, &self.instance, 0)?;
        self.summary(WHOLE, step, vec![value])
    }
}
