//! What rank zero of a run of several has read, for the other ranks.
//!
//! A file may change between the moments at which two ranks read it. So rank zero reads it and writes down what it found,
//! with the number of the trigger, and the others wait for that number. They cannot be overtaken: between two triggers there is
//! a step, which all ranks compute together.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, Run};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How often the others look.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long they wait for rank zero, which may be in a slow hook of another callback.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where rank zero tells the others what it read.
#[derive(Debug)]
pub(super) struct Told {
    path: PathBuf,
    rank: u64,
    /// How often something was told.
    count: u64,
}

#[derive(Serialize, Deserialize)]
struct Message<T> {
    count: u64,
    content: T,
}

impl Told {
    /// `None` in a run of one rank, and in a trial, in which each rank has a folder apart.
    ///
    /// # Errors
    ///
    /// When what is left of an earlier process cannot be removed.
    pub(super) fn of_run(info: &RunInfo) -> Result<Option<Self>> {
        if info.world_size < 2 || info.trial {
            return Ok(None);
        }
        let ranks = run_folder(info).join("ranks");
        let told = Self { path: ranks.join(format!(".told-{}", info.instance)), rank: info.rank, count: 0 };
        if told.rank > 0 {
            return Ok(Some(told));
        }
        // The others look there after the first step, which comes after the setup of all ranks.
        let removed = std::fs::create_dir_all(&ranks).and_then(|()| match std::fs::remove_file(&told.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        removed.map_err(|error| told.cannot("prepare", &error))?;
        Ok(Some(told))
    }

    /// On rank zero, tells what `read` finds; on the others, what rank zero found at the same trigger.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or if rank zero tells nothing for ten minutes.
    pub(super) fn tell<T: Serialize + DeserializeOwned>(
        &mut self,
        run: &Run<'_>,
        read: impl FnOnce() -> T,
    ) -> Result<T> {
        self.count += 1;
        if self.rank > 0 {
            return self.wait(run);
        }
        let message = Message { count: self.count, content: read() };
        self.write(&message).map_err(|error| self.cannot("write", &error))?;
        Ok(message.content)
    }

    fn write<T: Serialize>(&self, message: &Message<T>) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(&serde_json::to_vec(message)?)?;
        file.persist(&self.path).map_err(|error| error.error).map(drop)
    }

    fn wait<T: DeserializeOwned>(&self, run: &Run<'_>) -> Result<T> {
        let began = Instant::now();
        loop {
            let found = std::fs::read(&self.path).ok();
            let message = found.and_then(|bytes| serde_json::from_slice::<Message<T>>(&bytes).ok());
            if let Some(Message { count, content }) = message
                && count == self.count
            {
                return Ok(content);
            }
            if began.elapsed() > PATIENCE {
                let (path, minutes) = (self.path.display(), PATIENCE.as_secs() / 60);
                return Err(Error::new(format!(
                    "rank 0 has not written `{path}` for {minutes} minutes: is the run folder one that all machines share?"
                )));
            }
            run.keep_alive()?;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn cannot(&self, what: &str, error: &std::io::Error) -> Error {
        Error::new(format!(
            "cannot {what} `{}`, which tells the other ranks what was read: {error}",
            self.path.display()
        ))
    }
}

/// The folder of the whole run: that of a rank above zero is `ranks/N` in it.
pub(super) fn run_folder(info: &RunInfo) -> &Path {
    let own = Path::new(&info.folder);
    match info.rank {
        0 => own,
        _ => own.ancestors().nth(2).unwrap_or(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(folder: &Path, rank: u64) -> RunInfo {
        RunInfo {
            folder: folder.display().to_string(),
            rank,
            world_size: 2,
            instance: "rates".into(),
            ..RunInfo::default()
        }
    }

    #[test]
    fn the_folder_of_a_run_is_that_of_rank_zero() {
        assert_eq!(run_folder(&info(Path::new("/runs/a"), 0)), Path::new("/runs/a"));
        assert_eq!(run_folder(&info(Path::new("/runs/a/ranks/3"), 3)), Path::new("/runs/a"));
    }

    #[test]
    fn what_an_earlier_process_told_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let told = Told::of_run(&info(folder.path(), 0)).unwrap().unwrap();
        told.write(&Message { count: 1, content: "old" }).unwrap();
        assert!(told.path.is_file());
        let told = Told::of_run(&info(folder.path(), 0)).unwrap().unwrap();
        assert!(!told.path.exists());
        let alone = RunInfo { world_size: 1, ..info(folder.path(), 0) };
        assert!(Told::of_run(&alone).unwrap().is_none());
    }
}
