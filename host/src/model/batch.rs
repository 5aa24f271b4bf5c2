//! What a model computes with, and what it gives.

use tch::Tensor;

/// What a model computes with: the inputs of a batch on its device, and the targets for a program that takes them.
#[derive(Clone, Copy, Debug)]
pub struct ModelBatch<'a> {
    /// The samples, `[batch, …sample shape]`.
    pub inputs: &'a Tensor,
    /// The inputs beside them, in the order of the data's.
    pub others: &'a [Tensor],
    /// The targets. Without them, a program that takes them is given zeros.
    pub targets: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for ModelBatch<'a> {
    fn from(inputs: &'a Tensor) -> Self {
        Self { inputs, others: &[], targets: None }
    }
}

/// What a model gives for a batch.
#[derive(Debug)]
pub struct Forwarded {
    /// The output, whose first dimension is the batch.
    pub output: Tensor,
    /// The mean loss of the batch, a scalar, of a program that gives its own and is asked for it.
    pub loss: Option<Tensor>,
    /// The values of the nodes that were asked for, in that order.
    pub values: Vec<Tensor>,
}
