use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use plugin_api::testing::{FakeHost, json};

use super::sampler::Usage;
use super::*;

/// A GPU whose utilization is ten times the number of its sample, from 0, until it fails.
struct Rising {
    samples: Arc<AtomicU32>,
    most: u32,
}

impl Gpu for Rising {
    fn usage(&self) -> Result<Usage, String> {
        let sample = self.samples.fetch_add(1, Ordering::SeqCst);
        match sample < self.most {
            true => Ok(Usage { utilization: f64::from(sample * 10), memory: f64::from(sample) }),
            false => Err("it fell off the bus".to_owned()),
        }
    }
}

struct Fake;

impl Driver for Fake {
    fn open(device: &str) -> Result<Box<dyn Gpu>, String> {
        match device {
            "cuda:0" => Ok(Box::new(Rising { samples: Arc::default(), most: 2 })),
            other => Err(format!("there is no `{other}`")),
        }
    }
}

/// A host whose samples are taken only when they are put.
fn host(device: &str) -> FakeHost {
    let host = FakeHost::new::<GpuUtilization<Fake>>(json!({ "interval_seconds": 3600 })).unwrap();
    host.with_info(|info| info.device = device.to_owned())
}

#[test]
fn samples_are_averaged_until_they_are_taken() {
    let samples = Arc::new(AtomicU32::new(0));
    let gpu = Box::new(Rising { samples: Arc::clone(&samples), most: u32::MAX });
    let sampler = Sampler::start(gpu, Duration::from_millis(1)).unwrap();
    let started = Instant::now();
    while samples.load(Ordering::SeqCst) < 5 {
        assert!(started.elapsed() < Duration::from_secs(60), "no samples come");
        std::thread::sleep(Duration::from_millis(1));
    }
    let least = samples.load(Ordering::SeqCst) - 1;
    let usage = sampler.take().unwrap();
    // The last sample may not be counted yet; and others may have come meanwhile.
    let most = samples.load(Ordering::SeqCst);
    let mean = |count: u32| f64::from(10 * (count - 1)) / 2.0;
    assert!(mean(least) <= usage.utilization && usage.utilization <= mean(most), "{usage:?} of {least} to {most}");
    assert_eq!(usage.utilization, usage.memory * 10.0);
    // Those that were taken no longer count.
    let next = sampler.take().unwrap();
    assert!(next.utilization >= f64::from(10 * (least - 1)), "{next:?} after {least}");
}

#[test]
fn the_thread_ends_with_the_sampler() {
    let samples = Arc::new(AtomicU32::new(0));
    let gpu = Box::new(Rising { samples: Arc::clone(&samples), most: u32::MAX });
    let started = Instant::now();
    drop(Sampler::start(gpu, Duration::from_secs(3600)).unwrap());
    assert_eq!(Arc::strong_count(&samples), 1);
    assert!(started.elapsed() < Duration::from_secs(600), "it waits for no sample");
}

#[test]
fn the_use_is_a_metric_once_a_step_until_the_gpu_fails() {
    let mut host = host("cuda:0");
    host.train_start().unwrap();
    host.epoch_end(1).unwrap();
    host.trigger("epoch").unwrap();
    assert_eq!((host.metric("gpu_utilization"), host.metric("gpu_memory_used")), (Some(0.0), Some(0.0)));
    host.set_position(2, 13);
    host.trigger("step").unwrap();
    assert_eq!((host.metric("gpu_utilization"), host.metric("gpu_memory_used")), (Some(10.0), Some(1.0)));
    host.epoch_end(2).unwrap();
    host.epoch_end(3).unwrap();
    let told = "the use of the GPU is no longer measured: it fell off the bus";
    assert_eq!(host.logs().iter().filter(|line| line.contains(told)).count(), 1, "{:?}", host.logs());
    assert_eq!(host.metric("gpu_utilization"), Some(10.0));
}

#[test]
fn a_run_without_a_gpu_is_told_once() {
    let mut host = host("cpu");
    host.train_start().unwrap();
    host.epoch_end(1).unwrap();
    host.epoch_end(2).unwrap();
    let told = host.logs().iter().filter(|line| line.contains("the use of the GPU is not measured")).count();
    assert_eq!((told, host.metric("gpu_utilization")), (1, None), "{:?}", host.logs());
}

#[test]
fn an_interval_of_nothing_is_refused() {
    let error = FakeHost::new::<GpuUtilization<Fake>>(json!({ "interval_seconds": -1 })).err().unwrap();
    assert!(error.message().contains("interval_seconds"), "{error}");
}
