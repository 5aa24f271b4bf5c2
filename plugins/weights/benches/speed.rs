//! How fast 400 MB of weights are exported, compared with one `write` of as many bytes. Nothing is flushed
//! to the disk in either; the copies of the fake host for each hook that reads weights do not count.

use std::time::{Duration, Instant};

use plugin_api::event::{At, Trigger};
use plugin_api::protocol::TensorSet;
use plugin_api::testing::{FakeHost, json};
use plugin_api::{Callback, Creation, Result, Run, Tensor, plugin};
use weights::WeightsExport;

const TENSORS: usize = 25;
/// Elements of a tensor: 16 MB.
const ELEMENTS: usize = 4_000_000;
const ROUNDS: usize = 7;

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

fn main() -> Result<()> {
    let values: Vec<f32> = (0..ELEMENTS).map(|index| index as f32).collect();
    let fill = |host: &mut FakeHost| -> Result<()> {
        for index in 0..TENSORS {
            let tensor = Tensor::new(format!("fc{index}.weight"), &[2000, 2000], &values)?;
            host.put_tensor(TensorSet::Parameters, tensor);
        }
        host.put_tensor(TensorSet::Buffers, Tensor::new("bn1.num_batches_tracked", &[], &[1i64])?);
        host.set_position(1, 10);
        host.setup()
    };
    let mut reads = FakeHost::new::<OnlyReads>(json!({}))?;
    fill(&mut reads)?;
    let mut hosts = Vec::new();
    for format in ["safetensors", "pt", "npz"] {
        let mut host = FakeHost::new::<WeightsExport>(json!({ "formats": [format], "sync": false }))?;
        fill(&mut host)?;
        hosts.push((format, host));
    }
    let bytes = vec![1u8; TENSORS * ELEMENTS * size_of::<f32>()];
    let target = reads.folder().join("plain");

    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    for _ in 0..ROUNDS {
        let reading = timed(|| reads.trigger("end"))?;
        let mut round = vec![("one write", timed(|| std::fs::write(&target, &bytes).map_err(Into::into))?)];
        std::fs::remove_file(&target)?;
        for (format, host) in &mut hosts {
            round.push((format, timed(|| host.trigger("end"))?.saturating_sub(reading)));
            std::fs::remove_file(host.folder().join(format!("exports/model.{format}")))?;
        }
        for (what, time) in round {
            match times.iter_mut().find(|(name, _)| *name == what) {
                Some((_, times)) => times.push(time),
                None => times.push((what, vec![time])),
            }
        }
    }
    let mut plain = 0.0;
    for (what, mut times) in times {
        times.sort();
        let seconds = times[times.len() / 2].as_secs_f64();
        plain = if plain == 0.0 { seconds } else { plain };
        println!(
            "{what:<12} {:7.1} ms {:6.2} GB/s  {:.2} of one write",
            seconds * 1e3,
            bytes.len() as f64 / seconds / 1e9,
            plain / seconds
        );
    }
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}
