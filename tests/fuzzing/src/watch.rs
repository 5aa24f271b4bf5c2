//! Inputs that a reader does not come to an end with.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The longest time of a reader for one input of some kilobytes: a thousand times what any of them takes.
const LONGEST: Duration = Duration::from_secs(30);

/// A thread that ends the process where a reader does not end.
pub(crate) struct Watch {
    /// Sends inputs when they begin, and `None` when they end; `None` after the last one.
    inputs: Option<Sender<Option<Vec<u8>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(reader: &str) -> Watch {
        let (sender, receiver) = mpsc::channel::<Option<Vec<u8>>>();
        let reader = reader.to_owned();
        let thread = thread::spawn(move || {
            while let Ok(begun) = receiver.recv() {
                let Some(input) = begun else { continue };
                if receiver.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                    eprintln!(
                        "{reader}: no end after {LONGEST:?} with the input {:?}",
                        input.escape_ascii().to_string()
                    );
                    std::process::abort();
                }
            }
        });
        Watch { inputs: Some(sender), thread: Some(thread) }
    }

    /// Calls `read`, which reads the input.
    pub(crate) fn over<T>(&self, input: &[u8], read: impl FnOnce() -> T) -> T {
        self.send(Some(input.to_vec()));
        let value = read();
        self.send(None);
        value
    }

    fn send(&self, input: Option<Vec<u8>>) {
        if let Some(inputs) = &self.inputs {
            // The thread ends after this sender does.
            let _ = inputs.send(input);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.inputs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
