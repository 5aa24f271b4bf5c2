//! The initial values of a model.

use std::collections::HashSet;

use tch::{Device, Kind, Tensor};

use super::{
    error::ModelError,
    graph::Graph,
    named_tensor::NamedTensor,
    op::{Dtype, Initialization, OwnedTensor, OwnedTensors, is_weight},
};
use crate::torch::random::Generator;

/// The parameters and buffers of a graph, in the order of its nodes, on `device`.
///
/// Random values are drawn on the CPU, node by node, from a generator with the seed `seed`. They are the values of the
/// same layers in PyTorch after `torch.manual_seed(seed)`, on every device.
pub(super) fn initialize(
    graph: &Graph,
    seed: u64,
    device: Device,
) -> Result<(Vec<NamedTensor>, Vec<NamedTensor>), ModelError> {
    let mut generator = Generator::new(seed)?;
    let mut parameters = Vec::new();
    let mut buffers = Vec::new();
    // A tensor that nodes share starts as that of the first.
    let mut names = HashSet::new();
    for node in graph.nodes() {
        let mut owned = node.op.parameters();
        if let Some(initialization) = node.initialization {
            for tensor in owned.iter_mut().filter(|tensor| is_weight(tensor)) {
                tensor.initialization = initialization.of(&tensor.shape);
            }
        }
        // Drawn in PyTorch's order, which is not always that of the state dict.
        let mut drawn: Vec<(usize, &OwnedTensor)> = owned.iter().enumerate().collect();
        drawn.sort_by_key(|(_, tensor)| tensor.is_drawn_last);
        let mut started = drawn
            .into_iter()
            .map(|(place, tensor)| Ok((place, start(tensor, &mut generator)?)))
            .collect::<Result<Vec<_>, ModelError>>()?;
        started.sort_by_key(|(place, _)| *place);
        for (specification, (_, tensor)) in node.parameters.iter().zip(started) {
            if !names.insert(&specification.name) {
                continue;
            }
            let tensor = tensor.f_to_device(device)?.f_set_requires_grad(true)?;
            parameters.push(NamedTensor { name: specification.name.clone(), tensor });
        }
        for (specification, owned) in node.buffers.iter().zip(node.op.buffers()) {
            if !names.insert(&specification.name) {
                continue;
            }
            buffers.push(NamedTensor {
                name: specification.name.clone(),
                tensor: start(&owned, &mut generator)?.f_to_device(device)?,
            });
        }
    }
    Ok((parameters, buffers))
}

fn start(owned: &OwnedTensor, generator: &mut Generator) -> Result<Tensor, ModelError> {
    let kind = match owned.dtype {
        Dtype::F32 => Kind::Float,
        Dtype::I64 => Kind::Int64,
    };
    match owned.initialization {
        Initialization::Uniform { bound } => Ok(generator.uniform(&owned.shape, -bound, bound)?),
        Initialization::Normal { std } => Ok(generator.normal(&owned.shape, std)?),
        Initialization::Constant(value) => Ok(Tensor::f_full(&owned.shape, value, (kind, Device::Cpu))?),
        Initialization::DrawnConstant(value) => {
            let _drawn = generator.uniform(&owned.shape, 0.0, 1.0)?;
            Ok(Tensor::f_full(&owned.shape, value, (kind, Device::Cpu))?)
        }
    }
}
