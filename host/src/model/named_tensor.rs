//! A tensor of a model, with its name.

use tch::Tensor;

/// A parameter or buffer with its name; `<node>.<tensor>` in a graph.
#[derive(Debug)]
pub struct NamedTensor {
    /// Its name.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
}
