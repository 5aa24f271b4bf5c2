//! Operators that only move values, or take some of them. A program may move the batch and join it with other dimensions; in the
//! graph, it stays where it is.

use super::arguments::Call;
use super::layout::{Dim, Extent, Layout};
use super::operators::dimension;
use super::{Known, Lowering, Reason};
use crate::model::Op;

impl<'d> Lowering<'d> {
    /// The same values in the shape that the document says.
    pub(super) fn reshape(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let output = call.output()?;
        let (layout, shape) = input.layout.reshaped(&input.shape, &self.extents(output)?)?;
        if shape == input.shape {
            return self.alias_of(call, Known { layout, ..input });
        }
        let op = if shape.len() == 1 { Op::Flatten } else { Op::Reshape { shape } };
        self.value_as(call, output, op, &[&input], layout)
    }

    pub(super) fn permute(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let rank = input.layout.dims(input.shape.len()).len();
        let place = |dim: i64| {
            let place = if dim < 0 { dim.saturating_add(rank as i64) } else { dim };
            let place = usize::try_from(place).ok().filter(|place| *place < rank);
            place.ok_or_else(|| Reason::from(format!("it has no dimension {dim}")))
        };
        let mut order: Vec<usize> = (0..rank).collect();
        if call.operator() == "transpose" {
            order.swap(place(call.integer("dim0", 0)?)?, place(call.integer("dim1", 1)?)?);
        } else {
            let given = call.integers("dims")?.ok_or_else(|| Reason::from("it has no `dims`"))?;
            order = given.into_iter().map(place).collect::<Result<_, _>>()?;
        }
        let mut once = order.clone();
        once.sort_unstable();
        if !once.into_iter().eq(0..rank) {
            return Err(Reason::from("it has not each dimension once"));
        }
        let (layout, dims) = input.layout.permuted(input.shape.len(), &order)?;
        if dims.is_sorted() {
            return self.alias_of(call, Known { layout, ..input });
        }
        self.value_as(call, call.output()?, Op::Permute { dims }, &[&input], layout)
    }

    /// The values along a dimension from one index to another.
    pub(super) fn slice(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        if call.is_whole() {
            return self.alias(call);
        }
        let dim = dimension(call.integer("dim", 0)?, &input)?;
        let length = input.shape[dim];
        let index = |index: i64| if index < 0 { index.saturating_add(length) } else { index }.clamp(0, length);
        let (start, end) = (index(call.integer("start", 0)?), index(call.integer("end", i64::MAX)?));
        let step = call.integer("step", 1)?;
        if (start, end, step) == (0, length, 1) {
            return self.alias(call);
        }
        self.value(call, Op::Slice { dim, start, end, step }, &[&input])
    }

    /// The values at one index of a dimension.
    pub(super) fn select(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let dim = dimension(call.integer("dim", 0)?, &input)?;
        let index = call.integer("index", 0)?;
        let index = if index < 0 { index.saturating_add(input.shape[dim]) } else { index };
        self.selected(call, call.output()?, &input, (dim, index))
    }

    fn selected(
        &mut self,
        call: &Call<'d>,
        output: &'d str,
        input: &Known,
        (dim, index): (usize, i64),
    ) -> Result<(), Reason> {
        let joined = match input.layout {
            Layout::Batched { place, before, after } => place - before..place + after,
            Layout::One | Layout::Same => 0..0,
        };
        if joined.contains(&dim) {
            return Err(Reason::from("it works along the batch"));
        }
        self.value_as(call, output, Op::Select { dim, index }, &[input], input.layout.without(dim))
    }

    /// The values at each index of a dimension.
    pub(super) fn unbind(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let dim = dimension(call.integer("dim", 0)?, &input)?;
        for (index, output) in call.listed().into_iter().enumerate() {
            if self.is_read(output) {
                self.selected(call, output, &input, (dim, index as i64))?;
            }
        }
        Ok(())
    }

    /// Consecutive parts along a dimension, as long as the document says.
    pub(super) fn split(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let dim = dimension(call.integer("dim", 0)?, &input)?;
        let mut start = 0i64;
        for output in call.listed() {
            let place = input.layout.dims(input.shape.len()).iter().position(|other| *other == Dim::Sample(dim));
            let Some(Extent::Fixed(length)) = place.and_then(|place| self.extents(output).ok()?.get(place).copied())
            else {
                return Err(Reason::from("a part of it has other dimensions"));
            };
            let end = start.saturating_add(length);
            if self.is_read(output) {
                self.value_as(call, output, Op::Slice { dim, start, end, step: 1 }, &[&input], input.layout)?;
            }
            start = end;
        }
        Ok(())
    }

    /// Values that are repeated over the batch. What is repeated along others of its dimensions is for nodes that do so by
    /// themselves.
    pub(super) fn expand(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.unrepeated(call.first()?)?;
        let (layout, shape) = Layout::of(&self.extents(call.output()?)?)?;
        let is_plain = input.layout.is_plain() || input.layout == Layout::Same;
        if !(layout == input.layout || (is_plain && layout == Layout::PLAIN)) {
            return Err(Reason::from("it repeats values, which the graph does not do"));
        }
        let known = Known { layout, ..input };
        if shape == known.shape { self.alias_of(call, known) } else { self.repeated(call, known, &shape) }
    }

    /// Whether another node reads a value, or it is the output.
    fn is_read(&self, name: &str) -> bool {
        name == self.output || self.readers.contains_key(name)
    }
}
