//! The model: a graph of named nodes that the run file's layers are lowered to, and the network that executes it.
//!
//! One [`Graph`] has three readers: [`Network`] runs it, exporters read it over the plugin interface, and the host
//! prints it. It does not depend on a tensor library; `network` and `execute` do. A network may also be a program's own
//! forward pass ([`Network::custom`]) or a TorchScript module ([`Network::torchscript`]), which have no graph, or an
//! exported program ([`Network::exported`]), which one may describe.
//!
//! To add a layer: a variant in [`Layer`] and its arm in `lower`, a variant in [`Op`] with its shape, parameters and
//! cost, and its arm in `execute`.

mod batch;
mod chain;
mod custom;
mod error;
mod execute;
mod exported;
mod files;
mod frozen;
mod graph;
mod initial_weights;
mod initialize;
mod layers;
mod lora;
mod named_tensor;
mod network;
mod op;
mod program;
#[cfg(test)]
mod reference;
mod script_code;
mod torchscript;

pub use batch::{Forwarded, ModelBatch};
pub(crate) use custom::contained;
pub use custom::{BoxError, variables};
pub use error::{LayerPath, ModelError};
pub use execute::Mode;
pub use exported::ExportedModelError;
pub use files::ModelFile;
pub use frozen::Frozen;
pub use graph::{Graph, GraphBuilder, Node};
pub use initial_weights::{InitFrom, InitFromTable, InitialWeights, Mismatch, ModelTensor, WeightsError};
pub use layers::{Combine, Layer, ModelOptions, Size2d};
pub(crate) use lora::{Layout, Roles};
pub use lora::{Lora, LoraError, LoraOptions};
pub use named_tensor::NamedTensor;
pub use network::Network;
pub use op::{
    Comparison, Dtype, GeluApproximation, Initialization, Input, Op, Recurrent, TensorSpec, UpsampleMode,
    WeightInitialization,
};
pub use program::{BatchTargets, Interface};
pub use torchscript::TorchScriptError;
