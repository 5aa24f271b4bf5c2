//! Where logs go: to stderr for people, and structured to `log.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::events::Events;
use crate::console::Console;
use crate::dispatch::ENDS_RUN;
use crate::services::Screen;
use crate::train::EPOCH_LOG;

/// How much of the log people see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Errors.
    Quiet,
    /// Warnings too.
    #[default]
    Normal,
    /// What the host does.
    Verbose,
    /// Everything.
    Debug,
}

/// The log of the process: `log.jsonl` can be opened later, when the run folder is known.
#[derive(Clone)]
pub(super) struct Log {
    file: Arc<RwLock<Option<Arc<Mutex<LogFile>>>>>,
    /// What is logged before there is a file.
    early: Arc<Mutex<Vec<u8>>>,
    console: Arc<Console>,
}

/// The most bytes that wait for the file.
const EARLY_BYTES: usize = 256 << 10;

/// The open file.
struct LogFile {
    path: PathBuf,
    file: File,
    /// Whether the last line was lost, which is told once.
    is_behind: bool,
}

impl Log {
    /// Starts logging to the console, and warnings as events. The log of a program that embeds the host is kept.
    pub(super) fn start(console: &Arc<Console>, events: Events, verbosity: Verbosity) -> Self {
        let log = Self { file: Arc::default(), early: Arc::default(), console: Arc::clone(console) };
        let level = match verbosity {
            Verbosity::Quiet => "error",
            Verbosity::Normal => "warn",
            Verbosity::Verbose => "info",
            Verbosity::Debug => "debug",
        };
        // `print-metrics` shows the epochs, in its own words.
        let level = format!("{level},{ENDS_RUN}=off,{EPOCH_LOG}=off");
        // `HOST_LOG` takes tracing's directives.
        let filter = EnvFilter::try_from_env("HOST_LOG").unwrap_or_else(|_| EnvFilter::new(level));
        let people = tracing_subscriber::fmt::layer()
            .with_writer(ToConsole(Arc::clone(console)))
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_filter(filter);
        let detail = if verbosity == Verbosity::Debug { "debug" } else { "info" };
        let machine =
            tracing_subscriber::fmt::layer().json().with_writer(log.clone()).with_filter(EnvFilter::new(detail));
        let _ = tracing_subscriber::registry().with(people).with(machine).with(events).try_init();
        log
    }

    /// From now on everything is also written to `log.jsonl` in the folder; a resumed run appends to it.
    pub(super) fn open(&self, folder: &Path) -> std::io::Result<()> {
        let path = folder.join("log.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut file = LogFile { path, file, is_behind: false };
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        // A full disk does not end the run.
        let _ = file.append(&early);
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Mutex::new(file)));
        Ok(())
    }
}

impl LogFile {
    /// Appends a line, or nothing of it.
    fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        let before = self.file.metadata()?.len();
        self.file.write_all(line).inspect_err(|_| {
            // What cannot be cut back is a line that readers skip.
            let _ = self.file.set_len(before);
        })
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = ToFile;
    fn make_writer(&'a self) -> ToFile {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner).clone();
        ToFile { file, early: Arc::clone(&self.early), console: Arc::clone(&self.console) }
    }
}

/// A line of `log.jsonl`; it waits until the run folder exists.
pub(super) struct ToFile {
    file: Option<Arc<Mutex<LogFile>>>,
    early: Arc<Mutex<Vec<u8>>>,
    console: Arc<Console>,
}

impl Write for ToFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(file) = &self.file else {
            let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
            if early.len() + bytes.len() <= EARLY_BYTES {
                early.extend_from_slice(bytes);
            }
            return Ok(bytes.len());
        };
        let mut log = file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = log.append(bytes);
        let was_behind = std::mem::replace(&mut log.is_behind, written.is_err());
        if let Err(error) = &written
            && !was_behind
        {
            let lost = format!("warning: cannot write `{}`: {error}; its lines are lost", log.path.display());
            self.console.line(&lost);
        }
        written.map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct ToConsole(Arc<Console>);

impl<'a> MakeWriter<'a> for ToConsole {
    type Writer = ConsoleWriter;
    fn make_writer(&'a self) -> ConsoleWriter {
        ConsoleWriter(Arc::clone(&self.0))
    }
}

struct ConsoleWriter(Arc<Console>);

impl Write for ConsoleWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
