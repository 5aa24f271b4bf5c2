//! Samples on a thread of their own.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use plugin_api::{Error, Result};

/// A device whose use can be measured.
pub(crate) trait Gpu: Send + Sync {
    /// Its use now; the error says why it is not known.
    fn usage(&self) -> Result<Usage, String>;
}

/// The use of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// The percentage of the time in which something was computed.
    pub(super) utilization: f64,
    /// The bytes of its memory that are used, by all processes.
    pub(super) memory: f64,
}

/// The samples since the last report: their sums and their number; an error ends them.
type Samples = Result<(Usage, u32), String>;

const NONE: (Usage, u32) = (Usage { utilization: 0.0, memory: 0.0 }, 0);

/// A thread that takes samples until this is dropped.
pub(super) struct Sampler {
    gpu: Arc<dyn Gpu>,
    samples: Arc<Mutex<Samples>>,
    /// Closed to end the thread.
    open: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    pub(super) fn start(gpu: Box<dyn Gpu>, interval: Duration) -> Result<Self> {
        let gpu: Arc<dyn Gpu> = gpu.into();
        let samples: Arc<Mutex<Samples>> = Arc::new(Mutex::new(Ok(NONE)));
        let (open, closed) = mpsc::channel::<()>();
        let (of_thread, sum) = (Arc::clone(&gpu), Arc::clone(&samples));
        let sample = move || {
            while closed.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let usage = of_thread.usage();
                let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                match (usage, &mut *sum) {
                    (Ok(usage), Ok((sum, count))) => {
                        sum.utilization += usage.utilization;
                        sum.memory += usage.memory;
                        *count += 1;
                    }
                    (Err(reason), _) => {
                        *sum = Err(reason);
                        return;
                    }
                    (_, Err(_)) => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("gpu-utilization".to_owned()).spawn(sample);
        let thread = thread.map_err(|error| Error::from(error).context("cannot start a thread that takes samples"))?;
        Ok(Self { gpu, samples, open: Some(open), thread: Some(thread) })
    }

    /// The mean of the samples since the last call; of none, what is measured now.
    ///
    /// # Errors
    ///
    /// Why the device cannot be measured.
    pub(super) fn take(&self) -> Result<Usage, String> {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let (sum, count) = std::mem::replace(&mut *samples, Ok(NONE))?;
        if count == 0 {
            return self.gpu.usage();
        }
        let count = f64::from(count);
        Ok(Usage { utilization: sum.utilization / count, memory: sum.memory / count })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.open = None;
        // A panic of the thread has no other consequence than that its samples end.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
