//! How fast models are exported, without verification and without waiting for the disk.

use std::time::{Duration, Instant};

use plugin_api::event::{At, Trigger};
use plugin_api::protocol::TensorSet;
use plugin_api::testing::FakeHost;
use plugin_api::{Callback, Creation, Result, Run, plugin};
use serde_json::json;

use crate::{Model, Subject};

const ROUNDS: usize = 7;

/// The net of examples/digits.
const DIGITS: &str = r#"
    { type = "conv2d", out_channels = 32, kernel_size = 3, padding = 1 }, { type = "batch_norm" }, { type = "relu" },
    { type = "max_pool2d", kernel_size = 2 }, { type = "flatten" }, { type = "dropout", p = 0.25 },
    { type = "linear", out_features = 10 }"#;

/// Twenty-five matrices of 16 MB.
const LARGE: &str = r#"{ type = "repeat", times = 25, layers = [{ type = "linear", out_features = 2000 }] }"#;

/// Reads the weights and does nothing else: the cost of a hook in the fake host before it writes.
struct OnlyReads;

#[plugin]
impl Callback for OnlyReads {
    const KIND: &'static str = "only-reads";
    const SUMMARY: &'static str = "Reads the weights";

    fn new(_: Self::Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_setup(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        run.tensors(TensorSet::Parameters)?;
        run.tensors(TensorSet::Buffers).map(drop)
    }
}

/// Prints the times of `T` for the digits' net and for 400 MB of weights, next to one `write` of as many bytes. The
/// copies of the fake host for each hook that reads weights do not count.
///
/// # Errors
///
/// A model is not exported, or the disk is full.
pub fn measure_speed<T: Callback>() -> Result<()> {
    measure::<T>("digits", &Subject::new(Model::new("digits", DIGITS, &[1, 8, 8])))?;
    measure::<T>("400 MB", &Subject::new(Model::new("large", LARGE, &[2000])))
}

fn measure<T: Callback>(name: &str, subject: &Subject) -> Result<()> {
    let mut reads = subject.run::<OnlyReads>(json!({}), 1)?;
    let mut host = subject.run::<T>(json!({ "verify": false, "sync": false }), 1)?;
    reads.setup()?;
    host.setup()?;
    host.trigger("end")?;
    let file = |host: &FakeHost| host.folder().join(&host.artifacts()[0].path);
    let bytes = vec![1u8; std::fs::metadata(file(&host))?.len() as usize];
    let target = reads.folder().join("plain");
    let (mut plain, mut exports) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let reading = timed(|| reads.trigger("end"))?;
        plain.push(timed(|| std::fs::write(&target, &bytes).map_err(Into::into))?);
        std::fs::remove_file(&target)?;
        std::fs::remove_file(file(&host))?;
        exports.push(timed(|| host.trigger("end"))?.saturating_sub(reading));
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let (plain, export) = (median(plain), median(exports));
    println!(
        "{} {name:<8} {:9.2} ms  {:.2} of the speed of one write of {} bytes",
        T::KIND,
        export * 1e3,
        plain / export,
        bytes.len()
    );
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}
