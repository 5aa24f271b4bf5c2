//! Compares the file with the model, before it is published.

use std::path::Path;

use export::Value;
use plugin_api::graph::Graph;
use plugin_api::protocol::{DataInfo, RunInfo};
use plugin_api::{Error, Result, Run, Tensor};
use verify::{Inputs, Point, Verdict, Verification};

use crate::Onnx;
use crate::options::{Include, Quantize};

/// The number of samples to compare.
const ROWS: usize = 16;

impl Onnx {
    /// Runs the file at `path` on samples of the run's data.
    pub(crate) fn verify(&self, run: &mut Run<'_>, info: &RunInfo, path: &Path, points: &[Point]) -> Result<Verdict> {
        let graph = self.graph.as_ref().ok_or_else(|| Error::new("`setup` did not run"))?;
        let verification = Verification {
            format: verify::ONNX,
            path,
            sample_shape: sample_shape(graph),
            given: &|inputs| given(&self.options.include, &info.data, inputs),
            expected: &|value| expected(&self.options.include, value),
            points,
            tolerance: self.options.tolerance(),
        };
        if self.options.quantize == Quantize::Int8 {
            verification.report_accuracy(run, info, self.options.calibration_batches)?;
        }
        verification.run(run, info, ROWS)
    }
}

/// The shape of a sample of the model's input.
fn sample_shape(graph: &Graph) -> Vec<i64> {
    graph.inputs.first().map(|input| input.shape.clone()).unwrap_or_default()
}

/// The input of the file for an input of the model: samples before the data's normalization, if the file includes it.
fn given(include: &[Include], data: &DataInfo, inputs: &Tensor) -> Result<Inputs> {
    let view = inputs.view();
    if let Ok(indices) = view.as_slice::<i64>() {
        return Ok(Inputs::I64(indices.to_vec()));
    }
    let mut values = view.to_vec::<f32>()?;
    if include.contains(&Include::Normalize) && !data.offset.is_empty() {
        let rows = view.shape().first().map_or(1, |rows| *rows as usize);
        // One offset and one scale for each index of a sample's first dimension.
        let run = values.len() / (rows * data.offset.len()).max(1);
        for (place, value) in values.iter_mut().enumerate() {
            let index = place / run.max(1) % data.offset.len();
            *value = *value * data.scale.get(index).copied().unwrap_or(1.0) + data.offset[index];
        }
    }
    Ok(Inputs::F32(values))
}

/// The expected output of the file where the model's is `value`.
fn expected(include: &[Include], value: &Value) -> Vec<f32> {
    let width = value.shape.last().map_or(1, |width| *width as usize).max(1);
    let mut values = value.values.clone();
    if include.contains(&Include::Softmax) {
        values.chunks_mut(width).for_each(softmax);
    }
    if include.contains(&Include::Argmax) {
        values = values.chunks(width).map(|row| largest(row) as f32).collect();
    }
    values
}

fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

/// The index of the first of the largest values.
fn largest(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (place, value)| if *value > row[best] { place } else { best })
}
