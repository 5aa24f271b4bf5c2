//! What a run trains, before the run begins: the graph of the run file's layers, or a network that already exists.

use std::path::Path;
use std::sync::Arc;

use plugin_api::protocol::requests::Freeze;
use plugin_api::services::{fitting, list_names};
use tch::{Device, Kind};

use super::program::{MakeNetwork, ModelContext};
use crate::config::Document;
use crate::data::{Data, SampleType};
use crate::model::{Dtype, Frozen, Graph, LayerPath, ModelError, ModelTensor, ModuleFormat, Network, Op, contained};
use crate::report::Problem;
use crate::run_file::RunFile;
use crate::torch;
use crate::train;

/// How many names a hint lists.
const SHOWN_NAMES: usize = 8;

/// What is trained, as far as it exists before the run begins.
#[derive(Debug)]
pub enum PlannedModel {
    /// The run file's layers; the network is made when the run begins.
    Graph(Arc<Graph>),
    /// A network without a graph, since nothing else tells its shapes.
    Network(Box<Network>),
}

impl PlannedModel {
    /// The graph; `None` for a model without one.
    pub fn graph(&self) -> Option<&Arc<Graph>> {
        match self {
            PlannedModel::Graph(graph) => Some(graph),
            PlannedModel::Network(_) => None,
        }
    }

    /// The shape of the output for one sample.
    pub fn output_shape(&self) -> &[i64] {
        match self {
            PlannedModel::Graph(graph) => graph.output_shape(),
            PlannedModel::Network(network) => network.output_shape().unwrap_or_default(),
        }
    }

    /// Every parameter and buffer.
    pub fn tensors(&self) -> Vec<ModelTensor<'_>> {
        match self {
            PlannedModel::Graph(graph) => graph.tensors().map(ModelTensor::from).collect(),
            PlannedModel::Network(network) => network.tensors().map(ModelTensor::from).collect(),
        }
    }

    /// The names of what is trained, in the model's order.
    pub fn parameter_names(&self) -> Vec<&str> {
        match self {
            PlannedModel::Graph(graph) => {
                graph.nodes().iter().flat_map(|node| &node.parameters).map(|tensor| tensor.name.as_str()).collect()
            }
            PlannedModel::Network(network) => network.parameters().iter().map(|named| &*named.name).collect(),
        }
    }

    /// The number of values that training changes.
    pub fn parameter_count(&self) -> u64 {
        match self {
            PlannedModel::Graph(graph) => graph.parameter_count(),
            PlannedModel::Network(network) => {
                network.parameters().iter().map(|named| named.tensor.numel() as u64).sum()
            }
        }
    }

    /// Its description for people.
    pub fn description(&self) -> String {
        let nodes = self.graph().map_or_else(
            || "no graph".to_owned(),
            |graph| match graph.nodes().len() {
                1 => "1 node".to_owned(),
                nodes => format!("{nodes} nodes"),
            },
        );
        format!("{nodes}, {} parameters", self.parameter_count())
    }

    /// Floating-point operations of a forward pass over a sample of `shape`, and whether they are exact.
    pub(super) fn flops_per_sample(&self, shape: &[i64]) -> (u64, &'static str) {
        match self {
            PlannedModel::Graph(graph) => (graph.flops_per_sample(), ""),
            PlannedModel::Network(network) => (train::threads::estimated_flops(network.parameters(), shape), "about "),
        }
    }

    /// The network; unless it already exists, `seed` determines its initial weights.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub(super) fn into_network(self, seed: u64, device: Device) -> Result<Network, ModelError> {
        match self {
            PlannedModel::Graph(graph) => Network::new(graph, seed, device),
            PlannedModel::Network(network) => Ok(*network),
        }
    }
}

/// The model for samples of `data`: the program's, which is made on `device`, or else the run file's, whose own file is read from
/// `module`.
pub(super) fn plan(
    own: Option<Box<MakeNetwork>>,
    module: Option<&Path>,
    run_file: &RunFile,
    document: &Document,
    data: &Data,
    device: Device,
) -> Result<PlannedModel, Problem> {
    let layers = !run_file.model.layers.is_empty();
    let key = module_key(run_file);
    if run_file.model.torchscript.is_some() && run_file.model.exported.is_some() {
        return Err(Problem::new("`model.torchscript` and `model.exported` are both given")
            .with_label(document.label_key("/model/torchscript", "a model"))
            .with_label(document.label_key("/model/exported", "a second model"))
            .with_hint("a run trains one model: remove one of them".to_owned()));
    }
    match (own, layers, module) {
        (None, true, None) => Ok(PlannedModel::Graph(Arc::new(graph(run_file, document, data)?))),
        (None, false, Some(path)) => {
            Ok(PlannedModel::Network(Box::new(read_module(path, run_file, document, data, device)?)))
        }
        (Some(make), false, None) => {
            Ok(PlannedModel::Network(Box::new(network(make, run_file.run.seed, data, device)?)))
        }
        (None, false, None) => Err(Problem::new(format!("`{}` has no model", document.name()))
            .with_label(document.label_key("/model", "neither `layers` nor `exported`"))
            .with_hint("give `[model]` its `layers`, or an exported program: `exported = \"model.pt2\"`".to_owned())),
        (None, true, Some(_)) => Err(Problem::new(format!("`model.layers` and `model.{key}` are both given"))
            .with_label(document.label_key("/model/layers", "a model"))
            .with_label(document.label_key(&format!("/model/{key}"), "a second model"))
            .with_hint("a run trains one model: remove one of them".to_owned())),
        (Some(_), ..) => {
            let key = if layers { "layers" } else { key };
            Err(Problem::new("there are two models: the run file's and the program's own")
                .with_label(document.label_key(&format!("/model/{key}"), "a model"))
                .with_hint(format!("remove `{key}`, since this program trains a model of its own")))
        }
    }
}

/// What is wrong with `[model] freeze`.
pub(super) fn check_frozen(patterns: &[String], model: &PlannedModel, document: &Document) -> Option<Problem> {
    let names = model.parameter_names();
    for (index, pattern) in patterns.iter().enumerate() {
        if let Err(refusal) = fitting("parameter", std::slice::from_ref(pattern), &names) {
            let shown = names.iter().take(SHOWN_NAMES).copied();
            let hint = format!("the model has {}; `*` stands for any text", list_names(shown, "and"));
            return Some(
                Problem::new(refusal.message)
                    .with_label(document.label_value(&format!("/model/freeze/{index}"), ""))
                    .with_hint(hint),
            );
        }
    }
    let request = Freeze { patterns: patterns.to_vec(), frozen: true, moving_statistics: false };
    let refusal = Frozen::default().after(&request, &names).err()?;
    Some(Problem::new(refusal.message).with_label(document.label_value("/model/freeze", "")))
}

/// The key of the run file that names the file of the model.
fn module_key(run_file: &RunFile) -> &'static str {
    match run_file.model.module() {
        Some((ModuleFormat::Exported, _)) => "exported",
        _ => "torchscript",
    }
}

/// The TorchScript module or the exported program of the run file, whose output is tried once.
fn read_module(
    path: &Path,
    run_file: &RunFile,
    document: &Document,
    data: &Data,
    device: Device,
) -> Result<Network, Problem> {
    let label = || document.label_value(&format!("/model/{}", module_key(run_file)), "");
    let read = match run_file.model.module() {
        Some((ModuleFormat::Exported, _)) => Network::exported(path, device).map_err(|error| Problem::from(&error)),
        _ => Network::torchscript(path, device).map_err(|error| Problem::from(&error)),
    };
    let mut network = read.map_err(|problem| problem.with_label(label()))?;
    let shape = &data.sample_shape;
    network.try_on((shape, kind(data.sample_type))).map_err(|error| {
        Problem::new(error.to_string())
            .with_label(label())
            .with_hint(format!("it is given samples of the shape {shape:?}, as `[data]` makes them"))
    })?;
    Ok(network)
}

/// The graph of the run file's layers.
fn graph(run_file: &RunFile, document: &Document, data: &Data) -> Result<Graph, Problem> {
    let dtype = match data.sample_type {
        SampleType::F32 => Dtype::F32,
        SampleType::I64 => Dtype::I64,
    };
    let graph = run_file.model.lower(&data.sample_shape, dtype).map_err(|error| {
        let place = error.path().map_or_else(String::new, LayerPath::pointer);
        Problem::new(error.to_string()).with_label(document.label_value(&format!("/model{place}"), ""))
    })?;
    if let Some(count) = data.samples.vocabulary() {
        for node in graph.nodes() {
            if let Op::Embedding { num_embeddings, .. } = node.op
                && num_embeddings.unsigned_abs() < count as u64
            {
                let message = format!("`{}` has {num_embeddings} rows, and the data has {count} tokens", node.name);
                return Err(Problem::new(message)
                    .with_label(document.label_key("/model", ""))
                    .with_hint(format!("give the layer `num_embeddings = {count}`")));
            }
        }
    }
    Ok(graph)
}

/// The program's network, whose output is tried once.
fn network(make: Box<MakeNetwork>, seed: u64, data: &Data, device: Device) -> Result<Network, Problem> {
    let kind = kind(data.sample_type);
    let sample_shape = data.sample_shape.clone();
    let context = ModelContext { device, sample_shape, sample_kind: kind, target: data.target.clone() };
    // Its initial weights are drawn from the default generators.
    torch::manual_seed(seed);
    let mut network = contained(|| make(&context))
        .map_err(|message| Problem::new(format!("the program cannot make its model: {message}")))?;
    network.try_on((&data.sample_shape, kind)).map_err(|error| Problem::new(error.to_string()))?;
    Ok(network)
}

fn kind(sample_type: SampleType) -> Kind {
    match sample_type {
        SampleType::F32 => Kind::Float,
        SampleType::I64 => Kind::Int64,
    }
}
