//! The comparison.

use std::path::Path;

use export::{Samples, Value, difference, predict};
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

/// A file to compare with the model.
pub struct Verification<'a> {
    /// Its format.
    pub format: Format,
    /// Its path.
    pub path: &'a Path,
    /// The shape of a sample of its input.
    pub sample_shape: Vec<i64>,
    /// The input of the file for an input of the model.
    pub given: &'a dyn Fn(&Tensor) -> Result<Inputs>,
    /// The expected output of the file for an output of the model.
    pub expected: &'a dyn Fn(&Value) -> Vec<f32>,
    /// Intermediate values, in the order of computation.
    pub points: &'a [Point],
    /// The largest allowed difference between the outputs and the model's: `max |a - b| / max(1, max |b|)`.
    pub tolerance: f64,
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
    /// When the outputs differ by more than the tolerance; names the first node that does.
    pub fn run(&self, run: &mut Run<'_>, info: &RunInfo, rows: usize) -> Result<Verdict> {
        let samples = match Samples::read(run, info, 0, rows) {
            Ok(samples) => samples,
            Err(error) => return Ok(Verdict::Unverified(format!("there are no samples: {error}"))),
        };
        let inputs = (self.given)(&samples.inputs)?;
        let predicted = match predict(run, &samples.inputs, &[]) {
            Ok(predicted) => predicted,
            Err(error) => return Ok(Verdict::Unverified(format!("the host cannot predict: {error}"))),
        };
        let Some(outputs) = predicted.first() else { return Err(Error::new("the host returned no predictions")) };
        let expected = (self.expected)(outputs);
        let found = match self.outputs(&inputs, samples.rows(), &[]) {
            Ok((_, found)) => found,
            Err(reason) => return Ok(Verdict::Unverified(format!("the runtime cannot run {reason}"))),
        };
        let found = found.into_iter().next().unwrap_or_default();
        let Some(difference) = difference(&found, &expected) else {
            let (found, expected) = (found.len(), expected.len());
            return Err(Error::new(format!("the file returns {found} numbers, but the model returns {expected}")));
        };
        if difference.is_within(self.tolerance) {
            return Ok(Verdict::Verified(difference.relative));
        }
        let first = self.first_difference(run, &samples, &inputs)?;
        Err(Error::new(format!(
            "`{}` differs from the model: its outputs are off by {:.2e} (tolerance {:.0e}){first}",
            self.path.display(),
            difference.relative,
            self.tolerance,
        )))
    }

    /// Puts two metrics: how many of the samples are classified correctly, by the model and by the file. Puts none if
    /// there are no classes, or the runtime cannot run the file.
    ///
    /// # Errors
    ///
    /// When the host cannot predict.
    pub fn report_accuracy(&self, run: &mut Run<'_>, info: &RunInfo, batches: u64) -> Result<()> {
        if info.data.classes < 2 {
            return Ok(());
        }
        let [mut rows, mut before, mut after] = [0usize; 3];
        for index in 0..batches {
            let Ok(samples) = Samples::read(run, info, index, usize::MAX) else { break };
            let Ok(targets) = samples.targets.view().as_slice::<i64>().map(<[i64]>::to_vec) else { return Ok(()) };
            let inputs = (self.given)(&samples.inputs)?;
            let predicted = predict(run, &samples.inputs, &[])?.into_iter().next();
            let expected = predicted.map(|outputs| (self.expected)(&outputs)).unwrap_or_default();
            let Ok((_, found)) = self.outputs(&inputs, samples.rows(), &[]) else { return Ok(()) };
            rows += targets.len();
            before += right(&expected, &targets);
            after += found.first().map_or(0, |found| right(found, &targets));
        }
        let name = &info.instance;
        run.put_metric(&format!("{name}_accuracy_before"), before as f64 / rows.max(1) as f64)?;
        run.put_metric(&format!("{name}_accuracy_after"), after as f64 / rows.max(1) as f64)
    }

    /// The requested values, with their names; the file's output if there are none.
    fn outputs(
        &self,
        inputs: &Inputs,
        rows: usize,
        values: &[String],
    ) -> std::result::Result<(Vec<String>, Vec<Vec<f32>>), String> {
        let request = Request {
            path: self.path,
            sample_shape: &self.sample_shape,
            takes_indices: matches!(inputs, Inputs::I64(_)),
            rows,
            values,
        };
        let runtime = Runtime::load(self.format, &request).map_err(|unsupported| unsupported.reason)?;
        let outputs = runtime.run(inputs).map_err(|unsupported| unsupported.reason)?;
        Ok((runtime.names().to_vec(), outputs))
    }

    /// Where the values start to differ, as the end of a sentence.
    fn first_difference(&self, run: &mut Run<'_>, samples: &Samples, inputs: &Inputs) -> Result<String> {
        let nodes: Vec<&str> = self.points.iter().map(|point| point.node.as_str()).collect();
        let predicted = predict(run, &samples.inputs, &nodes)?;
        let asked: Vec<String> = self.points.iter().map(|point| point.value.clone()).collect();
        let Ok((names, found)) = self.outputs(inputs, samples.rows(), &asked) else { return Ok(String::new()) };
        for (point, value) in self.points.iter().zip(predicted.iter().skip(1)) {
            let Some(found) = names.iter().position(|name| *name == point.value).and_then(|place| found.get(place))
            else {
                continue;
            };
            let expected = crate::reordered(&value.values, &value.shape, &point.dims);
            if difference(found, &expected).is_none_or(|difference| !difference.is_within(self.tolerance)) {
                return Ok(format!("; the first node that differs is `{}` ({})", point.node, point.operator));
            }
        }
        Ok(String::new())
    }
}

/// How many rows of `outputs` predict the target class: by their largest value, or by their only value as an index.
fn right(outputs: &[f32], targets: &[i64]) -> usize {
    let width = (outputs.len() / targets.len().max(1)).max(1);
    let class = |row: &[f32]| match row {
        [class] => *class as i64,
        row => {
            row.iter().enumerate().fold(0, |best, (place, value)| if *value > row[best] { place } else { best }) as i64
        }
    };
    outputs.chunks_exact(width).zip(targets).filter(|(row, target)| class(row) == **target).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_right_by_their_largest_value_or_by_the_class_that_they_are() {
        assert_eq!(right(&[0.1, 0.9, 0.8, 0.2, 0.3, 0.7], &[1, 1, 1]), 2);
        assert_eq!(right(&[3.0, 1.0], &[3, 2]), 1);
        assert_eq!(right(&[], &[]), 0);
    }
}
