//! `writer`: writes what may be written and checks that it took effect, and checks that other writes are refused.
//!
//! It expects SGD without momentum and weight decay, under which a gradient of zero changes nothing.

use plugin_api::event::At;
use plugin_api::protocol::{Control, CopyAction, Tap, TapOf, TapReduce, TensorSet};
use plugin_api::{Callback, Creation, EventKind, Need, Result, Run, Tensor, plugin};
use serde_json::json;

use crate::journal::Journal;
use crate::tensors::{cross_entropy, fingerprint, mapped, owned, views};

#[plugin]
#[derive(Default)]
pub struct Options {
    /// The journal.
    path: String,
}

pub struct Writer {
    journal: Journal,
    /// Of the parameters, at `step_start`.
    before: String,
    batch: Vec<Tensor>,
}

/// The node and the parameter that are tapped.
const NODE: &str = "fc2";
const PARAMETER: &str = "fc2.weight";

#[plugin]
impl Callback for Writer {
    const KIND: &'static str = "writer";
    const SUMMARY: &'static str = "Writes tensors and reads them back";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[
        Need::WRITES_WEIGHTS,
        Need::WRITES_GRADIENTS,
        Need::WRITES_BATCH,
        Need::outputs(EventKind::STEP_END),
        Need::taps(EventKind::STEP_END),
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { journal: Journal::open(&options.path)?, before: String::new(), batch: Vec::new() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        for (name, reduce) in [
            ("whole", TapReduce::Whole),
            ("mean", TapReduce::Mean),
            ("norm", TapReduce::Norm),
            ("min-max", TapReduce::MinMax),
            ("histogram", TapReduce::Histogram),
            ("non-finite", TapReduce::NonFinite),
        ] {
            let (name, node) = (name.to_owned(), NODE.to_owned());
            run.tap(&Tap { name, node, of: TapOf::Activation, reduce })?;
        }
        let nowhere = Tap { name: "no".into(), node: "fc22".into(), of: TapOf::Activation, reduce: TapReduce::Mean };
        self.journal.refused("tap of no node", run.tap(&nowhere))?;
        let (name, node) = ("gradient".to_owned(), PARAMETER.to_owned());
        run.tap(&Tap { name, node, of: TapOf::Gradient, reduce: TapReduce::Norm })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let journal = &self.journal;
        for set in [TensorSet::Parameters, TensorSet::Buffers] {
            let pointers = |run: &Run<'_>| -> Result<Vec<usize>> {
                Ok(run.tensors(set.clone())?.iter().map(|view| view.table().tensor.data as usize).collect())
            };
            let (first, second) = (pointers(run)?, pointers(run)?);
            journal.check(&format!("{set} are lent, not copied"), first == second, json!(first.len()))?;
        }

        let before = owned(run, TensorSet::Parameters)?;
        let doubled = mapped(&before, |value| value * 2.0)?;
        run.write(TensorSet::Parameters, &views(&doubled))?;
        journal.check("parameters are what was written", owned(run, TensorSet::Parameters)? == doubled, json!(null))?;
        run.write(TensorSet::Parameters, &views(&before))?;

        // All or nothing: the first fits, the second does not.
        let misfit = vec![doubled[0].clone(), Tensor::new(before[1].name(), &[1, 1], &[0_f32])?];
        journal.refused("another shape is refused", run.write(TensorSet::Parameters, &views(&misfit)))?;
        journal.check("nothing of a refused write", owned(run, TensorSet::Parameters)? == before, json!(null))?;

        run.copy_weights("twice", CopyAction::Take)?;
        let copy = TensorSet::Copy("twice".to_owned());
        let weights = mapped(&owned(run, copy.clone())?, |value| value * 2.0)?;
        run.write(copy.clone(), &views(&weights))?;
        journal.check("a copy is what was written", owned(run, copy)? == weights, json!(null))?;
        journal.check("a copy is apart", owned(run, TensorSet::Parameters)? == before, json!(null))?;
        run.copy_weights("twice", CopyAction::Restore)?;
        journal.check("a copy is put in place", owned(run, TensorSet::Parameters)? == doubled, json!(null))?;
        run.write(TensorSet::Parameters, &views(&before))?;
        run.copy_weights("twice", CopyAction::Drop)?;
        journal.refused("a copy that is gone", run.copy_weights("twice", CopyAction::Restore))
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.before = fingerprint(run, TensorSet::Parameters)?;
        if event.global_step != 1 {
            return Ok(());
        }
        // All targets are changed to 3, all inputs to their halves.
        let batch = owned(run, TensorSet::Batch)?;
        let targets = vec![3_i64; batch[1].view().len()];
        let changed = vec![
            mapped(&batch[..1], |value| value / 2.0)?.remove(0),
            Tensor::new("targets", batch[1].view().shape(), &targets)?,
        ];
        run.write(TensorSet::Batch, &views(&changed))?;
        self.batch = changed;
        let parameters = owned(run, TensorSet::Parameters)?;
        self.journal.refused("weights in step_start", run.write(TensorSet::Parameters, &views(&parameters)))?;
        self.journal.refused("gradients in step_start", run.tensors(TensorSet::Gradients).map(drop))?;
        self.journal.refused("skip_update in step_start", run.skip_update("not here"))
    }

    fn on_gradients(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let journal = &self.journal;
        match event.global_step {
            1 => {
                let batch = owned(run, TensorSet::Batch)?;
                journal.check("the step has the batch that was written", batch == self.batch, json!(null))?;
                journal.refused("batch in gradients", run.write(TensorSet::Batch, &views(&batch)))?;
            }
            2 => {
                let zeros = mapped(&owned(run, TensorSet::Gradients)?, |_| 0.0)?;
                run.write(TensorSet::Gradients, &views(&zeros))?;
            }
            3 => run.skip_update("to see that it is")?,
            _ => {}
        }
        Ok(())
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let journal = &self.journal;
        let step = event.global_step;
        let unchanged = fingerprint(run, TensorSet::Parameters)? == self.before;
        let name = match step {
            2 => "no update by gradients of zero",
            3 => "no update where it is skipped",
            4 => "an update where nothing is written",
            _ => "",
        };
        if !name.is_empty() {
            journal.check(name, unchanged == (step < 4), json!(null))?;
        }
        if step != 1 {
            return Ok(());
        }
        let (outputs, batch) = (run.tensor(TensorSet::Outputs, "outputs")?, run.tensors(TensorSet::Batch)?);
        journal.near("the loss is the outputs' cross-entropy", run.loss()?, cross_entropy(&outputs, &batch[1])?)?;
        let gradients = run.tensor(TensorSet::Gradients, PARAMETER)?.to_vec::<f32>()?;
        let tap = |name: &str| run.tensor(TensorSet::Taps, name);
        let whole = tap("whole")?.to_vec::<f32>()?;
        journal.check("a whole tap is the value", whole == outputs.to_vec::<f32>()?, json!(whole.len()))?;
        let (sum, squares) = sums(&whole);
        journal.near("tap mean", tap("mean")?.scalar()?, sum / whole.len() as f64)?;
        journal.near("tap norm", tap("norm")?.scalar()?, squares.sqrt())?;
        let least = whole.iter().copied().fold(f32::INFINITY, f32::min);
        let greatest = whole.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let bounds = tap("min-max")?.to_vec::<f32>()?;
        journal.check("tap min-max", bounds == [least, greatest], json!(bounds))?;
        let counts = tap("histogram")?.to_vec::<f32>()?;
        let mut expected = vec![0.0_f32; 64];
        for value in &whole {
            let bin = ((value - least) / (greatest - least) * 64.0) as usize;
            expected[bin.min(63)] += 1.0;
        }
        // A value on a border may count on either side.
        let moved: f32 = counts.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).sum();
        let fits = counts.len() == 64 && counts.iter().sum::<f32>() == whole.len() as f32 && moved <= 4.0;
        journal.check("tap histogram", fits, json!(moved))?;
        journal.near("tap non-finite", tap("non-finite")?.scalar()?, 0.0)?;
        journal.near("tap of a gradient", tap("gradient")?.scalar()?, sums(&gradients).1.sqrt())?;
        let copy = run.to_host(&outputs)?.to_vec::<f32>()?;
        journal.check("to_host is the same", copy == whole, json!(null))?;
        journal.refused("outputs are not written", run.write(TensorSet::Outputs, &[]))?;
        // The step is over: weights may be written.
        let parameters = owned(run, TensorSet::Parameters)?;
        run.write(TensorSet::Parameters, &views(&parameters))
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.journal.refused("gradients in epoch_end", run.tensors(TensorSet::Gradients).map(drop))?;
        self.journal.refused("batch in epoch_end", run.tensors(TensorSet::Batch).map(drop))?;
        self.journal.refused("loss in epoch_end", run.loss())?;
        self.journal.refused("record in epoch_end", run.current_record())?;
        self.journal.refused("write_checkpoint in epoch_end", run.write_checkpoint("elsewhere"))?;
        let tap = Tap { name: "late".into(), node: NODE.into(), of: TapOf::Activation, reduce: TapReduce::Mean };
        self.journal.refused("tap in epoch_end", run.tap(&tap))?;
        run.request(Control::Stop, "all is written")
    }
}

/// Sum and sum of squares.
fn sums(values: &[f32]) -> (f64, f64) {
    values.iter().fold((0.0, 0.0), |(sum, squares), &value| {
        let value = f64::from(value);
        (sum + value, squares + value * value)
    })
}
