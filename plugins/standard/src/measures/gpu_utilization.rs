//! `gpu-utilization`: how busy the run's GPU is and how much of its memory is used, as metrics; as tensorpack's
//! `GPUUtilizationTracker`.
//!
//! A thread asks the driver between the triggers: its answer is about less than a second, and between two steps it would be
//! about a GPU that waits. The metrics come at the end of an epoch, before the rows of metrics are written, and at triggers
//! within an epoch.

pub(crate) mod nvml;
mod sampler;

use std::marker::PhantomData;
use std::time::Duration;

use plugin_api::event::{At, Position, TrainEnd, Trigger};
use plugin_api::{Callback, Creation, Error, Result, Run, plugin, tracing};

use sampler::{Gpu, Sampler};

/// Options of `gpu-utilization`.
#[plugin]
pub(crate) struct Options {
    /// The seconds between two samples.
    #[schemars(range(min = 0.01, max = 3600.0))]
    interval_seconds: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { interval_seconds: 1.0 }
    }
}

/// What opens GPUs.
pub(crate) trait Driver: Send + 'static {
    /// The GPU of a device such as `cuda:0`; the error says why it cannot be measured.
    fn open(device: &str) -> Result<Box<dyn Gpu>, String>;
}

pub(crate) struct GpuUtilization<D: Driver> {
    interval: Duration,
    driver: PhantomData<D>,
    sampler: Option<Sampler>,
    /// The global step of the last values.
    put: Option<u64>,
}

#[plugin]
impl<D: Driver> Callback for GpuUtilization<D> {
    const KIND: &'static str = "gpu-utilization";
    const SUMMARY: &'static str = "Puts the utilization and the used memory of the run's GPU";
    const BY_DEFAULT: bool = false;
    const PRODUCES: &'static [&'static str] = &["gpu_utilization", "gpu_memory_used"];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let seconds = options.interval_seconds;
        let interval = Duration::try_from_secs_f64(seconds).ok().filter(|interval| !interval.is_zero());
        let interval = interval
            .ok_or_else(|| Error::new(format!("`interval_seconds` is {seconds}: set it to a number above 0")))?;
        Ok(Self { interval, driver: PhantomData, sampler: None, put: None })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        match D::open(&run.info()?.device) {
            Ok(gpu) => self.sampler = Some(Sampler::start(gpu, self.interval)?),
            Err(reason) => tracing::warn!("the use of the GPU is not measured: {reason}"),
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.put(run, event)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        self.put(run, event)
    }

    fn on_train_end(&mut self, _: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        self.sampler = None;
        Ok(())
    }
}

impl<D: Driver> GpuUtilization<D> {
    /// Puts what was measured since the last time, once a step.
    fn put(&mut self, run: &mut Run<'_>, position: &Position) -> Result<()> {
        if self.put == Some(position.global_step) {
            return Ok(());
        }
        let Some(sampler) = &self.sampler else { return Ok(()) };
        match sampler.take() {
            Ok(usage) => {
                run.put_metric("gpu_utilization", usage.utilization)?;
                run.put_metric("gpu_memory_used", usage.memory)?;
                self.put = Some(position.global_step);
            }
            Err(reason) => {
                self.sampler = None;
                tracing::warn!("the use of the GPU is no longer measured: {reason}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
