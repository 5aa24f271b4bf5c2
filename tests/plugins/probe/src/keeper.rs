//! `keeper`: what a resume must restore: a named copy of the weights, hyper-parameters taken over, arrays, state.

use plugin_api::event::{At, Checkpoint};
use plugin_api::protocol::{CopyAction, TensorSet};
use plugin_api::{Callback, Creation, Need, Result, Run, Tensor, decode_state, encode_state, plugin};
use serde_json::json;

use crate::journal::Journal;
use crate::tensors::{owned, views};

/// The copy is an average of the weights; its name has a slash, as names of groups do.
const COPY: &str = "average/slow";

#[plugin]
#[derive(Default)]
pub struct Options {
    /// The journal.
    path: String,
    /// At this global step it takes `weight_decay` over, and `learning_rate` three steps later; 0: never.
    take_over: u64,
}

pub struct Keeper {
    options: Options,
    journal: Journal,
    steps: u64,
}

#[plugin]
impl Callback for Keeper {
    const KIND: &'static str = "keeper";
    const SUMMARY: &'static str = "Keeps an average of the weights";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[Need::WRITES_WEIGHTS];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { journal: Journal::open(&options.path)?, options, steps: 0 })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.steps = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.steps)
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.steps == 0 {
            run.copy_weights(COPY, CopyAction::Take)?;
        }
        let resumed = run.info()?.resumed_from.is_some();
        let groups = run.hyper_parameters()?;
        self.journal.line(json!({
            "hook": "train_start", "global_step": event.global_step, "steps": self.steps, "resumed": resumed,
            "values": groups[0].values, "owners": groups[0].owners,
        }))
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.steps += 1;
        if self.options.take_over > 0 && event.global_step == self.options.take_over {
            run.set_hyper_parameter(None, "weight_decay", 0.125)?;
        }
        if self.options.take_over > 0 && event.global_step == self.options.take_over + 3 {
            run.set_hyper_parameter(Some("all"), "learning_rate", 0.002)?;
        }
        let copy = TensorSet::Copy(COPY.to_owned());
        let mut average = Vec::new();
        for kept in owned(run, copy.clone())? {
            let kept = kept.view();
            let Ok(values) = kept.to_vec::<f32>() else { continue };
            let set = [TensorSet::Parameters, TensorSet::Buffers]
                .into_iter()
                .find(|set| run.tensor(set.clone(), kept.name()).is_ok())
                .unwrap_or(TensorSet::Parameters);
            let now = run.tensor(set, kept.name())?.to_vec::<f32>()?;
            let mean: Vec<f32> = values.iter().zip(&now).map(|(kept, now)| 0.75 * kept + 0.25 * now).collect();
            average.push(Tensor::new(kept.name(), kept.shape(), &mean)?);
        }
        run.write(copy, &views(&average))
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let loss = run.measure("val", &["loss"], Some(COPY))?["loss"];
        run.put_metric("average_loss", loss)?;
        run.put_metric("keeper_steps", self.steps as f64)?;
        run.put_array("keeper", &[2], &[event.epoch as f32, loss as f32])?;
        let arrays = run.history_arrays("keeper")?;
        run.put_metric("keeper_arrays", arrays.len() as f64)?;
        run.put_metric("keeper_owned", run.hyper_parameters()?[0].owners.len() as f64)
    }

    fn on_checkpoint(&mut self, _: &mut Run<'_>, event: &Checkpoint<'_>) -> Result<()> {
        self.journal.line(json!({ "hook": "checkpoint", "global_step": event.global_step }))
    }
}
