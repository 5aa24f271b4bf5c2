//! The comparison.

use std::path::Path;

use export::{Ending, Normalization, Ranges, Samples, TRAIN, Value, predict};
use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, Run, Tensor};

use crate::runtime::{Format, Inputs, Request, Runtime};

/// A value of the model, and its counterpart in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The node that computes it.
    pub node: String,
    /// The node's operator.
    pub operator: String,
    /// Its name in the file.
    pub value: String,
    /// The dimensions in the file's order, the batch first: for each, that of the model's value.
    pub dims: Vec<usize>,
}

/// Lays the values of a tensor of this shape out as the file has them.
pub type Layout<'a> = dyn Fn(&[f32], &[i64]) -> Vec<f32> + 'a;

/// A file to compare with the model.
pub struct Verification<'a> {
    /// Its format.
    pub format: Format,
    /// Its path.
    pub path: &'a Path,
    /// The shape of a sample of each of its inputs, in the order of the model's.
    pub sample_shapes: Vec<Vec<i64>>,
    /// The normalization that the file includes.
    pub normalization: Option<&'a Normalization>,
    /// What the model's outputs are, and what the file adds after them.
    pub ending: Ending,
    /// The layout of the file's images, in which it differs from the model.
    pub layout: &'a Layout<'a>,
    /// Intermediate values, in the order of computation.
    pub points: &'a [Point],
    /// The largest allowed difference between the outputs and the model's: `max |a - b| / max(1, max |b|)`.
    pub tolerance: f64,
    /// Whether the model may return numbers that are NaN or infinite.
    pub allow_non_finite: bool,
}

/// The result.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The file's outputs match the model's, up to this difference.
    Verified(f64),
    /// It could not be run here, for this reason (a clause).
    Unverified(String),
}

/// Runs a file and compares it: limits of the runtime become a verdict, faults of the file an error.
impl Verification<'_> {
    /// Runs the file on up to `rows` samples of the run's data, and compares it with the model's predictions.
    ///
    /// # Errors
    ///
    /// When the outputs differ by more than the tolerance, with the first node that does; or when they are not finite.
    pub fn run(&self, run: &mut Run<'_>, info: &RunInfo, rows: usize) -> Result<Verdict> {
        let samples = match Samples::read(run, Samples::evaluating(info), 0, rows) {
            Ok(samples) => samples,
            Err(error) => return Ok(Verdict::Unverified(format!("there are no samples: {error}"))),
        };
        let (inputs, taken) = self.given(&samples.inputs)?;
        let predicted = match predict(run, &taken, &[]) {
            Ok(predicted) => predicted,
            Err(error) => return Ok(Verdict::Unverified(format!("the host cannot predict: {error}"))),
        };
        let Some(outputs) = predicted.first() else { return Err(Error::new("the host returned no predictions")) };
        if let Some(value) = outputs.values.iter().find(|value| !value.is_finite() && !self.allow_non_finite) {
            return Err(Error::new(format!(
                "the model returns `{value}` for a sample of the data; set `allow_non_finite = true` to export it anyway"
            )));
        }
        let found = match self.outputs(&inputs, samples.rows(), &[]) {
            Ok((_, found)) => found,
            Err(reason) => return Ok(Verdict::Unverified(format!("the runtime cannot run {reason}"))),
        };
        let found = found.into_iter().next().unwrap_or_default();
        let outputs = Value { shape: outputs.shape.clone(), values: (self.layout)(&outputs.values, &outputs.shape) };
        let Some(difference) = self.ending.difference(&found, &outputs) else {
            let (found, expected) = (found.len(), self.ending.apply(&outputs).len());
            return Err(Error::new(format!("the file returns {found} numbers, but the model returns {expected}")));
        };
        if difference.is_within(self.tolerance) {
            return Ok(Verdict::Verified(difference.relative));
        }
        let first = self.first_difference(run, &taken, &inputs)?;
        Err(Error::new(format!(
            "`{}` differs from the model: its outputs are off by {:.2e} (tolerance {:.0e}){first}",
            self.path.display(),
            difference.relative,
            self.tolerance,
        )))
    }

    /// Puts two metrics: the share of the samples that are classified correctly, by the model and by the file, over the
    /// whole split that evaluates the run. Puts none if there are no classes, or the runtime cannot run the file.
    ///
    /// # Errors
    ///
    /// When the host cannot predict.
    pub fn report_accuracy(&self, run: &mut Run<'_>, info: &RunInfo, ranges: &Ranges) -> Result<()> {
        let split = Samples::evaluating(info);
        // Without a validation split, some batches have been calibrated with.
        let is_seen = |index: u64| split == TRAIN && ranges.batches.contains(&index);
        let batches = if info.trial { 1 } else { u64::MAX };
        let [mut rows, mut before, mut after] = [0usize; 3];
        for index in (0..batches).filter(|index| !is_seen(*index)) {
            // The split has no more batches.
            let Ok(samples) = Samples::read(run, split, index, usize::MAX) else { break };
            let Ok(targets) = samples.targets.view().as_slice::<i64>().map(<[i64]>::to_vec) else { return Ok(()) };
            let (inputs, taken) = self.given(&samples.inputs)?;
            let Some(outputs) = predict(run, &taken, &[])?.into_iter().next() else { return Ok(()) };
            let Ok((_, found)) = self.outputs(&inputs, samples.rows(), &[]) else { return Ok(()) };
            let Some(found) = found.into_iter().next() else { return Ok(()) };
            let width = outputs.shape.last().map_or(1, |width| *width as usize);
            let model = self.ending.without_addition().classes(&outputs.values, width);
            let file = self.ending.classes(&found, width);
            let (Some(model), Some(file)) = (model, file) else { return Ok(()) };
            rows += targets.len();
            before += right(&model, &targets);
            after += right(&file, &targets);
        }
        if rows == 0 {
            return Ok(());
        }
        let name = &info.instance;
        run.put_metric(&format!("{name}_accuracy_before"), before as f64 / rows as f64)?;
        run.put_metric(&format!("{name}_accuracy_after"), after as f64 / rows as f64)
    }

    /// The inputs of the file for samples that the model takes, and what the model takes for these: the same up to the
    /// rounding of a normalization that the file includes.
    fn given(&self, inputs: &[Tensor]) -> Result<(Vec<Inputs>, Vec<Tensor>)> {
        let given = inputs.iter().enumerate().map(|(place, input)| {
            // The others have no normalization.
            self.given_one(input, self.normalization.filter(|_| place == 0))
        });
        Ok(given.collect::<Result<Vec<_>>>()?.into_iter().unzip())
    }

    fn given_one(&self, samples: &Tensor, normalization: Option<&Normalization>) -> Result<(Inputs, Tensor)> {
        let view = samples.view();
        if let Ok(indices) = view.as_slice::<i64>() {
            return Ok((Inputs::I64(indices.to_vec()), samples.clone()));
        }
        let (stored, taken) = match normalization {
            Some(normalization) => {
                let stored = normalization.undone(samples)?;
                let taken = normalization.applied(&stored)?;
                (stored, taken)
            }
            None => (samples.clone(), samples.clone()),
        };
        let view = stored.view();
        Ok((Inputs::F32((self.layout)(&view.to_vec::<f32>()?, view.shape())), taken))
    }

    /// The requested values, with their names; the file's output if there are none.
    fn outputs(
        &self,
        inputs: &[Inputs],
        rows: usize,
        values: &[String],
    ) -> std::result::Result<(Vec<String>, Vec<Vec<f32>>), String> {
        let request = Request { path: self.path, sample_shapes: &self.sample_shapes, inputs, rows, values };
        let runtime = Runtime::load(self.format, &request).map_err(|unsupported| unsupported.reason)?;
        let outputs = runtime.run(inputs).map_err(|unsupported| unsupported.reason)?;
        Ok((runtime.names().to_vec(), outputs))
    }

    /// Where the values start to differ, as the end of a sentence.
    fn first_difference(&self, run: &mut Run<'_>, taken: &[Tensor], inputs: &[Inputs]) -> Result<String> {
        let nodes: Vec<&str> = self.points.iter().map(|point| point.node.as_str()).collect();
        let predicted = predict(run, taken, &nodes)?;
        let rows = taken.first().and_then(|samples| samples.view().shape().first().copied()).unwrap_or(0) as usize;
        let asked: Vec<String> = self.points.iter().map(|point| point.value.clone()).collect();
        let Ok((names, found)) = self.outputs(inputs, rows, &asked) else { return Ok(String::new()) };
        for (point, value) in self.points.iter().zip(predicted.iter().skip(1)) {
            let Some(found) = names.iter().position(|name| *name == point.value).and_then(|place| found.get(place))
            else {
                continue;
            };
            let expected = crate::reordered(&value.values, &value.shape, &point.dims);
            if export::difference(found, &expected).is_none_or(|difference| !difference.is_within(self.tolerance)) {
                return Ok(format!("; the first node that differs is `{}` ({})", point.node, point.operator));
            }
        }
        Ok(String::new())
    }
}

/// How many classes are those of the targets.
fn right(classes: &[i64], targets: &[i64]) -> usize {
    classes.iter().zip(targets).filter(|(class, target)| class == target).count()
}
