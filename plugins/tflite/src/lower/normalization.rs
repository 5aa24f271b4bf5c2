//! Norms of each sample, which the runtime has no operators for.

use plugin_api::graph::Node;

use super::recipe::{named, whole};
use super::{Lowering, Value};
use crate::builtin::{Builtin, Scalar};
use crate::layout::Layout;
use crate::program::TensorId;

impl Lowering<'_> {
    fn mean(&mut self, input: TensorId, axes: &[usize]) -> TensorId {
        let mut shape = self.program.shape(input).to_vec();
        for axis in axes {
            shape[*axis] = 1;
        }
        let axes: Vec<i32> = axes.iter().map(|axis| *axis as i32).collect();
        let axes = self.program.integers(&axes);
        self.program.apply(Builtin::Mean, &[(0, Scalar::Bool(true))], &[input, axes], &shape)
    }

    /// `input` divided by the root of the mean of its squares along `axes`; its mean is subtracted first if
    /// `is_centered`.
    fn standardized(&mut self, input: TensorId, axes: &[usize], eps: f64, is_centered: bool) -> TensorId {
        let (centered, squares) = if is_centered {
            let mean = self.mean(input, axes);
            let centered = self.program.binary(Builtin::Sub, input, mean);
            (centered, self.program.binary(Builtin::SquaredDifference, input, mean))
        } else {
            (input, self.program.binary(Builtin::Mul, input, input))
        };
        let variance = self.mean(squares, axes);
        let eps = self.program.numbers(&[1], vec![eps as f32]);
        let variance = self.program.binary(Builtin::Add, variance, eps);
        let inverse = self.program.unary(Builtin::Rsqrt, &[], variance);
        self.program.binary(Builtin::Mul, centered, inverse)
    }

    /// Also the norm by the root of the mean square, which is not centered and has no bias.
    pub(super) fn layer_norm(
        &mut self,
        node: &Node,
        input: &Value,
        normalized: &[i64],
        eps: f64,
        is_centered: bool,
    ) -> (TensorId, Layout) {
        let rank = input.shape.len();
        let tensor = self.plain(input);
        let axes: Vec<usize> = (rank + 1 - normalized.len()..=rank).collect();
        let mut output = self.standardized(tensor, &axes, eps, is_centered);
        let shape: Vec<i32> = normalized.iter().map(|length| *length as i32).collect();
        let count = normalized.iter().product();
        let weight = self.program.weight(&shape, whole(named(node, "weight"), count));
        output = self.program.binary(Builtin::Mul, output, weight);
        if is_centered {
            let bias = self.program.weight(&shape, whole(named(node, "bias"), count));
            output = self.program.binary(Builtin::Add, output, bias);
        }
        (output, Layout::plain(rank))
    }

    pub(super) fn group_norm(&mut self, node: &Node, input: &Value, groups: i64, eps: f64) -> (TensorId, Layout) {
        let channels = input.shape.first().copied().unwrap_or(1);
        let positions = input.shape.iter().skip(1).product::<i64>() as i32;
        let (each, groups) = ((channels / groups) as i32, groups as i32);
        let is_last = matches!(&input.layout, Layout::Order(order) if order.last() == Some(&0));
        let (tensor, layout, grouped, axes, parameters) = if is_last {
            let grouped = vec![1, positions, groups, each];
            (input.tensor, input.layout.clone(), grouped, vec![1, 3], vec![channels as i32])
        } else {
            let rank = input.shape.len();
            let parameters = std::iter::once(channels as i32).chain(std::iter::repeat_n(1, rank - 1)).collect();
            (self.plain(input), Layout::plain(rank), vec![1, groups, each * positions], vec![2], parameters)
        };
        let shape = self.program.shape(tensor).to_vec();
        let grouped = self.program.reshape(tensor, &grouped);
        let normal = self.standardized(grouped, &axes, eps, true);
        let normal = self.program.reshape(normal, &shape);
        let weight = self.program.weight(&parameters, whole(named(node, "weight"), channels));
        let bias = self.program.weight(&parameters, whole(named(node, "bias"), channels));
        let scaled = self.program.binary(Builtin::Mul, normal, weight);
        (self.program.binary(Builtin::Add, scaled, bias), layout)
    }
}
