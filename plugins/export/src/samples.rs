//! Samples of the run's data, and what the model makes of them.

use plugin_api::protocol::RunInfo;
use plugin_api::{Result, Run, Tensor, TensorView};

/// Samples of the split that the run is judged by.
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

/// What the model gives for `inputs`: its outputs, then the values of `nodes`.
///
/// # Errors
///
/// There is no such node, or the callback is in the background, where the model is not at hand.
pub fn predict(run: &mut Run<'_>, inputs: &Tensor, nodes: &[&str]) -> Result<Vec<Value>> {
    let views = run.predict(&inputs.view(), nodes)?;
    views.iter().map(|view| Ok(Value { shape: view.shape().to_vec(), values: view.to_vec::<f32>()? })).collect()
}
