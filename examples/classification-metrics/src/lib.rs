//! `class-counts`: counts in each evaluation how often each class was predicted as each, from the outputs and targets of its
//! batches, and puts the counts as an array, the share of correct ones as a metric, and a table of the classes for the
//! monitors. A metric that the host does not have is made in the same way.

mod counts;

use plugin_api::event::Evaluation;
use plugin_api::protocol::{RecordValue, TensorSet};
use plugin_api::{Callback, Creation, EventKind, Kind, Need, NoOptions, Result, Run, plugin};

use counts::Counts;

/// The counts of the evaluation in progress. An evaluation is never interrupted by a checkpoint, so there is no state.
struct ClassCounts {
    counts: Counts,
}

#[plugin]
impl Callback for ClassCounts {
    const KIND: &'static str = "class-counts";
    const SUMMARY: &'static str = "Counts how often each class was predicted as each";
    const BY_DEFAULT: bool = false;
    // What hooks in the background get copies of.
    const NEEDS: &'static [Need] = &[Need::outputs(EventKind::EVAL_STEP_END), Need::batch(EventKind::EVAL_STEP_END)];
    // `*` stands for the split: other callbacks and the run's conditions may name `val_counted_accuracy`.
    const PRODUCES: &'static [&'static str] = &["*_counted_accuracy"];
    type Options = NoOptions;

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { counts: Counts::default() })
    }

    fn on_eval_start(&mut self, _: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        self.counts = Counts::default();
        Ok(())
    }

    fn on_eval_step_end(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        // Borrowed: copied only from an accelerator.
        let outputs = run.to_host(&run.tensor(TensorSet::Outputs, "outputs")?)?;
        let targets = run.to_host(&run.tensor(TensorSet::Batch, "targets")?)?;
        self.counts.add(&outputs, &targets)
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        let Some(accuracy) = self.counts.accuracy() else { return Ok(()) };
        run.put_metric(&format!("{}_counted_accuracy", event.split), accuracy)?;
        let (shape, values) = self.counts.matrix();
        run.put_array(&format!("{}_counts", event.split), &shape, &values)?;
        let data = run.info()?.data;
        let (columns, rows) = self.counts.table(&data.target_names);
        run.put_record(&format!("{}_classes", event.split), RecordValue::Table { columns, rows })
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<ClassCounts>()];

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    /// One batch: the scores of two classes for each sample.
    fn evaluate(host: &mut FakeHost, batches: &[(&[f32], &[i64])]) {
        host.evaluation(EventKind::EVAL_START, "val", 0, batches.len() as u64).unwrap();
        for (batch, (outputs, targets)) in (1..).zip(batches) {
            let samples = targets.len() as i64;
            host.put_tensor(TensorSet::Outputs, Tensor::new("outputs", &[samples, 2], outputs).unwrap());
            host.put_tensor(TensorSet::Batch, Tensor::new("targets", &[samples], targets).unwrap());
            host.evaluation(EventKind::EVAL_STEP_END, "val", batch, batches.len() as u64).unwrap();
        }
        host.evaluation(EventKind::EVAL_END, "val", 0, batches.len() as u64).unwrap();
    }

    #[test]
    fn counts_of_all_batches_and_of_this_evaluation_only() {
        let mut host = FakeHost::new::<ClassCounts>(json!({})).unwrap();
        evaluate(&mut host, &[(&[9.0, 1.0], &[0])]);
        assert_eq!(host.metric("val_counted_accuracy"), Some(1.0));
        // The second sample has two equal scores: the first class counts. The last one is wrong.
        evaluate(&mut host, &[(&[0.1, 0.9, 0.5, 0.5], &[1, 0]), (&[0.1, 0.9], &[0])]);
        assert_eq!(host.metric("val_counted_accuracy"), Some(2.0 / 3.0));
        let array = host.array("val_counts").unwrap();
        assert_eq!((&array.shape[..], &array.values[..]), (&[2, 2][..], &[1.0, 1.0, 0.0, 1.0][..]));
        let RecordValue::Table { columns, rows } = &host.records()[1].value else { panic!("a table") };
        assert_eq!(columns, &["class", "samples", "predictions", "precision", "recall"]);
        assert_eq!(rows, &[["0", "2", "1", "1.000", "0.500"], ["1", "1", "2", "0.500", "1.000"]]);
    }

    #[test]
    fn a_target_without_an_output_is_an_error() {
        let mut host = FakeHost::new::<ClassCounts>(json!({})).unwrap();
        host.put_tensor(TensorSet::Outputs, Tensor::new("outputs", &[1, 2], &[0.1f32, 0.9]).unwrap());
        host.put_tensor(TensorSet::Batch, Tensor::new("targets", &[1], &[2i64]).unwrap());
        let error = host.evaluation(EventKind::EVAL_STEP_END, "val", 1, 1).unwrap_err();
        assert_eq!(error.message(), "a target is class 2, but there are outputs of 2 classes");
    }
}
