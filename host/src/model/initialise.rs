//! The values that a model starts from.

use tch::{Device, Kind, Tensor};

use super::{
    error::ModelError,
    graph::Graph,
    network::NamedTensor,
    op::{Dtype, Initialisation, OwnedTensor},
};
use crate::torch::random::Generator;

/// The parameters and buffers of a graph, in the order of its nodes, on `device`.
///
/// Random values are drawn on the CPU, node by node, from a generator that starts at `seed`: they are those that
/// PyTorch gives to the same layers after `torch.manual_seed(seed)`, on every device.
pub(super) fn initialise(
    graph: &Graph,
    seed: u64,
    device: Device,
) -> Result<(Vec<NamedTensor>, Vec<NamedTensor>), ModelError> {
    let mut generator = Generator::new(seed)?;
    let mut parameters = Vec::new();
    let mut buffers = Vec::new();
    for node in graph.nodes() {
        for (specification, owned) in node.parameters.iter().zip(node.op.parameters()) {
            let tensor = start(&owned, &mut generator)?.f_to_device(device)?;
            parameters
                .push(NamedTensor { name: specification.name.clone(), tensor: tensor.f_set_requires_grad(true)? });
        }
        for (specification, owned) in node.buffers.iter().zip(node.op.buffers()) {
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
    match owned.initialisation {
        Initialisation::Uniform { bound } => Ok(generator.uniform(&owned.shape, -bound, bound)?),
        Initialisation::Constant(value) => Ok(Tensor::f_full(&owned.shape, value, (kind, Device::Cpu))?),
    }
}
