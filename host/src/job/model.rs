//! What a run trains, before the run begins: the graph of the run file's layers, or a network that already exists.

use std::path::Path;
use std::sync::Arc;

use plugin_api::protocol::requests::Freeze;
use plugin_api::services::{Refusal, fitting, list_names};
use tch::{Device, Kind};

use super::program::{MakeNetwork, ModelContext};
use crate::config::Document;
use crate::data::{Data, INPUTS, SampleType, TARGETS, Target};
use crate::model::{
    BatchTargets, Dtype, Frozen, Graph, Interface, LayerPath, LoraError, ModelError, ModelFile, ModelTensor, Network,
    Op, contained,
};
use crate::report::Problem;
use crate::run_file::RunFile;
use crate::torch;
use crate::train;
use crate::train::loss::LossOptions;

/// How many names a hint lists.
const SHOWN_NAMES: usize = 8;

/// What is trained, as far as it exists before the run begins.
#[derive(Debug)]
pub enum PlannedModel {
    /// The run file's layers; the network is made when the run begins.
    Graph(Arc<Graph>),
    /// A network that exists: one with adapters, or one whose shapes nothing else tells, which is a program's own, a TorchScript
    /// module, or an exported program.
    Network(Box<Network>),
}

impl PlannedModel {
    /// The graph: that of the layers, or the one that describes an exported program.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoGraph`] for a model without one.
    pub fn graph(&self) -> Result<&Arc<Graph>, ModelError> {
        match self {
            PlannedModel::Graph(graph) => Ok(graph),
            PlannedModel::Network(network) => network.graph(),
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
            PlannedModel::Network(network) => {
                let is_adapter = |name: &str| network.lora().is_some_and(|lora| lora.is_adapter(name));
                let tensor = |named| {
                    let tensor = ModelTensor::from(named);
                    ModelTensor { is_adapter: is_adapter(tensor.name), ..tensor }
                };
                network.tensors().map(tensor).collect()
            }
        }
    }

    /// The names of what is trained, in the model's order.
    pub fn trained_names(&self) -> Vec<String> {
        match self {
            PlannedModel::Graph(_) => self.parameter_names().into_iter().map(str::to_owned).collect(),
            PlannedModel::Network(network) => network.trained().into_iter().map(|named| named.name).collect(),
        }
    }

    /// The names of the model's own parameters, without adapters.
    fn parameter_names(&self) -> Vec<&str> {
        match self {
            PlannedModel::Graph(graph) => graph.parameters().map(|tensor| tensor.name.as_str()).collect(),
            PlannedModel::Network(network) => {
                let is_adapter = |name: &str| network.lora().is_some_and(|lora| lora.is_adapter(name));
                let names = network.parameters().iter().map(|named| &*named.name);
                names.filter(|name| !is_adapter(name)).collect()
            }
        }
    }

    /// What is frozen from the beginning.
    fn frozen_first(&self, request: &Freeze) -> Result<Frozen, Refusal> {
        match self {
            PlannedModel::Graph(_) => Frozen::default().after(request, &self.parameter_names()),
            PlannedModel::Network(network) => network.frozen_after(request, true),
        }
    }

    /// Which adapters are trained in place of parameters, for people; `None` without any.
    pub fn lora(&self) -> Option<String> {
        let PlannedModel::Network(network) = self else { return None };
        Some(network.lora()?.summary(network))
    }

    /// The number of values of its parameters, those of adapters included.
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
            |_| "no graph".to_owned(),
            |graph| match graph.nodes().len() {
                1 => "1 node".to_owned(),
                nodes => format!("{nodes} nodes"),
            },
        );
        format!("{nodes}, {} parameters", self.parameter_count())
    }

    /// Floating-point operations of a forward pass over a sample of `shape`, and whether they are exact.
    pub(super) fn flops_per_sample(&self, shape: &[i64]) -> (u64, &'static str) {
        let network = match self {
            PlannedModel::Graph(graph) => return (graph.flops_per_sample(), ""),
            PlannedModel::Network(network) => network,
        };
        match network.graph() {
            Ok(graph) => (graph.flops_per_sample(), ""),
            Err(_) => (train::threads::estimated_flops(network.parameters(), shape), "about "),
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
/// `files`; with the adapters that the run file adds.
pub(super) fn plan(
    own: Option<Box<MakeNetwork>>,
    files: &[(ModelFile, impl AsRef<Path>)],
    run_file: &RunFile,
    document: &Document,
    data: &Data,
    device: Device,
) -> Result<PlannedModel, Problem> {
    let model = without_adapters(own, files, run_file, document, data, device)?;
    let Some(options) = &run_file.model.lora else { return Ok(model) };
    let seed = run_file.run.seed;
    let adapted = model.into_network(seed, device).map_err(LoraError::from).and_then(|mut network| {
        network.adapt(options, run_file.model.moving_statistics, seed)?;
        Ok(PlannedModel::Network(Box::new(network)))
    });
    adapted.map_err(|error| {
        let place = format!("/model/lora{}", error.place());
        Problem::from(&error).with_label(document.label_value(&place, ""))
    })
}

/// The model as the program or the run file gives it.
fn without_adapters(
    own: Option<Box<MakeNetwork>>,
    files: &[(ModelFile, impl AsRef<Path>)],
    run_file: &RunFile,
    document: &Document,
    data: &Data,
    device: Device,
) -> Result<PlannedModel, Problem> {
    if !run_file.model.inputs.is_empty() && run_file.model.exported.is_none() {
        return Err(Problem::new("`model.inputs` is given without `model.exported`")
            .with_label(document.label_key("/model/inputs", ""))
            .with_hint("it says what the arguments of an exported program get".to_owned()));
    }
    if !data.others.is_empty() && run_file.model.exported.is_none() {
        let names = data.input_names();
        let names = list_names(names.iter().map(String::as_str), "and");
        let what = if own.is_some() { "the program's own model" } else { "a model of layers or of TorchScript" };
        return Err(Problem::new(format!("a batch has the inputs {names}, and {what} takes one"))
            .with_label(document.label_key("/data/inputs", "several inputs"))
            .with_label(document.label_key("/model", "takes one"))
            .with_hint(
                "name one array: `inputs = \"…\"`; several are for an exported program: `[model] exported = \"model.pt2\"`"
                    .to_owned(),
            ));
    }
    let layers = !run_file.model.layers.is_empty();
    let key = files.first().map_or("exported", |(file, _)| file.key());
    if run_file.model.exported_eval.is_some() && run_file.model.exported.is_none() {
        return Err(Problem::new("`model.exported_eval` is given without `model.exported`")
            .with_label(document.label_key("/model/exported_eval", ""))
            .with_hint("it is the evaluation of the program that `exported` trains".to_owned()));
    }
    if run_file.model.output.is_some() && run_file.model.exported.is_none() {
        return Err(Problem::new("`model.output` is given without `model.exported`")
            .with_label(document.label_key("/model/output", ""))
            .with_hint("it names one of the tensors that an exported program returns".to_owned()));
    }
    if run_file.model.torchscript.is_some() && run_file.model.exported.is_some() {
        return Err(Problem::new("`model.torchscript` and `model.exported` are both given")
            .with_label(document.label_key("/model/torchscript", "a model"))
            .with_label(document.label_key("/model/exported", "a second model"))
            .with_hint("a run trains one model: remove one of them".to_owned()));
    }
    match (own, layers, files) {
        (None, true, []) => Ok(PlannedModel::Graph(Arc::new(graph(run_file, document, data)?))),
        (None, false, [(file, path), others @ ..]) => {
            let evaluation = others.first().map(|(_, path)| path.as_ref());
            let read = read_file((*file, path.as_ref()), evaluation, run_file, document, data, device)?;
            Ok(PlannedModel::Network(Box::new(read)))
        }
        (Some(make), false, []) => Ok(PlannedModel::Network(Box::new(network(make, run_file.run.seed, data, device)?))),
        (None, false, []) => Err(Problem::new(format!("`{}` has no model", document.name()))
            .with_label(document.label_key("/model", "neither `layers` nor `exported`"))
            .with_hint("give `[model]` its `layers`, or an exported program: `exported = \"model.pt2\"`".to_owned())),
        (None, true, _) => Err(Problem::new(format!("`model.layers` and `model.{key}` are both given"))
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
pub(super) fn check_frozen(request: &Freeze, model: &PlannedModel, document: &Document) -> Option<Problem> {
    let (names, patterns) = (model.parameter_names(), &request.patterns);
    if patterns.is_empty() {
        // The base of adapters is frozen.
        return (request.moving_statistics && model.lora().is_none()).then(|| {
            Problem::new("`model.moving_statistics` is given, and nothing is frozen")
                .with_label(document.label_key("/model/moving_statistics", ""))
                .with_hint("`freeze` names the parameters, such as `bn*`".to_owned())
        });
    }
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
    let refusal = model.frozen_first(request).err()?;
    Some(Problem::new(refusal.message).with_label(document.label_value("/model/freeze", "")))
}

/// The TorchScript module or the exported program in a file, whose output is tried once; `evaluation` is the file of the
/// program for evaluation, if there is one.
fn read_file(
    (file, path): (ModelFile, &Path),
    evaluation: Option<&Path>,
    run_file: &RunFile,
    document: &Document,
    data: &Data,
    device: Device,
) -> Result<Network, Problem> {
    let (target_shape, target_kind) = target_spec(&data.target);
    let label = |file: ModelFile| document.label_value(&format!("/model/{}", file.key()), "");
    let mut network = match file {
        ModelFile::TorchScript => Network::torchscript(path, device)
            .map_err(|error| Problem::from(&error).with_label(label(ModelFile::TorchScript)))?,
        ModelFile::Exported | ModelFile::ExportedEval => {
            let inputs = data.input_names();
            let interface = Interface {
                output: run_file.model.output.as_deref(),
                gives_loss: matches!(run_file.train.loss, Some(LossOptions::Model {})),
                arguments: &run_file.model.inputs,
                inputs: &inputs,
                targets: Some(BatchTargets { name: TARGETS, shape: &target_shape, kind: target_kind }),
            };
            Network::exported_with(path, evaluation, &interface, device).map_err(|error| {
                let is_of_evaluation = evaluation.is_some_and(|evaluation| error.path() == evaluation);
                let file = if is_of_evaluation { ModelFile::ExportedEval } else { ModelFile::Exported };
                let named = error.is_about_arguments().then(|| document.label_value("/model/inputs", "")).flatten();
                Problem::from(&error).with_label(named.or_else(|| label(file)))
            })?
        }
    };
    let others: Vec<(&[i64], Kind)> =
        data.others.iter().map(|other| (other.shape.as_slice(), other.dtype.kind())).collect();
    let samples = (data.sample_shape.as_slice(), data.sample_type.kind());
    network
        .try_on_all(samples, &others, Some((&target_shape, target_kind)))
        .map_err(|error| Problem::new(error.to_string()).with_label(label(file)).with_hint(how_given(data)))?;
    Ok(network)
}

/// The shape of the targets of a sample, and their dtype.
fn target_spec(target: &Target) -> (Vec<i64>, Kind) {
    match target {
        Target::Classes { shape, .. } => (shape.clone(), Kind::Int64),
        Target::Values { names, .. } => (vec![names.len() as i64], Kind::Float),
    }
}

/// What a model is given, for a hint.
fn how_given(data: &Data) -> String {
    let shape = &data.sample_shape;
    if data.others.is_empty() && data.input_name == INPUTS {
        return format!("it is given samples of the shape {shape:?}, as `[data]` makes them");
    }
    let (target_shape, kind) = target_spec(&data.target);
    let dtype = if kind == Kind::Int64 { SampleType::I64 } else { SampleType::F32 };
    format!("a sample of `[data]` has {}, `{TARGETS}` of {} {target_shape:?}", data.inputs_text(), dtype.name())
}

/// The graph of the run file's layers.
fn graph(run_file: &RunFile, document: &Document, data: &Data) -> Result<Graph, Problem> {
    let dtype = match data.sample_type {
        SampleType::F32 => Dtype::F32,
        SampleType::I64 => Dtype::I64,
        SampleType::Bool => {
            return Err(Problem::new("samples of truth values are for an exported program, and layers take none")
                .with_label(document.label_key("/data/inputs", ""))
                .with_hint("save them as numbers".to_owned()));
        }
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
    let kind = data.sample_type.kind();
    let sample_shape = data.sample_shape.clone();
    let context = ModelContext { device, sample_shape, sample_kind: kind, target: data.target.clone() };
    // Its initial weights are drawn from the default generators.
    torch::manual_seed(seed);
    let mut network = contained(|| make(&context))
        .map_err(|message| Problem::new(format!("the program cannot make its model: {message}")))?;
    network.try_on((&data.sample_shape, kind)).map_err(|error| Problem::new(error.to_string()))?;
    Ok(network)
}
