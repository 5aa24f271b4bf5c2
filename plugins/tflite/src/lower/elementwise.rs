//! Activations: part of the operator before them if the runtime supports it, in any layout.

use plugin_api::graph::{GeluApproximation, Op};
use plugin_api::{Error, Result};

use super::{Lowering, Value};
use crate::builtin::{Activation, Builtin, Scalar};
use crate::layout::Layout;
use crate::program::TensorId;

impl Lowering<'_> {
    pub(super) fn activation(&mut self, op: &Op, input: &Value) -> Result<TensorId> {
        let tensor = input.tensor;
        Ok(match op {
            Op::Relu => {
                if !input.is_shared && self.fuse_relu(tensor) {
                    return Ok(tensor);
                }
                self.program.unary(Builtin::Relu, &[], tensor)
            }
            Op::LeakyRelu { negative_slope } => {
                self.program.unary(Builtin::LeakyRelu, &[(0, Scalar::F32(*negative_slope as f32))], tensor)
            }
            Op::Elu { alpha } => self.elu(tensor, *alpha as f32),
            Op::HardSwish => self.program.unary(Builtin::HardSwish, &[], tensor),
            // The runtime has no such operator: a sum that is limited to 0 and 6, and a sixth of it.
            Op::HardSigmoid => {
                let three = self.program.numbers(&[1], vec![3.0]);
                let limited = self.program.binary(Builtin::Add, tensor, three);
                self.limit(limited);
                let sixth = self.program.numbers(&[1], vec![1.0 / 6.0]);
                self.program.binary(Builtin::Mul, limited, sixth)
            }
            Op::Gelu { approximate } => {
                let is_tanh = *approximate == GeluApproximation::Tanh;
                self.program.unary(Builtin::Gelu, &[(0, Scalar::Bool(is_tanh))], tensor)
            }
            Op::Silu => {
                let gate = self.program.unary(Builtin::Logistic, &[], tensor);
                self.program.binary(Builtin::Mul, tensor, gate)
            }
            Op::Tanh => self.program.unary(Builtin::Tanh, &[], tensor),
            Op::Sigmoid => self.program.unary(Builtin::Logistic, &[], tensor),
            _ => return Err(Error::new("is not an activation")),
        })
    }

    /// Makes a ReLU part of the operator that computes the tensor; a reshape between them does not matter.
    fn fuse_relu(&mut self, tensor: TensorId) -> bool {
        let mut given = tensor;
        loop {
            let is_read_again = self.reads(given) > usize::from(given != tensor);
            let Some(place) = self.program.producer(given).filter(|_| !is_read_again) else { return false };
            let operator = &mut self.program.operators[place];
            match (operator.builtin, operator.inputs.first()) {
                (Builtin::Reshape, Some(Some(source))) => given = *source,
                (builtin, _) if builtin.activation_slot().is_some() && operator.activation == Activation::None => {
                    operator.activation = Activation::Relu;
                    return true;
                }
                _ => return false,
            }
        }
    }

    /// Limits the result of the operator that computes the tensor to 0 and 6.
    fn limit(&mut self, tensor: TensorId) {
        if let Some(place) = self.program.producer(tensor) {
            self.program.operators[place].activation = Activation::Relu6;
        }
    }

    fn reads(&self, tensor: TensorId) -> usize {
        self.program.operators.iter().filter(|operator| operator.inputs.contains(&Some(tensor))).count()
    }

    /// The runtime's ELU has no α: `α · elu(x) + (1 − α) · relu(x)`.
    fn elu(&mut self, tensor: TensorId, alpha: f32) -> TensorId {
        let elu = self.program.unary(Builtin::Elu, &[], tensor);
        if alpha == 1.0 {
            return elu;
        }
        let factor = self.program.numbers(&[1], vec![alpha]);
        let scaled = self.program.binary(Builtin::Mul, elu, factor);
        let relu = self.program.unary(Builtin::Relu, &[], tensor);
        let rest = self.program.numbers(&[1], vec![1.0 - alpha]);
        let rest = self.program.binary(Builtin::Mul, relu, rest);
        self.program.binary(Builtin::Add, scaled, rest)
    }

    /// The runtime's softmax is over the last dimension in memory.
    pub(super) fn softmax(&mut self, input: &Value, dim: usize) -> (TensorId, Layout) {
        let (tensor, layout) = match &input.layout {
            Layout::Order(order) if order.last() != Some(&dim) => {
                let order: Vec<usize> = (0..order.len()).filter(|other| *other != dim).chain([dim]).collect();
                (self.ordered(input, &order), Layout::Order(order))
            }
            layout => (input.tensor, layout.clone()),
        };
        (self.program.unary(Builtin::Softmax, &[(0, Scalar::F32(1.0))], tensor), layout)
    }
}
