//! `observer`: writes fingerprints of what it sees after each step, if configured slower than the training. In
//! the background they must be those of the step, not those of the loop at that time.

use std::time::Duration;

use plugin_api::event::{At, Evaluation};
use plugin_api::protocol::{Control, CopyAction, TensorSet};
use plugin_api::{Callback, Creation, EventKind, Need, Result, Run, plugin};
use serde_json::json;

use crate::journal::Journal;
use crate::tensors::{cross_entropy, fingerprint, fingerprint_of};

#[plugin]
#[derive(Default)]
pub struct Options {
    /// The journal.
    path: String,
    /// Milliseconds that a hook sleeps before it looks.
    sleep_ms: u64,
    /// Calls what the background refuses.
    trespass: bool,
}

pub struct Observer {
    options: Options,
    journal: Journal,
}

#[plugin]
impl Callback for Observer {
    const KIND: &'static str = "observer";
    const SUMMARY: &'static str = "Writes fingerprints of what it sees";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[
        Need::parameters(EventKind::STEP_END),
        Need::buffers(EventKind::STEP_END),
        Need::optimizer(EventKind::STEP_END),
        Need::batch(EventKind::STEP_END),
        Need::outputs(EventKind::STEP_END),
        Need::parameters(EventKind::EVAL_END),
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { journal: Journal::open(&options.path)?, options })
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        std::thread::sleep(Duration::from_millis(self.options.sleep_ms));
        let (outputs, batch) = (run.tensor(TensorSet::Outputs, "outputs")?, run.tensors(TensorSet::Batch)?);
        let loss = run.loss()?;
        self.journal.near("loss", loss, cross_entropy(&outputs, &batch[1])?)?;
        // With the weights of the step, and with its statistics of batch norm.
        let predicted = fingerprint_of(&run.predict_split("val", 1, &[])?)?;
        self.journal.line(json!({
            "predicted": predicted,
            "first_batch": fingerprint_of(&run.batch("val", 0)?)?,
            "global_step": event.global_step,
            "parameters": fingerprint(run, TensorSet::Parameters)?,
            "buffers": fingerprint(run, TensorSet::Buffers)?,
            "optimizer": fingerprint(run, TensorSet::Optimizer)?,
            "loss": loss,
            "learning_rate": run.hyper_parameters()?[0].values["learning_rate"],
            "train_loss": run.metric("train_loss")?,
            "names": run.list(TensorSet::Parameters)?.len(),
        }))?;
        if self.options.trespass && event.global_step == 1 {
            self.trespass(run)?;
        }
        Ok(())
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.journal.line(json!({
            "eval_end": event.global_step, "split": event.split,
            "parameters": fingerprint(run, TensorSet::Parameters)?, "val_loss": run.metric("val_loss")?,
            "history": run.history("val_loss")?.len(),
        }))?;
        run.put_metric("observed", event.global_step as f64)
    }
}

impl Observer {
    fn trespass(&self, run: &mut Run<'_>) -> Result<()> {
        let journal = &self.journal;
        journal.refused("gradients", run.tensors(TensorSet::Gradients).map(drop))?;
        journal.refused("taps", run.list(TensorSet::Taps))?;
        journal.refused("copy", run.tensors(TensorSet::Copy("none".to_owned())).map(drop))?;
        journal.refused("tensor_write", run.write(TensorSet::Parameters, &[]))?;
        journal.refused("weights_copy", run.copy_weights("copy", CopyAction::Take))?;
        journal.refused("copy_training_state", run.copy_training_state("copy", CopyAction::Take))?;
        journal.refused("train_steps", run.train_steps(1))?;
        journal.refused("measure", run.measure("val", &[], None))?;
        journal.refused("recalibrate_batch_norm", run.recalibrate_batch_norm("val", 1))?;
        journal.refused("skip_update", run.request(Control::SkipUpdate, "too late"))?;
        journal.refused("write_checkpoint", run.write_checkpoint("elsewhere"))?;
        journal.refused("metric of no name", run.metric("train_los"))?;
        journal.refused("tensor of no name", run.tensor(TensorSet::Parameters, "fc2.wieght").map(drop))
    }
}
