//! The comparison.

use std::path::Path;

use export::difference;
use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, Run, Tensor, TensorView};

use crate::runtime::{Format, Inputs, Request, Runtime};

/// Samples of the run's data, and what the model makes of them.
#[derive(Clone, Debug)]
pub struct Samples {
    /// As the model takes them, with the batch in front.
    pub inputs: Tensor,
    /// As the data has them.
    pub targets: Tensor,
}

/// What the model gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// With the batch in front.
    pub shape: Vec<i64>,
    /// In row-major order.
    pub values: Vec<f32>,
}

/// A value of the model, and what it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The node that gives it.
    pub node: String,
    /// What the node does.
    pub operator: String,
    /// What the file calls it.
    pub value: String,
    /// The dimensions in the file's order, the batch in front: for each, that of the model's value.
    pub dims: Vec<usize>,
}

/// A file that is to be compared with the model.
pub struct Verification<'a> {
    /// What kind of file it is.
    pub format: Format,
    /// Where it lies.
    pub path: &'a Path,
    /// The shape of a sample of its input.
    pub sample_shape: Vec<i64>,
    /// What the file takes for what the model takes.
    pub given: &'a dyn Fn(&Tensor) -> Result<Inputs>,
    /// What the file should give where the model gives this.
    pub expected: &'a dyn Fn(&Value) -> Vec<f32>,
    /// Values on the way, in the order in which they are computed.
    pub points: &'a [Point],
    /// How far the outputs may be from the model's: `max |a - b| / max(1, max |b|)`.
    pub tolerance: f64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The file gives what the model gives, but for this.
    Verified(f64),
    /// The runtime does not run it, for this reason.
    Unverified(String),
}

impl Samples {
    /// Up to `rows` samples of a batch of the split that the run is judged by: `val`, where there is one.
    ///
    /// # Errors
    ///
    /// The split has fewer batches.
    pub fn read(run: &Run<'_>, info: &RunInfo, index: u64, rows: usize) -> Result<Samples> {
        let split = if info.data.splits.contains_key("val") { "val" } else { "train" };
        let [inputs, targets] = run.batch(split, index)?;
        Ok(Samples { inputs: first(&inputs, rows)?, targets: first(&targets, rows)? })
    }

    /// How many.
    pub fn rows(&self) -> usize {
        self.inputs.view().shape().first().map_or(0, |rows| *rows as usize)
    }
}

/// Runs a file and compares; what it cannot be blamed for is a verdict, what it can is an error.
impl Verification<'_> {
    /// Runs the file on `samples`, and compares with what the model predicts.
    ///
    /// # Errors
    ///
    /// The outputs are further away than the tolerance, with the first node from which they are; or the host does not
    /// predict.
    pub fn run(&self, run: &mut Run<'_>, samples: &Samples) -> Result<Verdict> {
        let inputs = (self.given)(&samples.inputs)?;
        let predicted = predict(run, &samples.inputs, &[])?;
        let Some(outputs) = predicted.first() else { return Err(Error::new("the host predicts nothing")) };
        let expected = (self.expected)(outputs);
        let found = match self.outputs(&inputs, samples.rows(), &[]) {
            Ok((_, found)) => found,
            Err(reason) => return Ok(Verdict::Unverified(reason)),
        };
        let found = found.into_iter().next().unwrap_or_default();
        let Some(difference) = difference(&found, &expected) else {
            let (found, expected) = (found.len(), expected.len());
            return Err(Error::new(format!("the file gives {found} numbers where the model gives {expected}")));
        };
        if difference.is_within(self.tolerance) {
            return Ok(Verdict::Verified(difference.relative));
        }
        let first = self.first_difference(run, samples, &inputs)?;
        Err(Error::new(format!(
            "`{}` does not do what the model does: its outputs are off by {:.2e} (tolerance {:.0e}){first}",
            self.path.display(),
            difference.relative,
            self.tolerance,
        )))
    }

    /// The values that are asked for, with their names; the file's output where none is.
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

    /// Where the values begin to differ, as the end of a sentence.
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

/// The first `rows` of a batch, copied.
fn first(batch: &TensorView<'_>, rows: usize) -> Result<Tensor> {
    let mut shape = batch.shape().to_vec();
    let Some(length) = shape.first_mut().filter(|length| **length > rows as i64) else { return batch.to_owned() };
    *length = rows as i64;
    let count = shape.iter().product::<i64>() as usize;
    match batch.as_slice::<i64>() {
        Ok(values) => Tensor::new(batch.name(), &shape, values.get(..count).unwrap_or(values)),
        Err(_) => {
            let values = batch.to_vec::<f32>()?;
            Tensor::new(batch.name(), &shape, values.get(..count).unwrap_or(&values))
        }
    }
}

/// What the model gives for `inputs`: its outputs, then the values of `nodes`.
///
/// # Errors
///
/// There is no such node, or the callback is in the background, where the model is not at hand.
pub fn predict(run: &mut Run<'_>, inputs: &Tensor, nodes: &[&str]) -> Result<Vec<Value>> {
    let views = run.predict(&inputs.view(), nodes)?;
    views.iter().map(|view| Ok(Value { shape: view.shape().to_vec(), values: view.to_vec::<f32>()? })).collect()
}
