//! Operators that only move values: none at all if the next one can read them as they are.

use plugin_api::graph::{Node, UpsampleMode};
use plugin_api::{Error, Result};

use super::{Lowering, Value, memory_shape};
use crate::builtin::{Builtin, Scalar};
use crate::layout::Layout;
use crate::program::{Content, Element, TensorId};

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

    pub(super) fn in_common(&mut self, inputs: &[Value]) -> (Vec<TensorId>, Layout) {
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

    pub(super) fn concatenation(&mut self, node: &Node, inputs: &[Value], dim: usize) -> Result<(TensorId, Layout)> {
        if inputs.iter().any(|input| input.is_same) && !inputs.iter().all(|input| input.is_same) {
            return self.padded_together(node, inputs, dim);
        }
        let (mut tensors, mut layout) = self.in_common(inputs);
        if matches!(layout, Layout::Flat { .. }) {
            layout = Layout::plain(1);
            tensors = inputs.iter().map(|input| self.plain(input)).collect();
        }
        let shape = memory_shape(&node.shape, &layout)?;
        let Layout::Order(order) = &layout else { return Err(Error::new("has values without dimensions")) };
        let axis = 1 + order.iter().position(|other| *other == dim).unwrap_or(0);
        let tensor = self.program.apply(Builtin::Concatenation, &[(0, Scalar::I32(axis as i32))], &tensors, &shape);
        Ok((tensor, layout))
    }

    /// The concatenation of values of which some are the same for each sample: the runtime's operator does not repeat those. Each
    /// is padded with zeros to the whole length, and they are added, which repeats.
    fn padded_together(&mut self, node: &Node, inputs: &[Value], dim: usize) -> Result<(TensorId, Layout)> {
        let layout = Layout::plain(node.shape.len());
        let shape = memory_shape(&node.shape, &layout)?;
        let length = |shape: &[i64]| shape.get(dim).copied().unwrap_or(0) as i32;
        // First those that have the batch, whose shape a sum has.
        let mut whole: Option<TensorId> = None;
        for wanted in [false, true] {
            let mut first = 0;
            for input in inputs {
                let own = length(&input.shape);
                if input.is_same == wanted {
                    let tensor = self.plain(input);
                    let mut pads = vec![0; 2 * shape.len()];
                    pads[2 * (dim + 1)] = first;
                    pads[2 * (dim + 1) + 1] = length(&node.shape) - first - own;
                    let pads = self.program.tensor(&[shape.len() as i32, 2], Element::I32, Some(Content::I32(pads)));
                    let padded = self.program.apply(Builtin::Pad, &[], &[tensor, pads], &shape);
                    whole = Some(match whole {
                        Some(before) => self.program.apply(Builtin::Add, &[], &[before, padded], &shape),
                        None => padded,
                    });
                }
                first += own;
            }
        }
        whole.map(|whole| (whole, layout)).ok_or_else(|| Error::new("has no values"))
    }

    /// Every `step`th value along a dimension.
    pub(super) fn slice(
        &mut self,
        input: &Value,
        dim: usize,
        [start, end, step]: [i64; 3],
    ) -> Result<(TensorId, Layout)> {
        let (tensor, order) = match &input.layout {
            Layout::Order(order) => (input.tensor, order.clone()),
            Layout::Flat { .. } => (self.plain(input), vec![0]),
        };
        let axis = 1 + order.iter().position(|other| *other == dim).unwrap_or(0);
        let mut shape = self.program.shape(tensor).to_vec();
        shape[axis] = ((end - start - 1) / step + 1) as i32;
        let at = |value: i32, others: &[i32]| -> Vec<i32> {
            others.iter().enumerate().map(|(place, other)| if place == axis { value } else { *other }).collect()
        };
        let begin = self.program.integers(&at(start as i32, &vec![0; shape.len()]));
        let steps = self.program.integers(&at(step as i32, &vec![1; shape.len()]));
        let end = self.program.integers(&at(end as i32, &vec![0; shape.len()]));
        // Bits of the dimensions of which everything is taken.
        let all = ((1 << shape.len()) - 1) & !(1 << axis);
        let masks = [(0, Scalar::I32(all)), (1, Scalar::I32(all))];
        let output = self.program.apply(Builtin::StridedSlice, &masks, &[tensor, begin, end, steps], &shape);
        Ok((output, Layout::Order(order)))
    }

    /// The values at one index of a dimension.
    pub(super) fn select(&mut self, node: &Node, input: &Value, dim: usize, index: i64) -> Result<(TensorId, Layout)> {
        let (one, layout) = self.slice(input, dim, [index, index + 1, 1])?;
        let Layout::Order(order) = layout else { return Err(Error::new("has values without dimensions")) };
        let renamed = |other: usize| if other > dim { other - 1 } else { other };
        let layout = Layout::Order(order.into_iter().filter(|other| *other != dim).map(renamed).collect());
        let shape = memory_shape(&node.shape, &layout)?;
        Ok((self.program.reshape(one, &shape), layout))
    }
}
