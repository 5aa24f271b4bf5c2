//! Samples of the run's data, and the model's outputs for them.

use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, Run, Tensor, TensorView};

/// The split that is trained on.
pub const TRAIN: &str = "train";

/// Samples of a split.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The inputs of the model, each with the batch dimension first, under their names in a batch.
    pub inputs: Vec<Tensor>,
    /// The targets in the data.
    pub targets: Tensor,
}

/// An output of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// With the batch dimension first.
    pub shape: Vec<i64>,
    /// In row-major order.
    pub values: Vec<f32>,
}

impl Samples {
    /// The split that evaluates the run: `val`, if it exists.
    pub fn evaluating(info: &RunInfo) -> &'static str {
        if info.data.splits.contains_key("val") { "val" } else { TRAIN }
    }

    /// Up to `rows` samples of a batch of a split.
    ///
    /// # Errors
    ///
    /// When the split has fewer batches.
    pub fn read(run: &Run<'_>, split: &str, index: u64, rows: usize) -> Result<Samples> {
        let batch = run.whole_batch(split, index)?;
        let [samples, targets, others @ ..] = &batch[..] else { return Err(Error::new("the host gave no batch")) };
        let inputs = std::iter::once(samples).chain(others).map(|input| first(input, rows));
        Ok(Samples { inputs: inputs.collect::<Result<_>>()?, targets: first(targets, rows)? })
    }

    /// The number of samples.
    pub fn rows(&self) -> usize {
        self.targets.view().shape().first().map_or(0, |rows| *rows as usize)
    }
}

/// The first `rows` of a batch, copied.
fn first(batch: &TensorView<'_>, rows: usize) -> Result<Tensor> {
    let mut shape = batch.shape().to_vec();
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let Some(length) = shape.first_mut().filter(|length| **length > rows) else { return batch.to_owned() };
    *length = rows;
    let count = shape.iter().product::<i64>() as usize;
    match batch.as_slice::<i64>() {
        Ok(values) => Tensor::new(batch.name(), &shape, values.get(..count).unwrap_or(values)),
        Err(_) => {
            let values = batch.to_vec::<f32>()?;
            Tensor::new(batch.name(), &shape, values.get(..count).unwrap_or(&values))
        }
    }
}

/// The model's results for `inputs`: its outputs, then the values of `nodes`.
///
/// # Errors
///
/// When there is no such node, or the callback is in the background, where the model is not available.
pub fn predict(run: &mut Run<'_>, inputs: &[Tensor], nodes: &[&str]) -> Result<Vec<Value>> {
    let given: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let views = match &given[..] {
        [samples] => run.predict(samples, nodes)?,
        several => run.predict_inputs(several, nodes)?,
    };
    views.iter().map(|view| Ok(Value { shape: view.shape().to_vec(), values: view.to_vec::<f32>()? })).collect()
}
