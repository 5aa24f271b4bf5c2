//! Masks that are made of what a batch holds: comparisons, truth values, and values that are repeated. In the graph, truth
//! values are numbers, 1 and 0, and whole numbers become floating point where anything but an embedding reads them.

use tch::{Kind, Tensor};

use super::arguments::Call;
use super::layout::{Extent, Layout};
use super::operators::combined;
use super::{Known, Lowering, Place, Reason, Value, constants, misfit};
use crate::model::{Comparison, Op};

/// The largest magnitude up to which floating point has every whole number: comparisons with these are exact.
const LARGEST_WHOLE: f64 = (1 << f32::MANTISSA_DIGITS) as f64;

/// The most elements of a constant that becomes part of the graph: a mask of a thousand positions.
const MOST_ELEMENTS: usize = 1 << 20;

/// Whether the graph has an operator's value where the document has this dtype: floating point, and what numbers stand for.
pub(super) fn takes(op: &Op, kind: Option<Kind>) -> bool {
    match (op, kind) {
        (_, Some(Kind::Float)) | (Op::Compare { .. }, Some(Kind::Bool)) => true,
        // Products of truth values are those of numbers; whole numbers are only moved, or their products would be rounded.
        (Op::Multiply, Some(Kind::Bool)) => true,
        (op, Some(Kind::Bool | Kind::Int64)) => {
            matches!(op, Op::Flatten | Op::Reshape { .. } | Op::Permute { .. } | Op::Slice { .. } | Op::Select { .. })
        }
        _ => false,
    }
}

impl<'d> Lowering<'d> {
    /// The name of a value as floating point: its own, or that of a node that converts it.
    pub(super) fn float(&mut self, known: &Known) -> Result<String, Reason> {
        let Some(document) = self.whole.get(&known.name).copied() else { return Ok(known.name.clone()) };
        if let Some(float) = self.floats.get(&known.name) {
            return Ok(float.clone());
        }
        let name = self.unique(&format!("{}_float", known.name));
        self.builder.node_over(name.clone(), Op::ToFloat, &[&known.name], &[]).map_err(misfit)?;
        self.made.push(Place { name: document.to_owned(), before: known.layout.before(&known.shape) });
        self.floats.insert(known.name.clone(), name.clone());
        Ok(name)
    }

    /// A value of the graph, or the one that it repeats.
    pub(super) fn unrepeated(&mut self, name: &'d str) -> Result<Known, Reason> {
        match self.values.get(name) {
            Some(Value::Repeated(known, reason)) => match self.versions.get(known.memory) == Some(&known.version) {
                true => Ok(known.clone()),
                false => Err(reason.clone()),
            },
            _ => self.read(name),
        }
    }

    /// The call's output is `known`, repeated to samples of this shape along dimensions of 1.
    pub(super) fn repeated(&mut self, call: &Call<'d>, known: Known, shape: &[i64]) -> Result<(), Reason> {
        let reason = Reason::from("it repeats values, which the graph does not do");
        let fits = shape.len() == known.shape.len()
            && known.shape.iter().zip(shape).all(|(length, repeated)| length == repeated || *length == 1);
        if !fits {
            return Err(reason);
        }
        let output = call.output()?;
        self.values.insert(output, Value::Repeated(known, reason.at(call)));
        Ok(())
    }

    /// A conversion to another dtype.
    pub(super) fn cast(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let (first, output) = (call.first()?, call.output()?);
        let (from, to) = (self.kind(first), self.kind(output));
        if let (Some(Value::Repeated(known, reason)), true) = (self.values.get(first), from == to) {
            let value = Value::Repeated(known.clone(), reason.clone());
            self.values.insert(output, value);
            return Ok(());
        }
        match (from, to) {
            (Some(Kind::Bool), Some(Kind::Float | Kind::Int64)) => {
                let known = self.input(call)?;
                self.bind(output, known)
            }
            (Some(Kind::Int64), Some(Kind::Float)) => {
                let known = self.input(call)?;
                let name = self.float(&known)?;
                self.bind(output, Known { name, ..known })
            }
            (Some(Kind::Float | Kind::Int64), Some(Kind::Bool)) => {
                self.activation(call, Op::Compare { comparison: Comparison::NotEqual, other: 0.0 })
            }
            _ => self.alias(call),
        }
    }

    /// A comparison with a number.
    pub(super) fn comparison(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let other = match call.optional_tensor("other") {
            Ok(Some(other)) => match self.values.get(other) {
                Some(Value::Constant(value)) => constants::number(value),
                _ => None,
            },
            _ => call.number("other")?,
        };
        let other = other.ok_or_else(|| Reason::from("it compares with another value, not with a number"))?;
        if !(-LARGEST_WHOLE..=LARGEST_WHOLE).contains(&other) {
            return Err(Reason::from("it compares with a number that is too large for floating point"));
        }
        let comparison = match call.operator() {
            "eq" => Comparison::Equal,
            "ne" => Comparison::NotEqual,
            "lt" => Comparison::Less,
            "le" => Comparison::LessEqual,
            "gt" => Comparison::Greater,
            _ => Comparison::GreaterEqual,
        };
        self.activation(call, Op::Compare { comparison, other })
    }

    /// What is false where another is true.
    pub(super) fn negation(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        if call.operator() == "bitwise_not" && self.kind(call.first()?) != Some(Kind::Bool) {
            return Err(Reason::from("it is of bits"));
        }
        self.activation(call, Op::Compare { comparison: Comparison::Equal, other: 0.0 })
    }

    /// Where two are true.
    pub(super) fn conjunction(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let (output, sides) = (call.output()?, [call.first()?, call.tensor("other")?]);
        if sides.iter().chain([&output]).any(|name| self.kind(name) != Some(Kind::Bool)) {
            return Err(Reason::from("it is not of truth values"));
        }
        // What is true everywhere changes nothing but the shape.
        for (side, other) in [(sides[0], sides[1]), (sides[1], sides[0])] {
            if let Some(Value::Constant(value)) = self.values.get(side)
                && is_true(value)
            {
                let known = self.unrepeated(other)?;
                let (layout, shape) = Layout::of(&self.extents(output)?)?;
                return match layout == known.layout && shape == known.shape {
                    true => self.bind(output, known),
                    false if layout == known.layout => self.repeated(call, known, &shape),
                    false => Err(Reason::from("its values have the batch in other places")),
                };
            }
        }
        let [left, right] = [self.truth(sides[0])?, self.truth(sides[1])?];
        let layout = combined([&left, &right])?.ok_or_else(|| Reason::from("it is of constants"))?;
        self.value_as(call, output, Op::Multiply, &[&left, &right], layout)
    }

    /// Truth values of the graph; those that depend on sizes alone become part of it.
    fn truth(&mut self, name: &'d str) -> Result<Known, Reason> {
        let Some(Value::Constant(value)) = self.values.get(name) else { return self.unrepeated(name) };
        if value.numel() > MOST_ELEMENTS {
            return Err(Reason::from(format!("its `{name}` has more than {MOST_ELEMENTS} elements")));
        }
        let values = value.f_to_kind(Kind::Int64).and_then(|value| Vec::<i64>::try_from(value.f_reshape([-1])?));
        let values = values.map_err(|_| Reason::from(format!("its `{name}` cannot be read")))?;
        let (layout, shape) = Layout::of(&self.extents(name)?)?;
        let unique = self.unique(name);
        let shape = self.inner((name, layout), &unique, Op::Constant { shape, values }, &[], &[])?;
        self.whole.insert(unique.clone(), name);
        let memory = self.new_memory();
        let known = Known { name: unique, shape, layout, memory, version: 0 };
        // Other nodes read the same one.
        self.values.insert(name, Value::Known(known.clone()));
        Ok(known)
    }

    /// The values at each sample's own index, and at each position in order: a view, as transformers write it for masks.
    pub(super) fn index(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let output = call.output()?;
        let reads: Vec<&str> = call.reads().skip(1).collect();
        let [samples, positions] = reads[..] else {
            return Err(Reason::from("it has not an index for samples and one for positions"));
        };
        let are_samples = matches!(self.values.get(samples), Some(Value::Positions));
        let are_all = match self.values.get(positions) {
            Some(Value::Constant(value)) => {
                i64::try_from(value.numel()).ok() == input.shape.first().copied()
                    && constants::counts(value).unwrap_or(false)
            }
            _ => false,
        };
        let extents = self.extents(positions)?;
        let is_last = extents.last() == input.shape.first().map(|length| Extent::Fixed(*length)).as_ref();
        if !are_samples || !are_all || !is_last || input.layout != Layout::PLAIN || input.shape.len() != 1 {
            return Err(Reason::from("it takes other values than all of them in order"));
        }
        let (layout, shape) = input.layout.reshaped(&input.shape, &self.extents(output)?)?;
        if shape == input.shape {
            return self.alias_of(call, Known { layout, ..input });
        }
        self.value_as(call, output, Op::Reshape { shape }, &[&input], layout)
    }
}

/// Whether all of its elements are true.
fn is_true(value: &Tensor) -> bool {
    value.f_all().and_then(|all| all.f_int64_value(&[])).is_ok_and(|all| all == 1)
}
