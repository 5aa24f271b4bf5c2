//! Compares the file with the model, before it is published.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use export::Ranges;
use plugin_api::protocol::RunInfo;
use plugin_api::{Result, Run};
use verify::{Point, Verdict, Verification, reordered};

use crate::builtin::Builtin;
use crate::options::ImageLayout;
use crate::program::{Element, Operator, Program};
use crate::{Inside, Tflite};

/// How the reader fails at an operator (tract-tflite 0.23.9), as a verb.
///
/// What it misreads is no error of the file: it rounds means of floats, and adds integers of several scales as if they
/// had the same scale, and squares integers without theirs.
fn failing(program: &Program, operator: &Operator) -> Option<&'static str> {
    let is_integer = |tensor: &usize| program.tensors[*tensor].element == Element::I8;
    match operator.builtin {
        Builtin::Mean => Some("misreads"),
        Builtin::Add if operator.outputs.iter().any(is_integer) => Some("misreads"),
        Builtin::Mul
            if operator.outputs.iter().any(is_integer) && operator.inputs.first() == operator.inputs.get(1) =>
        {
            Some("misreads")
        }
        Builtin::ArgMax
        | Builtin::Cast
        | Builtin::DepthToSpace
        | Builtin::Dequantize
        | Builtin::Elu
        | Builtin::Gather
        | Builtin::Gelu
        | Builtin::Pack
        | Builtin::Quantize
        | Builtin::Split
        | Builtin::SquaredDifference
        | Builtin::Unpack => Some("does not run"),
        _ => None,
    }
}

/// Everything that the reader cannot verify, as a clause; `None` if there is nothing.
fn unverifiable(program: &Program) -> Option<String> {
    let mut found: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for operator in program.all() {
        if let Some(failing) = failing(program, operator) {
            found.entry((failing, operator.builtin.name())).or_default().insert(&operator.node);
        }
    }
    let clause = |((failing, name), nodes): (&(&str, &str), &BTreeSet<&str>)| {
        let nodes: Vec<String> = nodes.iter().filter(|node| !node.is_empty()).map(|node| format!("`{node}`")).collect();
        let of = if nodes.is_empty() { String::new() } else { format!(" (of {})", nodes.join(", ")) };
        format!("{failing} `{name}`{of}")
    };
    let clauses: Vec<String> = found.iter().map(clause).collect();
    (!clauses.is_empty()).then(|| format!("the runtime {}", clauses.join(", ")))
}

/// The number of samples to compare. The reader runs them one by one.
const ROWS: usize = 16;

impl Tflite {
    /// Runs the file at `path`, which contains the program of `inside`, on samples of the run's data. With `ranges`, of
    /// integers, it also reports how many samples are classified correctly with and without them.
    pub(crate) fn verify(
        &self,
        run: &mut Run<'_>,
        info: &RunInfo,
        path: &Path,
        inside: &Inside<'_>,
        ranges: Option<&Ranges>,
    ) -> Result<Verdict> {
        let program = &*inside.program;
        if let Some(reason) = unverifiable(program) {
            return Ok(Verdict::Unverified(reason));
        }
        let images_move = self.options.layout == ImageLayout::Nhwc;
        let shape = |input: &usize| -> Vec<i64> {
            program.tensors[*input].shape.iter().skip(1).map(|length| i64::from(*length)).collect()
        };
        let points = points(program);
        let verification = Verification {
            format: verify::TFLITE,
            path,
            sample_shapes: program.inputs.iter().map(shape).collect(),
            normalization: inside.normalization,
            ending: inside.ending,
            layout: &|values, shape| channels_last(images_move, values, shape),
            points: &points,
            tolerance: self.options.tolerance(),
            allow_non_finite: self.options.allow_non_finite,
        };
        if let Some(ranges) = ranges {
            verification.report_accuracy(run, info, ranges)?;
        }
        verification.run(run, info, ROWS)
    }
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
