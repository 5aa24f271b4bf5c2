//! What a model gives for inputs of a callback or for a split, and the batches of a split: on the training thread with the model
//! itself, in the background with the weights that a snapshot holds.

use std::sync::Arc;

use plugin_api::TensorView;
use plugin_api::abi::TensorTable;
use plugin_api::protocol::requests::{BatchRequest, Predict};
use tch::{Device, Tensor};

use super::super::error::TrainError;
use super::super::feed::in_order;
use super::super::learner::infer;
use super::super::session::Session;
use super::tensors::{borrowed, lend, named_batch};
use crate::data::{Data, SampleType};
use crate::model::{Graph, Lora, ModelBatch, NamedTensor, Network};
use crate::services::{Inference, Reply, ServiceError, SharedTensor};
use crate::torch::products::{self, Products};

/// A model, and the data that it takes.
struct Predictor<'a> {
    network: &'a Network,
    data: &'a Data,
    /// Samples of a batch where a split is predicted.
    batch_size: usize,
}

impl Session {
    pub(super) fn predict(
        &self,
        request: &Predict,
        inputs: &[TensorTable],
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        let (network, data) = (&self.learner.network, &*self.feed.data);
        Predictor { network, data, batch_size: self.inference_batch_size() }.answer(request, inputs, reply)
    }

    /// A batch of a split, in the split's own order and of the training's batch size.
    pub(super) fn batch(&self, request: &BatchRequest, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        batch(&self.feed.data, self.feed.batches.size, self.learner.network.device(), request, reply)
    }

    pub(super) fn inference_batch_size(&self) -> usize {
        self.evaluations.repeated.as_ref().map_or(self.feed.batches.size, |plan| plan.batch_size)
    }

    /// What answers for the model and the data in the background.
    pub(super) fn inference(&self) -> Arc<dyn Inference> {
        Arc::new(Apart {
            graph: self.learner.network.graph().ok().cloned(),
            lora: self.learner.network.lora().cloned(),
            data: Arc::clone(&self.feed.data),
            inference_batch_size: self.inference_batch_size(),
            training_batch_size: self.feed.batches.size,
            products: self.products.current(),
        })
    }
}

/// The model and the data apart from the training: on any thread, on the CPU. Of an exported program, which belongs to the
/// training thread, the graph is executed: its outputs may differ from the program's in the last bits.
struct Apart {
    graph: Option<Arc<Graph>>,
    lora: Option<Arc<Lora>>,
    data: Arc<Data>,
    inference_batch_size: usize,
    training_batch_size: usize,
    products: Products,
}

impl Inference for Apart {
    fn predict(
        &self,
        request: &Predict,
        inputs: &[TensorTable],
        [parameters, buffers]: [&[SharedTensor]; 2],
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        let Some(graph) = &self.graph else {
            return Err(ServiceError::NotAllowed(
                "a model without a graph predicts on the training thread only: set `dispatch = \"inline\"` for this callback"
                    .to_owned(),
            ));
        };
        let _products = products::enter(self.products).map_err(TrainError::from)?;
        // Nothing is copied but adapted weights: the network is a view of the snapshot's tensors, which nobody writes.
        let mut tensors = views(parameters.iter().chain(buffers))?;
        if let Some(lora) = &self.lora {
            tensors = lora.merged(tensors, &[]).map_err(TrainError::from)?;
        }
        let tensors = tensors.into_iter().map(|(name, tensor)| NamedTensor { name, tensor }).collect();
        let network = Network::over(Arc::clone(graph), tensors, Device::Cpu).map_err(TrainError::from)?;
        let predictor = Predictor { network: &network, data: &self.data, batch_size: self.inference_batch_size };
        predictor.answer(request, inputs, reply)
    }

    fn batch(&self, request: &BatchRequest, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        batch(&self.data, self.training_batch_size, Device::Cpu, request, reply)
    }
}

fn views<'t>(tensors: impl Iterator<Item = &'t SharedTensor>) -> Result<Vec<(String, Tensor)>, ServiceError> {
    tensors.map(|shared| Ok((shared.name().to_owned(), shared.with_table(borrowed)?))).collect()
}

impl Predictor<'_> {
    fn answer(&self, request: &Predict, inputs: &[TensorTable], reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        let nodes = request.nodes.iter().map(|name| self.node(name)).collect::<Result<Vec<_>, _>>()?;
        let mut outputs = Vec::new();
        let mut targets = Vec::new();
        let mut values: Vec<Vec<Tensor>> = Vec::new();
        match (&request.split, inputs) {
            (Some(split), _) => {
                known_split(self.data, split)?;
                let mut loader = in_order(self.data, split, self.batch_size)?;
                let batches = request.batches.min(loader.batches_per_epoch() as u64);
                for _ in 0..batches {
                    let batch = loader.next_batch().map_err(TrainError::from)?.batch;
                    let inputs = self.to_device(batch.inputs)?;
                    let others = batch.others.into_iter().map(|other| self.to_device(other));
                    let others = others.collect::<Result<Vec<_>, _>>()?;
                    let given = self.to_device(batch.targets)?;
                    let batch = ModelBatch { inputs: &inputs, others: &others, targets: Some(&given) };
                    let computed = infer(self.network, batch, &nodes)?;
                    outputs.push(computed.output);
                    targets.push(given);
                    values.push(computed.values);
                }
            }
            (None, given) => {
                let (inputs, others) = self.given(given)?;
                let batch = ModelBatch { inputs: &inputs, others: &others, targets: None };
                let computed = infer(self.network, batch, &nodes)?;
                outputs.push(computed.output);
                values.push(computed.values);
            }
        }
        if outputs.is_empty() {
            return Err(ServiceError::Failed("the request has no batches".to_owned()));
        }
        let join = |parts: &[Tensor]| Tensor::f_cat(parts, 0).map_err(TrainError::from);
        lend("outputs".to_owned(), join(&outputs)?, reply)?;
        if !targets.is_empty() {
            lend("targets".to_owned(), join(&targets)?, reply)?;
        }
        for (index, name) in request.nodes.iter().enumerate() {
            let parts: Vec<Tensor> = values.iter().map(|tapped| tapped[index].shallow_clone()).collect();
            lend(name.clone(), join(&parts)?, reply)?;
        }
        Ok(())
    }

    /// The samples and the other inputs that a request gives: one tensor, whatever its name, or each by its name.
    fn given(&self, tables: &[TensorTable]) -> Result<(Tensor, Vec<Tensor>), ServiceError> {
        let names = self.data.input_names();
        if let ([inputs], [_]) = (tables, &names[..]) {
            let inputs = self.to_device(borrowed(inputs)?)?;
            check_input(&names[0], (&self.data.sample_shape, self.data.sample_type), &inputs)?;
            return Ok((inputs, Vec::new()));
        }
        let wanted = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if tables.len() != names.len() {
            return Err(ServiceError::Failed(match names.len() {
                1 => "the request needs one tensor of inputs, or a split".to_owned(),
                count => format!(
                    "the model takes {count} inputs, {wanted}, and the request has {}: give each by its name, or a split",
                    tables.len()
                ),
            }));
        }
        let specs = std::iter::once((self.data.sample_shape.as_slice(), self.data.sample_type))
            .chain(self.data.others.iter().map(|other| (other.shape.as_slice(), other.dtype)));
        let mut found = Vec::new();
        for (name, spec) in names.iter().zip(specs) {
            // SAFETY: the plugin's table is valid until the call returns.
            let is_named = |table: &&TensorTable| unsafe { TensorView::from_table(**table) }.name() == name;
            let table = tables.iter().find(is_named);
            let table = table
                .ok_or_else(|| ServiceError::Failed(format!("the model takes {wanted}, and `{name}` is missing")))?;
            let input = self.to_device(borrowed(table)?)?;
            check_input(name, spec, &input)?;
            found.push(input);
        }
        let others = found.split_off(1);
        let inputs = found.pop().ok_or_else(|| ServiceError::Failed("the request has no inputs".to_owned()))?;
        Ok((inputs, others))
    }

    fn node(&self, name: &str) -> Result<usize, ServiceError> {
        let graph = self.network.graph().map_err(TrainError::from)?;
        graph.nodes().iter().position(|node| node.name == name).ok_or_else(|| {
            ServiceError::no_such_name("node", name, graph.nodes().iter().map(|node| node.name.as_str()))
        })
    }

    fn to_device(&self, tensor: Tensor) -> Result<Tensor, TrainError> {
        on_device(tensor, self.network.device())
    }
}

fn on_device(tensor: Tensor, device: Device) -> Result<Tensor, TrainError> {
    if tensor.device() == device { Ok(tensor) } else { Ok(tensor.f_to_device(device)?) }
}

fn batch(
    data: &Data,
    size: usize,
    device: Device,
    request: &BatchRequest,
    reply: &mut Reply<'_>,
) -> Result<(), ServiceError> {
    known_split(data, &request.split)?;
    let split = data.split(&request.split).map_err(TrainError::from)?;
    let size = size as u64;
    let begin = request.index.saturating_mul(size).min(split.len() as u64);
    let end = begin.saturating_add(size).min(split.len() as u64);
    if begin == end {
        return Err(ServiceError::Failed(format!(
            "the split `{}` has {} batches, none of index {}",
            request.split,
            (split.len() as u64).div_ceil(size),
            request.index
        )));
    }
    let indices: Vec<u32> = (begin as u32..end as u32).collect();
    let batch = split.gather(&indices).map_err(TrainError::from)?;
    let (inputs, targets) = (on_device(batch.inputs, device)?, on_device(batch.targets, device)?);
    // Libraries that know of two tensors only do not ask for the others.
    let others = match request.all {
        true => batch.others.into_iter().map(|other| on_device(other, device)).collect::<Result<Vec<_>, _>>()?,
        false => Vec::new(),
    };
    for (name, tensor) in named_batch(&data.input_names(), [&inputs, &targets], &others) {
        lend(name, tensor, reply)?;
    }
    Ok(())
}

/// Refuses a split that the data does not have.
pub(super) fn known_split(data: &Data, split: &str) -> Result<(), ServiceError> {
    match data.splits.contains_key(split) {
        true => Ok(()),
        false => Err(ServiceError::no_such_name("split", split, data.splits.keys().map(String::as_str))),
    }
}

/// Whether the input called `name`, of this shape for a sample and this dtype, is what a tensor is.
fn check_input(name: &str, (shape, dtype): (&[i64], SampleType), given: &Tensor) -> Result<(), ServiceError> {
    let size = given.size();
    if given.kind() == dtype.kind() && size.len() == shape.len() + 1 && size[1..] == *shape {
        return Ok(());
    }
    let dtype = match dtype {
        SampleType::F32 => "f32",
        SampleType::I64 => "i64",
        SampleType::Bool => "bool",
    };
    let wanted: Vec<String> =
        std::iter::once("batch".to_owned()).chain(shape.iter().map(ToString::to_string)).collect();
    Err(ServiceError::Failed(format!(
        "`{name}` is {dtype} of the shape [{}] for the model, and it is given {:?} of the shape {size:?}",
        wanted.join(", "),
        given.kind()
    )))
}
