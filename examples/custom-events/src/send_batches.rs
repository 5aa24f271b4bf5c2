//! `send-batches`: sends the batches of some steps, before the model sees them.

use plugin_api::event::At;
use plugin_api::protocol::TensorSet;
use plugin_api::{Callback, Creation, Error, EventKind, Need, Result, Run, plugin};

use crate::EVENT;

/// Options of `send-batches`.
#[plugin]
pub struct Options {
    /// The batch of each step whose number is a multiple of this is sent.
    #[schemars(range(min = 1))]
    every: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { every: 1 }
    }
}

pub struct SendBatches {
    options: Options,
}

#[plugin]
impl Callback for SendBatches {
    const KIND: &'static str = "send-batches";
    const SUMMARY: &'static str = "Sends the batches of steps as the event `verify_batch`";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[Need::batch(EventKind::STEP_START)];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.every == 0 {
            return Err(Error::new("`every` must be at least 1"));
        }
        Ok(Self { options })
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if !event.global_step.is_multiple_of(self.options.every) {
            return Ok(());
        }
        // The views are lent by the host, which passes them on: nothing is copied.
        let batch = run.tensors(TensorSet::Batch)?;
        let tensors: Vec<_> = batch.iter().map(|view| (view.name(), view)).collect();
        run.emit_with(EVENT, format!("step {}", event.global_step).as_bytes(), &tensors)
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    #[test]
    fn the_batches_of_some_steps_are_sent() {
        let mut host = FakeHost::new::<SendBatches>(json!({ "every": 2 })).unwrap();
        let batch = [
            Tensor::new("inputs", &[2, 1], &[0.5f32, 1.5]).unwrap(),
            Tensor::new("targets", &[2], &[0i64, 1]).unwrap(),
        ];
        for tensor in &batch {
            host.put_tensor(TensorSet::Batch, tensor.clone());
        }
        for step in 1..=4 {
            host.step_start(step).unwrap();
        }
        let sent: Vec<_> = host.emitted().iter().map(|event| (event.name.as_str(), &*event.payload.0)).collect();
        assert_eq!(sent, [(EVENT, &b"step 2"[..]), (EVENT, b"step 4")]);
        assert_eq!(host.emitted_tensors(1), batch);
    }

    #[test]
    fn never_is_refused() {
        assert!(FakeHost::new::<SendBatches>(json!({ "every": 0 })).is_err());
    }
}
