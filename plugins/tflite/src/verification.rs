//! Compares the file with the model, before it is published.

use std::path::Path;

use plugin_api::protocol::RunInfo;
use plugin_api::{Result, Run, Tensor};
use verify::{Inputs, Point, Verdict, Verification, reordered};

use crate::Tflite;
use crate::builtin::Builtin;
use crate::options::{ImageLayout, Quantize};
use crate::program::{Element, Operator, Program};

/// Operators that the reader computes incorrectly, which is no error of the file: it rounds means of floats, and adds
/// integers of several scales as if they had the same scale (tract-tflite 0.23.9).
fn misread(program: &Program) -> Option<&'static str> {
    let is_wrong = |operator: &&Operator| match operator.builtin {
        Builtin::Mean => true,
        Builtin::Add => operator.outputs.iter().any(|output| program.tensors[*output].element == Element::I8),
        _ => false,
    };
    program.operators.iter().find(is_wrong).map(|operator| operator.builtin.name())
}

/// The number of samples to compare. The reader runs them one by one.
const ROWS: usize = 16;

impl Tflite {
    /// Runs the file at `path`, which contains `program`, on samples of the run's data. For integers, it also reports
    /// how many samples are classified correctly with and without them.
    pub(crate) fn verify(&self, run: &mut Run<'_>, info: &RunInfo, path: &Path, program: &Program) -> Result<Verdict> {
        if let Some(operator) = misread(program) {
            return Ok(Verdict::Unverified(format!("the runtime misreads the operator `{operator}`")));
        }
        let images_move = self.options.layout == ImageLayout::Nhwc;
        let input = program.inputs.first().map(|input| &program.tensors[*input]);
        let points = points(program);
        let verification = Verification {
            format: verify::TFLITE,
            path,
            sample_shape: input
                .into_iter()
                .flat_map(|input| &input.shape)
                .skip(1)
                .map(|length| i64::from(*length))
                .collect(),
            given: &|inputs| given(images_move, inputs),
            expected: &|value| channels_last(images_move, &value.values, &value.shape),
            points: &points,
            tolerance: self.options.tolerance(),
        };
        if self.options.quantize == Quantize::Int8 {
            verification.report_accuracy(run, info, self.options.calibration_batches)?;
        }
        verification.run(run, info, ROWS)
    }
}

fn given(images_move: bool, inputs: &Tensor) -> Result<Inputs> {
    let view = inputs.view();
    Ok(match view.as_slice::<i64>() {
        Ok(indices) => Inputs::I64(indices.to_vec()),
        Err(_) => Inputs::F32(channels_last(images_move, &view.to_vec::<f32>()?, view.shape())),
    })
}

/// Images in the layout of the file, which may differ from the model's.
fn channels_last(images_move: bool, values: &[f32], shape: &[i64]) -> Vec<f32> {
    if images_move && shape.len() == 4 { reordered(values, shape, &[0, 2, 3, 1]) } else { values.to_vec() }
}

/// The values of the model that are values of the file, in the order of computation.
fn points(program: &Program) -> Vec<Point> {
    let point = |tensor: &crate::program::Tensor| {
        let origin = tensor.origin.as_ref()?;
        Some(Point {
            node: origin.node.clone(),
            operator: origin.operator.to_owned(),
            value: tensor.name.clone(),
            dims: origin.dims.clone()?,
        })
    };
    let given = program.operators.iter().flat_map(|operator| &operator.outputs);
    given.filter_map(|tensor| point(&program.tensors[*tensor])).collect()
}
