//! The operators of a graph, a closed set that plugins know too: the output shape, parameters and cost of each.

mod cost;
mod shape;
mod tensors;

pub(super) use cost::{Cost, element_count};
pub use plugin_api::graph::{Comparison, Dtype, GeluApproximation, Input, Op, Recurrent, TensorSpec, UpsampleMode};
pub(super) use shape::{Misfit, OutputShape};
pub use tensors::{Initialization, WeightInitialization};
pub(super) use tensors::{OwnedTensor, OwnedTensors, is_weight};
