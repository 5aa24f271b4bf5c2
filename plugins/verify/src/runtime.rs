//! The runtime.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::*;

/// A file format and its reader. A format that is not used does not become part of a plugin's library.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    load: fn(&Request<'_>) -> TractResult<TypedModel>,
    /// Whether the reader fixes the batch to 1, as the file's tables say.
    is_one_by_one: bool,
}

/// ONNX, with weights in a separate file or not.
pub const ONNX: Format = Format { load: onnx, is_one_by_one: false };

/// TFLite.
pub const TFLITE: Format = Format { load: tflite, is_one_by_one: true };

/// The file to run.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The file.
    pub path: &'a Path,
    /// The shape of a sample of each input, in the file's layout.
    pub sample_shapes: &'a [Vec<i64>],
    /// What it will be run on, for each input: of the dtypes that it takes.
    pub inputs: &'a [Inputs],
    /// The number of samples that are run at a time.
    pub rows: usize,
    /// The requested values, by name; if there are none, the file's output. Values that the file lacks are omitted.
    pub values: &'a [String],
}

/// Samples, one after another.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// Numbers.
    F32(Vec<f32>),
    /// Indices.
    I64(Vec<i64>),
}

/// A file that can be run.
#[derive(Debug)]
pub struct Runtime {
    plan: Arc<TypedRunnableModel>,
    /// The shape of each input, with the batch first, and its type: eight bits in a model of integers.
    inputs: Vec<(Vec<usize>, DatumType)>,
    names: Vec<String>,
}

/// Why the runtime cannot run a file: usually an operator that it does not support. That says nothing about the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// In one line.
    pub reason: String,
}

impl Runtime {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// The runtime's message about an operator or attribute that it does not support.
    pub fn load(format: Format, request: &Request<'_>) -> Result<Runtime, Unsupported> {
        if request.inputs.len() != request.sample_shapes.len() {
            let (given, taken) = (request.inputs.len(), request.sample_shapes.len());
            return Err(Unsupported { reason: format!("a file of {taken} inputs on {given}") });
        }
        let rows = if format.is_one_by_one { 1 } else { request.rows };
        let request = Request { rows, ..*request };
        contained(|| {
            let mut model = (format.load)(&request)?;
            let mut names = Vec::new();
            if !request.values.is_empty() {
                let found = request.values.iter().filter_map(|name| Some((name.clone(), outlet(&model, name)?)));
                let (known, outlets): (Vec<String>, Vec<OutletId>) = found.unzip();
                names = known;
                model.select_output_outlets(&outlets)?;
            }
            let shapes = request.sample_shapes.iter().enumerate();
            let inputs =
                shapes.map(|(place, shape)| Ok((batched(request.rows, shape), model.input_fact(place)?.datum_type)));
            let inputs = inputs.collect::<TractResult<_>>()?;
            Ok(Runtime { plan: model.into_runnable()?, inputs, names })
        })
    }

    /// The names of the values that [`Runtime::run`] returns; empty if that is the file's output.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Runs samples, and returns the requested values, each with all samples joined. Samples after the last complete
    /// batch are not run.
    ///
    /// # Errors
    ///
    /// The runtime's message.
    pub fn run(&self, inputs: &[Inputs]) -> Result<Vec<Vec<f32>>, Unsupported> {
        contained(|| self.run_each(inputs))
    }

    fn run_each(&self, inputs: &[Inputs]) -> TractResult<Vec<Vec<f32>>> {
        let mut joined: Vec<Vec<f32>> = Vec::new();
        let batches = self.inputs.iter().zip(inputs).map(|((shape, _), values)| values.batches(shape)).min();
        for batch in 0..batches.unwrap_or(0) {
            let given = self.inputs.iter().zip(inputs).map(|((shape, dtype), values)| {
                Ok(values.batch(shape, batch)?.cast_to_dt(*dtype)?.into_owned().into_tvalue())
            });
            let outputs = self.plan.run(given.collect::<TractResult<_>>()?)?;
            joined.resize(outputs.len(), Vec::new());
            for (joined, output) in joined.iter_mut().zip(&outputs) {
                joined.extend_from_slice(output.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?);
            }
        }
        Ok(joined)
    }
}

impl Inputs {
    /// How many complete batches of this shape there are.
    fn batches(&self, shape: &[usize]) -> usize {
        let count = match self {
            Inputs::F32(values) => values.len(),
            Inputs::I64(values) => values.len(),
        };
        count / shape.iter().product::<usize>().max(1)
    }

    /// One of them.
    fn batch(&self, shape: &[usize], index: usize) -> TractResult<Tensor> {
        fn part<T>(values: &[T], length: usize, index: usize) -> &[T] {
            values.chunks_exact(length).nth(index).unwrap_or_default()
        }
        let length = shape.iter().product::<usize>().max(1);
        match self {
            Inputs::F32(values) => Tensor::from_shape(shape, part(values, length, index)),
            Inputs::I64(values) => Tensor::from_shape(shape, part(values, length, index)),
        }
    }

    fn datum_type(&self) -> DatumType {
        match self {
            Inputs::F32(_) => f32::datum_type(),
            Inputs::I64(_) => i64::datum_type(),
        }
    }
}

/// The output that has a value: of the last of the nodes that an operator became.
fn outlet(model: &TypedModel, name: &str) -> Option<OutletId> {
    let is_of = |node: &&TypedNode| {
        node.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(".fused"))
    };
    model.nodes().iter().filter(is_of).map(|node| OutletId::new(node.id, 0)).next_back()
}

fn batched(rows: usize, sample: &[i64]) -> Vec<usize> {
    let sample = sample.iter().map(|length| usize::try_from(*length).unwrap_or(0));
    std::iter::once(rows).chain(sample).collect()
}

fn onnx(request: &Request<'_>) -> TractResult<TypedModel> {
    let mut model = tract_onnx::onnx().model_for_path(request.path)?;
    for (place, (shape, inputs)) in request.sample_shapes.iter().zip(request.inputs).enumerate() {
        let shape = batched(request.rows, shape);
        model.set_input_fact(place, InferenceFact::dt_shape(inputs.datum_type(), &shape))?;
    }
    model.into_typed()
}

fn tflite(request: &Request<'_>) -> TractResult<TypedModel> {
    tract_tflite::tflite().model_for_path(request.path)
}

/// The result, even if the runtime panics: it does so for some unexpected files.
fn contained<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, Unsupported> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // This library's own hook, which would log a panic that is not an error of the run.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(told);
    let reason = match result {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => in_one_line(error.chain().map(ToString::to_string)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
        }
    };
    Err(Unsupported { reason })
}

/// The innermost cause. For an unsupported operator, the runtime prints a dump that contains its name.
fn in_one_line(chain: impl Iterator<Item = String>) -> String {
    const LONGEST: usize = 200;
    let cause = chain.last().unwrap_or_default();
    // The newer of two fields with the operator's code comes last.
    if let Some((_, rest)) = cause.split_once("Unsupported: ").and_then(|(_, dump)| dump.rsplit_once("builtin_code: "))
    {
        let name: String = rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        return format!("the operator `{name}`");
    }
    let line = cause.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LONGEST).collect()
}
