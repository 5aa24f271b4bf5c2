//! Looks for files while the loop is paused: then it sends no trigger, and no other hook.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use plugin_api::protocol::Control;
use plugin_api::{Error, Remote, Result};

use super::control_files::ControlFiles;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A thread that looks for files until it has ended the pause, or until this is dropped.
pub(super) struct PauseWatch {
    /// Closed to end the thread.
    open: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a paused loop still does.
fn is_done_in_a_pause(action: Control) -> bool {
    matches!(action, Control::Resume | Control::Stop | Control::Checkpoint)
}

impl PauseWatch {
    /// Begins to look; `None` if no file asks for anything that a paused loop does.
    pub(super) fn start(files: &Arc<ControlFiles>, remote: Remote) -> Result<Option<Self>> {
        if !files.ask_for(is_done_in_a_pause) {
            return Ok(None);
        }
        let files = Arc::clone(files);
        let (open, closed) = mpsc::channel::<()>();
        let look = move || {
            while closed.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let mut is_over = false;
                for (action, reason) in files.take(is_done_in_a_pause) {
                    // After the end of the training there is nothing to ask for.
                    is_over |= remote.request(action, &reason).is_err() || action != Control::Checkpoint;
                }
                if is_over {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("remote-control".to_owned()).spawn(look);
        let thread = thread.map_err(|error| Error::from(error).context("cannot start a thread that ends the pause"))?;
        Ok(Some(Self { open: Some(open), thread: Some(thread) }))
    }
}

impl Drop for PauseWatch {
    fn drop(&mut self) {
        self.open = None;
        // A panic of the thread has no consequence: the next trigger looks for the files.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
