//! A model with weights, and a fake run for the exporter.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use host::model::{
    BatchTargets, Dtype, Forwarded, Graph, GraphBuilder, Input, Interface, LayerPath, Mode, ModelBatch, ModelError,
    ModelOptions, Network, Op,
};
use plugin_api::Callback;
use plugin_api::Tensor;
use plugin_api::protocol::TensorSet;
use plugin_api::testing::FakeHost;
use tch::{Device, Kind};

use crate::Model;
use crate::models::{Other, Source, Values};

/// A model with random weights and random statistics of its norms.
pub struct Subject {
    /// Its description.
    pub model: Model,
    network: Rc<Network>,
}

impl Subject {
    /// Builds the model.
    ///
    /// # Panics
    ///
    /// When its layers do not fit each other.
    pub fn new(model: Model) -> Self {
        let dtype = if model.tokens.is_some() { Dtype::I64 } else { Dtype::F32 };
        let built = |graph: Graph| Network::new(Arc::new(graph), 11, Device::Cpu).expect("the network is built");
        let mut network = match model.source {
            Source::Layers => {
                let layers = format!("layers = [{}]", model.layers);
                let options: ModelOptions = toml::from_str(&layers).unwrap_or_else(|error| panic!("{layers}: {error}"));
                built(options.lower(&model.sample_shape, dtype).unwrap_or_else(|error| panic!("{layers}: {error}")))
            }
            Source::Operators => built(of_operators(&model, dtype)),
            Source::Program => of_program(&model),
        };
        randomize(&mut network);
        Self { model, network: Rc::new(network) }
    }

    /// The graph for callbacks.
    pub fn graph(&self) -> plugin_api::graph::Graph {
        serde_json::from_value(self.graph_json()).expect("the SDK reads the host's graph")
    }

    fn graph_json(&self) -> serde_json::Value {
        let graph = self.network.graph().expect("the model is a graph");
        serde_json::to_value(graph.as_ref()).expect("a graph is JSON")
    }

    /// How often the values of a tensor of the model are in a file.
    ///
    /// # Panics
    ///
    /// When there is no such tensor or file.
    pub fn count_in(&self, file: &Path, tensor: &str) -> usize {
        let values = self.network.tensor(tensor).expect("a tensor").reshape([-1]);
        let values = Vec::<f32>::try_from(values.detach()).expect("numbers");
        let wanted: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let content = std::fs::read(file).expect("the file can be read");
        content.windows(wanted.len()).filter(|part| *part == wanted).count()
    }

    /// `batch` samples, always the same.
    pub fn inputs(&self, batch: i64) -> tch::Tensor {
        let shape: Vec<i64> = std::iter::once(batch).chain(self.model.sample_shape.iter().copied()).collect();
        let count: i64 = shape.iter().product();
        let numbers = tch::Tensor::arange(count, (Kind::Double, Device::Cpu));
        let values = match self.model.tokens {
            Some(tokens) => (numbers * 7919 + 13).remainder(tokens).to_kind(Kind::Int64),
            None => irregular(&numbers),
        };
        values.reshape(&shape)
    }

    /// What `batch` samples have beside them, always the same.
    pub fn others(&self, batch: i64) -> Vec<tch::Tensor> {
        let other = |other: &Other| {
            let shape: Vec<i64> = std::iter::once(batch).chain(other.sample_shape.iter().copied()).collect();
            let count: i64 = shape.iter().product();
            match other.values {
                Values::Numbers => irregular(&tch::Tensor::arange(count, (Kind::Double, Device::Cpu))).reshape(&shape),
                Values::Mask => {
                    let length = other.sample_shape[0];
                    let seen = (tch::Tensor::arange(batch, (Kind::Int64, Device::Cpu)) * 5).remainder(length) + 1;
                    let positions = tch::Tensor::arange(length, (Kind::Int64, Device::Cpu)).reshape([1, length]);
                    positions.lt_tensor(&seen.reshape([-1, 1])).to_kind(Kind::Int64)
                }
            }
        };
        self.model.others.iter().map(other).collect()
    }

    /// The model's output for `inputs`, and what [`Subject::others`] gives for as many.
    pub fn outputs(&self, inputs: &tch::Tensor) -> tch::Tensor {
        let others = self.others(inputs.size()[0]);
        self.computed(inputs, &others, &[]).expect("the model runs").output
    }

    fn computed(&self, inputs: &tch::Tensor, others: &[tch::Tensor], nodes: &[usize]) -> Result<Forwarded, ModelError> {
        let batch = ModelBatch { inputs, others, targets: None };
        tch::no_grad(|| self.network.compute(batch, Mode::Evaluate, nodes))
    }

    /// A run with this model: its graph, its weights, predictions, and splits `train` and `val` of `batches` batches of
    /// eight.
    ///
    /// # Errors
    ///
    /// The callback's error about its options.
    pub fn run<T: Callback>(&self, options: serde_json::Value, batches: i64) -> plugin_api::Result<FakeHost> {
        let samples = 8 * batches.max(0) as u64;
        let mut host = FakeHost::new::<T>(options)?.with_info(|info| {
            info.data.splits.extend(["train", "val"].map(|split| (split.to_owned(), samples)));
        });
        host.set_graph(self.graph_json());
        for (set, tensors) in
            [(TensorSet::Parameters, self.network.parameters()), (TensorSet::Buffers, self.network.buffers())]
        {
            for named in tensors {
                host.put_tensor(set.clone(), copy(&named.name, &named.tensor));
            }
        }
        let all = self.inputs(8 * batches.max(1));
        let batch = move |index: i64| all.narrow(0, 8 * index, 8);
        for index in 0..batches {
            let inputs = batch(index);
            let targets = self.outputs(&inputs);
            let others = self.model.others.iter().zip(self.others(8));
            let others: Vec<Tensor> = others.map(|(other, values)| copy(&other.name, &values)).collect();
            for split in ["train", "val"] {
                host.put_whole_batch(split, copy("inputs", &inputs), copy("targets", &targets), others.clone());
            }
        }
        let subject = Self { model: self.model.clone(), network: Rc::clone(&self.network) };
        host.answer_predict(move |request, inputs| {
            let (inputs, others) = match (&request.split, inputs) {
                (Some(_), _) => {
                    let count = (request.batches as i64).min(batches).max(1);
                    let inputs = tch::Tensor::cat(&(0..count).map(&batch).collect::<Vec<_>>(), 0);
                    let others = subject.others(inputs.size()[0]);
                    (inputs, others)
                }
                (None, [inputs, others @ ..]) => {
                    let others = others.iter().map(from_plugin).collect::<plugin_api::Result<Vec<_>>>()?;
                    (from_plugin(inputs)?, others)
                }
                (None, []) => return Err(plugin_api::Error::new("there are no inputs")),
            };
            let mut nodes = Vec::new();
            for name in &request.nodes {
                let index = subject.network.graph().map(|graph| graph.node_index(name));
                let index = index.map_err(|error| plugin_api::Error::new(error.to_string()))?;
                nodes.push(index.map_err(|error| plugin_api::Error::new(error.to_string()))?);
            }
            let computed = subject.computed(&inputs, &others, &nodes);
            let Forwarded { output: outputs, values, .. } =
                computed.map_err(|error| plugin_api::Error::new(error.to_string()))?;
            let mut answer = vec![copy("outputs", &outputs)];
            if request.split.is_some() {
                answer.push(copy("targets", &outputs));
            }
            answer.extend(request.nodes.iter().zip(&values).map(|(name, value)| copy(name, value)));
            Ok(answer)
        });
        Ok(host)
    }
}

/// The graph of a model of operators.
fn of_operators(model: &Model, dtype: Dtype) -> Graph {
    let mut builder = GraphBuilder::default();
    let mut last = "inputs".to_owned();
    builder.input(Input { name: last.clone(), shape: model.sample_shape.clone(), dtype }).expect("an input");
    let text = format!("operators = [{}]", model.layers);
    let table: toml::Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    for (number, operator) in table["operators"].as_array().expect("a list").iter().enumerate() {
        let mut attributes = operator.as_table().expect("an operator").clone();
        let name =
            attributes.remove("name").map_or_else(|| number.to_string(), |name| name.as_str().unwrap().to_owned());
        let reads = attributes.remove("reads");
        let op: Op = attributes.try_into().unwrap_or_else(|error| panic!("{operator}: {error}"));
        let reads = match &reads {
            Some(names) => names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect(),
            None if op.input_counts().1 == 0 => Vec::new(),
            None => vec![last.as_str()],
        };
        let made = builder.node(&LayerPath::default(), name.clone(), op, &reads, None);
        made.unwrap_or_else(|error| panic!("{operator}: {error}"));
        last = name;
    }
    builder.finish(&last).expect("a graph")
}

/// An exported program, whose graph computes what it does.
fn of_program(model: &Model) -> Network {
    let path = format!("{}/../figures/exported/{}.pt2", env!("CARGO_MANIFEST_DIR"), model.name);
    let kind = if model.tokens.is_some() { Kind::Int64 } else { Kind::Float };
    if model.others.is_empty() {
        let mut network = Network::exported(Path::new(&path), None, None, Device::Cpu).expect("a program");
        network.try_on((&model.sample_shape, kind)).expect("it runs");
        return network;
    }
    // A program may take labels, too, for its loss, and return that beside its output.
    let (samples, has_labels) = match model.name.as_str() {
        "masked_bert" => ("input_ids", true),
        _ => ("categories", false),
    };
    let labels = has_labels.then_some(("labels", "targets"));
    let arguments = [(samples, "inputs")].into_iter().chain(labels);
    let arguments = arguments.map(|(argument, input)| (argument.to_owned(), input.to_owned())).collect();
    let others = model.others.iter().map(|other| other.name.clone());
    let inputs: Vec<String> = std::iter::once("inputs".to_owned()).chain(others).collect();
    let targets = Some(BatchTargets { name: "targets", shape: &[], kind: Kind::Int64 });
    let interface =
        Interface { output: Some("logits"), gives_loss: false, arguments: &arguments, inputs: &inputs, targets };
    let network = Network::exported_with(Path::new(&path), None, &interface, Device::Cpu);
    let mut network = network.expect("a program");
    let others: Vec<(&[i64], Kind)> = model
        .others
        .iter()
        .map(|other| {
            let kind = if other.values == Values::Mask { Kind::Int64 } else { Kind::Float };
            (&other.sample_shape[..], kind)
        })
        .collect();
    network.try_on_all((&model.sample_shape, kind), &others, Some((&[], Kind::Int64))).expect("it runs");
    network
}

/// Numbers between -2 and 2.
fn irregular(numbers: &tch::Tensor) -> tch::Tensor {
    ((numbers * 12.9898 + 4.1).sin() * 43_758.545).frac().to_kind(Kind::Float) * 2.0
}

/// Gives every weight a value that reveals a wrong layout or a forgotten weight.
fn randomize(network: &mut Network) {
    let names: Vec<(String, Vec<i64>, Kind)> = network
        .parameters()
        .iter()
        .chain(network.buffers())
        .map(|named| (named.name.clone(), named.tensor.size(), named.tensor.kind()))
        .collect();
    for (number, (name, shape, kind)) in names.into_iter().enumerate() {
        if kind != Kind::Float {
            continue;
        }
        let count = shape.iter().product::<i64>();
        let numbers = tch::Tensor::arange(count, (Kind::Double, Device::Cpu)) + 1000.0 * number as f64;
        let noise = ((numbers * 78.233 + 1.7).sin() * 43_758.545).frac().to_kind(Kind::Float).reshape(&shape);
        let fan_in = (count / shape.first().copied().unwrap_or(1).max(1)).max(1) as f64;
        let value = match name.rsplit('.').next() {
            Some("running_var") => noise.abs() + 0.5,
            // The scale of a norm.
            Some("weight") if shape.len() == 1 => noise * 0.3 + 1.0,
            Some("weight") => noise * (2.0 / fan_in.sqrt()),
            _ => noise * 0.4,
        };
        network.write(&name, &value).expect("the value fits");
    }
}

fn copy(name: &str, tensor: &tch::Tensor) -> Tensor {
    let (shape, flat) = (tensor.size(), tensor.detach().reshape([-1]));
    let made = match tensor.kind() {
        Kind::Int64 => Tensor::new(name, &shape, &Vec::<i64>::try_from(flat).expect("integers")),
        _ => Tensor::new(name, &shape, &Vec::<f32>::try_from(flat.to_kind(Kind::Float)).expect("numbers")),
    };
    made.expect("the shape is that of the values")
}

fn from_plugin(tensor: &Tensor) -> plugin_api::Result<tch::Tensor> {
    let view = tensor.view();
    let flat = match view.as_slice::<f32>() {
        Ok(values) => tch::Tensor::from_slice(values),
        Err(_) => tch::Tensor::from_slice(view.as_slice::<i64>()?),
    };
    Ok(flat.reshape(view.shape()))
}
