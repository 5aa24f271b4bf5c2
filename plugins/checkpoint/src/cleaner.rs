//! Deletes checkpoints on a thread of its own: on a slow disk it takes as long as many steps.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use crate::folder;

/// What became of the deletion of a checkpoint.
pub(crate) type Deleted = (String, io::Result<()>);

/// The thread of one folder. Dropping it waits for the end of what it was given.
pub(crate) struct Cleaner {
    jobs: Option<Sender<Vec<String>>>,
    deleted: Receiver<Deleted>,
    thread: Option<JoinHandle<()>>,
}

impl Cleaner {
    /// Starts the thread.
    pub(crate) fn start(folder: PathBuf) -> io::Result<Self> {
        let (jobs, given) = mpsc::channel::<Vec<String>>();
        let (tell, deleted) = mpsc::channel();
        let thread = std::thread::Builder::new().name("checkpoint cleaner".to_owned()).spawn(move || {
            for names in given {
                // The pointers have moved: they must be on the disk before what they named is gone.
                let flushed = folder::flush(&folder);
                for name in names {
                    let result = match &flushed {
                        Ok(()) => folder::delete(&folder, &name),
                        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                    };
                    // Nobody listens any more once the callback is gone.
                    let _ = tell.send((name, result));
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), deleted, thread: Some(thread) })
    }

    /// Flushes the folder and then deletes these checkpoints.
    pub(crate) fn clean(&self, names: Vec<String>) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only with the sender.
            let _ = jobs.send(names);
        }
    }

    /// What has been done since the last call.
    pub(crate) fn deleted(&self) -> Vec<Deleted> {
        self.deleted.try_iter().collect()
    }

    /// Waits for the end, and returns what has been done since the last call.
    pub(crate) fn finish(mut self) -> Vec<Deleted> {
        self.end();
        self.deleted()
    }

    fn end(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported, and what it did not delete stays.
            let _ = thread.join();
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.end();
    }
}
