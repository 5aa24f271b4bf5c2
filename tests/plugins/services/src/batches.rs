//! Writes down what batches and predictions have, of a model that may take several inputs.

use plugin_api::event::{At, Evaluation};
use plugin_api::protocol::TensorSet;
use plugin_api::{Callback, Creation, EventKind, Need, Result, Run, Tensor, TensorView, plugin};

use crate::journal::Journal;
use crate::shapes;

/// Where to.
#[plugin]
#[derive(Default)]
pub(crate) struct Options {
    /// The file to append to; empty: none.
    path: String,
}

pub(crate) struct Batches {
    journal: Journal,
    seen: bool,
}

#[plugin]
impl Callback for Batches {
    const KIND: &'static str = "batches";
    const SUMMARY: &'static str = "Writes down what batches and predictions have";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[Need::batch(EventKind::STEP_START)];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { journal: Journal::open(&options.path)?, seen: false })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let journal = self.journal.at("train_start");
        journal.note("batch", run.batch("val", 0).map(|batch| shapes(&batch)))?;
        journal.note("whole batch", run.whole_batch("val", 0).map(|batch| shapes(&batch)))?;
        let batch = run.whole_batch("val", 0)?;
        let batch: Vec<Tensor> = batch.iter().map(TensorView::to_owned).collect::<Result<_>>()?;
        let inputs: Vec<TensorView<'_>> =
            batch.iter().map(Tensor::view).filter(|tensor| tensor.name() != "targets").collect();
        let split = run.predict_split("val", 1, &[])?[0].to_vec::<f32>()?;
        let named = run.predict_inputs(&inputs, &[]).and_then(|outputs| outputs[0].to_vec::<f32>());
        // The batches of another size sum in another order.
        let is_near = |(one, other): (&f32, &f32)| (one - other).abs() < 1e-5;
        let agree = named.map(|outputs| !outputs.is_empty() && outputs.iter().zip(&split).all(is_near));
        journal.note("predictions are those of the split", agree)?;
        journal.note("predict one", run.predict(&inputs[0], &[]).map(|outputs| shapes(&outputs)))?;
        let twice = [inputs[0], inputs[0]];
        journal.note("predict one twice", run.predict_inputs(&twice, &[]).map(|outputs| shapes(&outputs)))?;
        Ok(())
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if !std::mem::replace(&mut self.seen, true) {
            let batch = run.tensors(TensorSet::Batch).map(|batch| shapes(&batch));
            self.journal.at("step_start").note("batch", batch)?;
        }
        Ok(())
    }

    fn on_eval_step_end(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        let batch = run.tensors(TensorSet::Batch).map(|batch| shapes(&batch));
        self.journal.at("eval_step_end").note("batch", batch)?;
        Ok(())
    }
}
