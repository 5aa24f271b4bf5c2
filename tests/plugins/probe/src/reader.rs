//! `reader`: reads and computes all that changes nothing, and compares it with known figures. A run with it
//! must equal the run without it.

use plugin_api::event::{At, Evaluation};
use plugin_api::protocol::{CopyAction, TensorSet};
use plugin_api::{Callback, Creation, Need, Result, Run, plugin};
use serde_json::json;

use crate::journal::Journal;
use crate::tensors::{accuracy, cross_entropy, fingerprint, mapped, owned, views};

#[plugin]
#[derive(Default)]
pub struct Options {
    /// The journal.
    path: String,
    /// Changes the whole training state at the start, and restores it.
    snapshot: bool,
}

pub struct Reader {
    options: Options,
    journal: Journal,
}

#[plugin]
impl Callback for Reader {
    const KIND: &'static str = "reader";
    const SUMMARY: &'static str = "Reads and computes, and leaves the run as it was";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[Need::WRITES_WEIGHTS];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { journal: Journal::open(&options.path)?, options })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if !self.options.snapshot {
            return Ok(());
        }
        let state = |run: &Run<'_>| -> Result<Vec<String>> {
            [TensorSet::Parameters, TensorSet::Buffers, TensorSet::Optimizer]
                .into_iter()
                .map(|set| fingerprint(run, set))
                .collect()
        };
        let before = state(run)?;
        run.copy_training_state("before", CopyAction::Take)?;
        let losses = run.train_steps(3)?;
        let trained = state(run)?;
        let differ = before.iter().zip(&trained).all(|(before, after)| before != after);
        self.journal.check("train_steps trains", differ && losses.len() == 3, json!(losses))?;
        run.copy_training_state("before", CopyAction::Restore)?;
        self.journal.check("the state is put back", state(run)? == before, json!(null))?;
        // The generator is restored too: dropout draws the same again.
        let again = run.train_steps(3)?;
        self.journal.check(
            "the same steps again are the same",
            again == losses && state(run)? == trained,
            json!(again),
        )?;
        run.recalibrate_batch_norm("train", 2)?;
        let weights = mapped(&owned(run, TensorSet::Parameters)?, |_| 0.0)?;
        run.write(TensorSet::Parameters, &views(&weights))?;
        run.copy_training_state("before", CopyAction::Restore)?;
        self.journal.check("the state is put back twice", state(run)? == before, json!(null))?;
        run.copy_training_state("before", CopyAction::Drop)
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if event.global_step.is_multiple_of(7) {
            self.compute(run)?;
        }
        Ok(())
    }

    fn on_eval_step_start(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        self.compute(run)
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let journal = &self.journal;
        let measured = run.measure("val", &["loss", "accuracy"], None)?;
        let (loss, right) = (run.metric("val_loss")?, run.metric("val_accuracy")?);
        let same = measured["loss"] == loss && measured["accuracy"] == right;
        journal.check("measure is the evaluation", same, json!([measured["loss"], loss]))?;
        let series = run.history("val_loss")?;
        let last = series.last().map(|point| (point.epoch, point.global_step, point.value));
        let expected = (event.epoch, event.global_step, loss);
        journal.check("history has it", last == Some(expected) && series.len() as u64 == event.epoch, json!(last))?;

        let node = run.graph()?.output;
        let predicted = run.predict_split("val", 1000, &[&node])?;
        journal.near("predictions of a split: loss", cross_entropy(&predicted[0], &predicted[1])?, loss)?;
        journal.near("predictions of a split: accuracy", accuracy(&predicted[0], &predicted[1])?, right)?;
        let same = predicted[0].to_vec::<f32>()? == predicted[2].to_vec::<f32>()? && predicted[2].name() == node;
        journal.check("a named node", same, json!(node))?;
        // A batch of the split as inputs gives the first rows of the same.
        let split = predicted[0].to_vec::<f32>()?;
        let inputs = run.batch("val", 0)?[0].to_owned()?;
        let outputs = run.predict(&inputs.view(), &[])?;
        let rows = outputs[0].to_vec::<f32>()?;
        let distance = rows.iter().zip(&split).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
        journal.check(
            "predictions of inputs",
            distance < 1e-4 && rows.len() == inputs.view().shape()[0] as usize * 10,
            json!(distance),
        )?;

        // A named copy is measured in place of the weights, which are then restored.
        let before = fingerprint(run, TensorSet::Parameters)?;
        run.copy_weights("reader", CopyAction::Take)?;
        let same = run.measure("val", &["loss"], Some("reader"))?["loss"] == loss;
        journal.check("a copy measures as the weights", same, json!(null))?;
        let copy = TensorSet::Copy("reader".to_owned());
        let zeros = mapped(&owned(run, copy.clone())?, |_| 0.0)?;
        run.write(copy, &views(&zeros))?;
        let loss = run.measure("val", &["loss"], Some("reader"))?["loss"];
        journal.near("a copy of zeros guesses: its loss is ln 10", loss, f64::ln(10.0))?;
        run.copy_weights("reader", CopyAction::Drop)?;
        let after = fingerprint(run, TensorSet::Parameters)?;
        journal.check("the weights are back", before == after, json!(null))
    }
}

impl Reader {
    /// What draws from no generator and moves no buffer.
    fn compute(&self, run: &mut Run<'_>) -> Result<()> {
        run.predict_split("val", 1, &[])?;
        run.measure("train", &[], None)?;
        run.batch("train", 1)?;
        run.tensors(TensorSet::Optimizer)?;
        run.graph()?;
        run.metrics().map(drop)
    }
}
