//! `[model] exported`: an exported program as a network.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::batch::{Forwarded, ModelBatch};
use super::{
    error::ModelError,
    execute::Mode,
    graph::{Graph, Node},
    named_tensor::NamedTensor,
    network::Network,
    op::{Dtype, Input, Op},
};
use crate::model::program::{Exported, ExportedError, Interface};
use crate::report::Report;

/// Why a file cannot be trained as an exported program.
#[derive(Debug, thiserror::Error)]
pub enum ExportedModelError {
    /// The program itself.
    #[error(transparent)]
    Program(#[from] ExportedError),
    /// It has nothing that can be trained.
    #[error("the exported program `{path}` cannot be trained")]
    Model {
        /// The file.
        path: String,
        /// Why.
        source: Box<ModelError>,
    },
}

impl ExportedModelError {
    /// Whether what the program's arguments get is wrong, not the program.
    pub fn is_about_arguments(&self) -> bool {
        matches!(self, Self::Program(ExportedError::Arguments { .. }))
    }

    /// The file that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Program(
                ExportedError::Read { path, .. }
                | ExportedError::Refused { path, .. }
                | ExportedError::Arguments { path, .. },
            ) => path,
            Self::Model { path, .. } => Path::new(path),
        }
    }
}

impl Report for ExportedModelError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Program(error) => error.hint(),
            Self::Model { source, .. } if **source == ModelError::NothingToTrain => {
                Some("export it with parameters that require gradients".to_owned())
            }
            Self::Model { .. } => None,
        }
    }
}

impl Network {
    /// The program of `torch.export.save` in a file that takes the samples of a batch, as [`Network::exported_with`] reads it.
    /// `output` names one of several outputs.
    ///
    /// # Errors
    ///
    /// See [`ExportedModelError`].
    pub fn exported(
        path: &Path,
        evaluation: Option<&Path>,
        output: Option<&str>,
        device: Device,
    ) -> Result<Network, ExportedModelError> {
        Network::of_exported(Exported::open(path, evaluation, output, device)?, path, device)
    }

    /// The program of `torch.export.save` in a file, with its saved weights, on `device`. Its tensors have the names of
    /// PyTorch's state dict; those that require gradients are the parameters. `evaluation` is the file of the program that
    /// evaluates in its place, over the same tensors, if there is one; `interface` says what its arguments get.
    ///
    /// The program is what the network computes. Where all of its operators are in the host's graph, it has one that
    /// describes it.
    ///
    /// # Errors
    ///
    /// See [`ExportedModelError`].
    pub fn exported_with(
        path: &Path,
        evaluation: Option<&Path>,
        interface: &Interface<'_>,
        device: Device,
    ) -> Result<Network, ExportedModelError> {
        Network::of_exported(Exported::open_with(path, evaluation, interface, device)?, path, device)
    }

    fn of_exported(mut program: Exported, path: &Path, device: Device) -> Result<Network, ExportedModelError> {
        let tensors = std::mem::take(&mut program.tensors);
        let tensors = tensors.into_iter().map(|(name, tensor)| NamedTensor { name, tensor }).collect();
        Network::of_program(program, tensors, device)
            .map_err(|source| ExportedModelError::Model { path: path.display().to_string(), source: Box::new(source) })
    }
}

/// What a program gives for a batch, with copies of the values of the nodes `wanted` of its graph. `sums` take the places of
/// adapted parameters.
pub(super) fn run(
    program: &Exported,
    batch: ModelBatch<'_>,
    mode: Mode,
    sums: &[(&str, &Tensor)],
    wanted: &[usize],
) -> Result<Forwarded, ModelError> {
    program
        .run(batch, mode == Mode::Train, sums, wanted)
        .map_err(|refusal| ModelError::Forward { message: refusal.to_string() })
}

/// The largest difference, in parts of the largest output, between the outputs of a program and of the graph that it was
/// lowered to: kernels in another layout sum in another order, and those of a GPU may round to 10 bits.
const LARGEST_DIFFERENCE: f64 = 5e-3;

/// How far the outputs of `program` and of `network`, which executes its graph over the same tensors, are apart, in parts of
/// the largest output.
///
/// # Errors
///
/// When one of them cannot compute.
pub(super) fn difference(program: &Exported, network: &Network) -> Result<f64, ModelError> {
    let graph = network.graph()?;
    let inputs = graph.inputs().iter().enumerate().map(|(place, input)| example(graph, place, input, network.device()));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let Some((samples, others)) = inputs.split_first() else { return Ok(f64::INFINITY) };
    let batch = ModelBatch { inputs: samples, others, targets: None };
    tch::no_grad(|| {
        let expected = run(program, batch, Mode::Evaluate, &[], &[])?.output;
        let found = network.compute(batch, Mode::Evaluate, &[])?.output;
        if found.size() != expected.size() {
            return Ok(f64::INFINITY);
        }
        // Where both give no number, nothing is told; where one of them does, they differ.
        let is_nan = expected.f_isnan()?;
        if !is_nan.f_equal(&found.f_isnan()?)? {
            return Ok(f64::INFINITY);
        }
        let [expected, found] = [expected, found].map(|output| output.f_nan_to_num(0.0, None, None));
        let (expected, found) = (expected?, found?);
        let largest = expected.f_abs()?.f_max()?.f_double_value(&[])?;
        let difference = (found - expected).f_abs()?.f_max()?.f_double_value(&[])?;
        Ok(difference / largest.max(f64::MIN_POSITIVE))
    })
}

/// Whether two outputs that are so far apart are of one function.
pub(super) fn agree(difference: f64) -> bool {
    difference <= LARGEST_DIFFERENCE
}

/// A batch for an input of a graph: numbers without a pattern that a wrong order or place could share. Whole numbers are rows
/// that each embedding of them has; where no embedding reads them, they are those of a mask that hides the end of a sample.
fn example(graph: &Graph, place: usize, input: &Input, device: Device) -> Result<Tensor, ModelError> {
    const SAMPLES: i64 = 2;
    let shape: Vec<i64> = std::iter::once(SAMPLES).chain(input.shape.iter().copied()).collect();
    let count = shape.iter().product::<i64>();
    let numbers = Tensor::f_arange(count, (Kind::Float, device))?.f_add_scalar(place as f64)?;
    let values = match (input.dtype, least_rows(graph, &input.name)) {
        (Dtype::F32, _) => (numbers.f_square()? * 0.7).f_sin()?,
        (Dtype::I64, Some(rows)) => numbers.f_remainder(rows as f64)?.f_to_kind(Kind::Int64)?,
        (Dtype::I64, None) => {
            // Two thirds of the first sample are seen, and a third of the second.
            let positions = Tensor::f_arange(count, (Kind::Int64, device))?;
            let of_sample = (count / SAMPLES).max(1);
            let seen = (2 * of_sample / 3).max(1);
            let first = positions.f_lt(seen)?;
            let second = positions.f_ge(of_sample)?.f_logical_and(&positions.f_lt(of_sample + (seen / 2).max(1))?)?;
            first.f_logical_or(&second)?.f_to_kind(Kind::Int64)?
        }
    };
    Ok(values.f_reshape(&shape)?)
}

/// The number of rows of the smallest embedding that reads an input; `None` if none does.
fn least_rows(graph: &Graph, input: &str) -> Option<i64> {
    let reads = |node: &&Node| node.inputs.first().is_some_and(|read| read == input);
    let rows = graph.nodes().iter().filter(reads).filter_map(|node| match node.op {
        Op::Embedding { num_embeddings, .. } => Some(num_embeddings.max(1)),
        _ => None,
    });
    rows.min()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use plugin_api::protocol::requests::Freeze;

    use super::*;
    use crate::torch::test_support;

    fn cnn() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures/exported/cnn.pt2")
    }

    #[test]
    fn only_outputs_of_one_function_agree() {
        let program = Exported::open(&cnn(), None, None, Device::Cpu).unwrap();
        let graph = program.graph().unwrap();
        // In another order than the graph's, and with another shift of the batch norm.
        let network = |shift: f64| {
            let copies = program.tensors.iter().rev().map(|(name, tensor)| {
                let tensor = if name == "bn.bias" { tensor.detach() + shift } else { tensor.detach() };
                NamedTensor { name: name.clone(), tensor }
            });
            Network::over(Arc::clone(graph), copies.collect(), Device::Cpu).unwrap()
        };
        let apart = |shift| difference(&program, &network(shift)).unwrap();
        assert!(apart(0.0) < 1e-6 && agree(apart(0.0)));
        assert!(!agree(apart(0.1)));
    }

    #[test]
    fn the_statistics_of_a_frozen_batch_norm_stay_unless_they_are_to_move() {
        let _generator = test_support::default_generator();
        let names = ["running_mean", "running_var", "num_batches_tracked"].map(|name| format!("bn.{name}"));
        for (patterns, moving_statistics, stays) in
            [("bn.*", false, true), ("bn.*", true, false), ("bn.weight", false, false)]
        {
            let mut network = Network::exported(&cnn(), None, None, Device::Cpu).unwrap();
            let parameters: Vec<&str> = network.parameters().iter().map(|named| named.name.as_str()).collect();
            let request = Freeze { patterns: vec![patterns.to_owned()], frozen: true, moving_statistics };
            let frozen = network.frozen().after(&request, &parameters).unwrap();
            network.set_frozen(frozen).unwrap();
            let images = Tensor::arange(4 * 64, (Kind::Float, Device::Cpu)).sin().reshape([4, 1, 8, 8]);
            let before: Vec<Tensor> = names.iter().map(|name| network.tensor(name).unwrap().copy()).collect();
            let _ = network.forward(&images, Mode::Train).unwrap();
            for (name, before) in names.iter().zip(&before) {
                assert_eq!(before == network.tensor(name).unwrap(), stays, "{patterns} {name}");
                assert_eq!(network.moving_buffers().any(|named| named.name == *name), !stays, "{patterns} {name}");
            }
        }
    }

    #[test]
    fn a_frozen_batch_norm_normalizes_with_its_statistics_and_learns_again() {
        let _generator = test_support::default_generator();
        let mut network = Network::exported(&cnn(), None, None, Device::Cpu).unwrap();
        let images = Tensor::arange(4 * 64, (Kind::Float, Device::Cpu)).sin().reshape([4, 1, 8, 8]);
        let node = network.graph().unwrap().node_index("bn").unwrap();
        let normalized = |network: &Network, mode| network.forward_with(&images, mode, &[node]).unwrap().1.remove(0);
        let evaluated = normalized(&network, Mode::Evaluate);
        for is_frozen in [true, false] {
            let names: Vec<&str> = network.parameters().iter().map(|named| named.name.as_str()).collect();
            let request = Freeze { patterns: vec!["bn.*".to_owned()], frozen: is_frozen, moving_statistics: false };
            let frozen = network.frozen().after(&request, &names).unwrap();
            network.set_frozen(frozen).unwrap();
            assert_eq!(normalized(&network, Mode::Train) == evaluated, is_frozen);
        }
    }

    #[test]
    fn a_graph_over_too_few_tensors_is_an_error() {
        let program = Exported::open(&cnn(), None, None, Device::Cpu).unwrap();
        let error = Network::over(Arc::clone(program.graph().unwrap()), Vec::new(), Device::Cpu).unwrap_err();
        assert_eq!(error, ModelError::UnknownTensor { name: "conv.weight".to_owned() });
    }
}
