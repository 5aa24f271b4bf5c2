//! Sums, products, powers and means.

use plugin_api::graph::{Node, Op};
use plugin_api::{Error, Result};

use super::{Lowering, Value, memory_shape};
use crate::builtin::{Builtin, Scalar};
use crate::layout::Layout;
use crate::program::TensorId;

impl Lowering<'_> {
    /// Two values, element by element; they are aligned at their last dimension.
    pub(super) fn combine(&mut self, node: &Node, inputs: &[Value]) -> Result<(TensorId, Layout)> {
        let rank = node.shape.len();
        let inputs: Vec<Value> = inputs.iter().map(|input| self.of_rank(input, rank)).collect();
        let (tensors, layout) = self.in_common(&inputs);
        let [mut left, mut right] = tensors[..] else { return Err(Error::new("needs two values")) };
        let builtin = match node.op {
            Op::Add => Builtin::Add,
            Op::Subtract => Builtin::Sub,
            Op::Multiply => Builtin::Mul,
            _ => Builtin::Div,
        };
        // The second one is broadcast to the first, where their order does not matter.
        if let [one, other] = &inputs[..]
            && matches!(builtin, Builtin::Add | Builtin::Mul)
            && one.shape.iter().zip(&other.shape).any(|(length, other)| length < other)
        {
            (left, right) = (right, left);
        }
        let shape = match &layout {
            Layout::Order(_) => memory_shape(&node.shape, &layout)?,
            Layout::Flat { .. } => self.program.shape(left).to_vec(),
        };
        Ok((self.program.apply(builtin, &[], &[left, right], &shape), layout))
    }

    /// A value of samples of `rank` dimensions, of which the first may be of length 1.
    pub(super) fn of_rank(&mut self, value: &Value, rank: usize) -> Value {
        if value.shape.len() >= rank {
            return value.clone();
        }
        let ones = std::iter::repeat_n(1, rank - value.shape.len());
        let shape: Vec<i64> = ones.chain(value.shape.iter().copied()).collect();
        let tensor = self.plain(value);
        let memory: Vec<i32> = std::iter::once(1).chain(shape.iter().map(|length| *length as i32)).collect();
        let tensor = self.program.reshape(tensor, &memory);
        Value { tensor, shape, layout: Layout::plain(rank), ..value.clone() }
    }

    /// A value and a number.
    pub(super) fn with_number(&mut self, builtin: Builtin, input: TensorId, number: f64) -> TensorId {
        let number = self.program.numbers(&[1], vec![number as f32]);
        self.program.binary(builtin, input, number)
    }

    /// A power: small whole ones as products, since the runtime's operator is slow and less precise.
    pub(super) fn power(&mut self, input: TensorId, exponent: f64) -> TensorId {
        if exponent == 2.0 || exponent == 3.0 {
            let square = self.program.binary(Builtin::Mul, input, input);
            return if exponent == 2.0 { square } else { self.program.binary(Builtin::Mul, square, input) };
        }
        if exponent == 0.5 {
            return self.program.unary(Builtin::Sqrt, &[], input);
        }
        if exponent == -0.5 {
            return self.program.unary(Builtin::Rsqrt, &[], input);
        }
        if exponent == -1.0 {
            let one = self.program.numbers(&[1], vec![1.0]);
            let shape = self.program.shape(input).to_vec();
            return self.program.apply(Builtin::Div, &[], &[one, input], &shape);
        }
        self.with_number(Builtin::Pow, input, exponent)
    }

    /// Limits: those of a ReLU by its operator.
    pub(super) fn clamp(&mut self, input: TensorId, least: Option<f64>, most: Option<f64>) -> TensorId {
        if least == Some(0.0) && most == Some(6.0) {
            return self.program.unary(Builtin::Relu6, &[], input);
        }
        let mut value = input;
        if let Some(least) = least {
            value = self.with_number(Builtin::Maximum, value, least);
        }
        if let Some(most) = most {
            value = self.with_number(Builtin::Minimum, value, most);
        }
        value
    }

    /// A mean over dimensions.
    pub(super) fn mean_over(
        &mut self,
        node: &Node,
        input: &Value,
        dims: &[usize],
        keepdim: bool,
    ) -> Result<(TensorId, Layout)> {
        let layout = Layout::plain(node.shape.len());
        let shape = memory_shape(&node.shape, &layout)?;
        let input = self.plain(input);
        let axes: Vec<i32> = dims.iter().map(|dim| *dim as i32 + 1).collect();
        let axes = self.program.integers(&axes);
        let output = self.program.apply(Builtin::Mean, &[(0, Scalar::Bool(keepdim))], &[input, axes], &shape);
        Ok((output, layout))
    }

    /// The product of matrices.
    pub(super) fn matmul(&mut self, node: &Node, inputs: &[Value]) -> Result<(TensorId, Layout)> {
        let [left, right] = inputs else { return Err(Error::new("needs two values")) };
        let layout = Layout::plain(node.shape.len());
        let shape = memory_shape(&node.shape, &layout)?;
        let (left, right) = (self.plain(left), self.plain(right));
        Ok((self.program.apply(Builtin::BatchMatmul, &[], &[left, right], &shape), layout))
    }
}
