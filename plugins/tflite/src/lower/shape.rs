//! Operators that only move values: none at all if the next one can read them as they are.

use plugin_api::graph::{Node, Op, UpsampleMode};
use plugin_api::{Error, Result};

use super::{Lowering, Value};
use crate::builtin::{Builtin, Scalar};
use crate::layout::Layout;
use crate::program::TensorId;

impl Lowering<'_> {
    pub(super) fn flatten(&mut self, input: &Value) -> (TensorId, Layout) {
        let elements = input.shape.iter().product::<i64>() as i32;
        match &input.layout {
            Layout::Flat { .. } => (input.tensor, input.layout.clone()),
            Layout::Order(order) => {
                let tensor = self.program.reshape(input.tensor, &[1, elements]);
                let long: Vec<usize> = order.iter().copied().filter(|dim| input.shape[*dim] != 1).collect();
                if long.is_sorted() {
                    return (tensor, Layout::plain(1));
                }
                (tensor, Layout::Flat { shape: input.shape.clone(), order: order.clone() })
            }
        }
    }

    /// Nothing moves: only the names of the dimensions change.
    pub(super) fn permute(&mut self, input: &Value, dims: &[usize]) -> (TensorId, Layout) {
        match &input.layout {
            Layout::Flat { .. } => (input.tensor, input.layout.clone()),
            Layout::Order(order) => {
                let renamed = |dim: &usize| dims.iter().position(|other| other == dim).unwrap_or(0);
                (input.tensor, Layout::Order(order.iter().map(renamed).collect()))
            }
        }
    }

    /// Pixels are areas: the center of one is never between two, whatever the rounding.
    pub(super) fn upsample(&mut self, node: &Node, input: &Value, mode: UpsampleMode) -> (TensorId, Layout) {
        let image = self.image(input);
        let [channels, height, width] = [0, 1, 2].map(|dim| node.shape.get(dim).copied().unwrap_or(1) as i32);
        let size = self.program.integers(&[height, width]);
        let shape = [1, height, width, channels];
        let output = match mode {
            UpsampleMode::Nearest => {
                let options = [(0, Scalar::Bool(false)), (1, Scalar::Bool(true))];
                self.program.apply(Builtin::ResizeNearestNeighbor, &options, &[image, size], &shape)
            }
            UpsampleMode::Bilinear => {
                let options = [(2, Scalar::Bool(false)), (3, Scalar::Bool(true))];
                self.program.apply(Builtin::ResizeBilinear, &options, &[image, size], &shape)
            }
        };
        (output, Layout::channels_last(3))
    }

    /// The layout of most of the values; channels last wins over channels first.
    fn common_layout(inputs: &[Value]) -> Layout {
        let first = inputs.first().map_or(Layout::plain(0), |input| input.layout.clone());
        if inputs.iter().all(|input| input.layout == first) {
            return first;
        }
        let rank = inputs.first().map_or(0, |input| input.shape.len());
        let moved = inputs
            .iter()
            .map(|input| &input.layout)
            .find(|layout| matches!(layout, Layout::Order(order) if !order.is_sorted()));
        moved.cloned().unwrap_or(Layout::plain(rank))
    }

    fn in_common(&mut self, inputs: &[Value]) -> (Vec<TensorId>, Layout) {
        let layout = Self::common_layout(inputs);
        let tensors = inputs
            .iter()
            .map(|input| match &layout {
                Layout::Order(order) => self.ordered(input, order),
                Layout::Flat { .. } => input.tensor,
            })
            .collect();
        (tensors, layout)
    }

    pub(super) fn combine(&mut self, op: &Op, inputs: &[Value]) -> Result<(TensorId, Layout)> {
        let (tensors, layout) = self.in_common(inputs);
        let [mut left, mut right] = tensors[..] else { return Err(Error::new("needs two values")) };
        // The second one is broadcast to the first.
        if let [one, other] = inputs
            && one.shape.iter().zip(&other.shape).any(|(length, other)| length < other)
        {
            (left, right) = (right, left);
        }
        let builtin = if matches!(op, Op::Add) { Builtin::Add } else { Builtin::Mul };
        Ok((self.program.binary(builtin, left, right), layout))
    }

    pub(super) fn concatenation(&mut self, node: &Node, inputs: &[Value], dim: usize) -> Result<(TensorId, Layout)> {
        let (mut tensors, mut layout) = self.in_common(inputs);
        if matches!(layout, Layout::Flat { .. }) {
            layout = Layout::plain(1);
            tensors = inputs.iter().map(|input| self.plain(input)).collect();
        }
        let shape = super::memory_shape(&node.shape, &layout)?;
        let Layout::Order(order) = &layout else { return Err(Error::new("has values without dimensions")) };
        let axis = 1 + order.iter().position(|other| *other == dim).unwrap_or(0);
        let tensor = self.program.apply(Builtin::Concatenation, &[(0, Scalar::I32(axis as i32))], &tensors, &shape);
        Ok((tensor, layout))
    }
}
