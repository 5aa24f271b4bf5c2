//! The weights of the model, borrowed.

use std::collections::BTreeMap;
use std::io::{self, Write};

use plugin_api::protocol::TensorSet;
use plugin_api::{Error, Result, Run, TensorView};

/// Parameters and buffers by their names in the state dict, borrowed until the hook returns: those on the CPU are not
/// copied.
#[derive(Debug, Default)]
pub struct Weights<'a> {
    all: BTreeMap<&'a str, Weight<'a>>,
}

/// A parameter or buffer.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// `<node>.<tensor>`.
    pub name: &'a str,
    /// Its shape; empty for a single number.
    pub shape: &'a [i64],
    /// Its elements, in row-major order.
    pub values: Values<'a>,
}

/// Elements of a weight.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Every parameter, and most buffers.
    F32(&'a [f32]),
    /// Counters.
    I64(&'a [i64]),
}

impl<'a> Weights<'a> {
    /// Reads all of them.
    ///
    /// # Errors
    ///
    /// A weight that is NaN or infinite, unless those are allowed, or one of an unsupported type.
    pub fn read(run: &'a Run<'_>, allow_non_finite: bool) -> Result<Weights<'a>> {
        let mut weights = Weights::default();
        for set in [TensorSet::Parameters, TensorSet::Buffers] {
            for view in run.tensors(set)? {
                let name = view.name();
                let view = if view.device().is_cpu() { view } else { run.to_host(&view)? };
                weights.insert(Weight { name, shape: view.shape(), values: values(name, &view)? });
            }
        }
        if !allow_non_finite {
            weights.check_finite()?;
        }
        Ok(weights)
    }

    /// Adds one, replacing one of the same name.
    pub fn insert(&mut self, weight: Weight<'a>) {
        self.all.insert(weight.name, weight);
    }

    /// The weight of this name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn get(&self, name: &str) -> Result<Weight<'a>> {
        self.all.get(name).copied().ok_or_else(|| Error::new(format!("the model has no tensor `{name}`")))
    }

    /// The f32 elements of the weight of this name.
    ///
    /// # Errors
    ///
    /// When there is none, or it has integers.
    pub fn f32(&self, name: &str) -> Result<&'a [f32]> {
        match self.get(name)?.values {
            Values::F32(values) => Ok(values),
            Values::I64(_) => Err(Error::new(format!("the tensor `{name}` has integers"))),
        }
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = Weight<'a>> {
        self.all.values().copied()
    }

    fn check_finite(&self) -> Result<()> {
        for weight in self.all.values() {
            if let Values::F32(values) = weight.values
                && let Some(position) = first_non_finite(values)
            {
                let (name, value) = (weight.name, values[position]);
                return Err(Error::new(format!(
                    "the weight `{name}` is `{value}` at element {position}; set `allow_non_finite = true` to export it anyway"
                )));
            }
        }
        Ok(())
    }
}

/// The position of the first NaN or infinity. Whole blocks are checked without an early exit, as fast as memory is
/// read.
fn first_non_finite(values: &[f32]) -> Option<usize> {
    const BLOCK: usize = 1024;
    let block =
        values.chunks(BLOCK).position(|block| block.iter().fold(false, |any, value| any | !value.is_finite()))?;
    let begin = block * BLOCK;
    values[begin..].iter().position(|value| !value.is_finite()).map(|position| begin + position)
}

/// Writes numbers in the byte order of the formats, little-endian, without a copy.
///
/// # Errors
///
/// Errors of the disk.
pub fn write_numbers(values: &[f32], to: &mut impl Write) -> io::Result<()> {
    // In the machine's byte order; the SDK's targets are all little-endian.
    const { assert!(cfg!(target_endian = "little")) };
    to.write_all(bytemuck::cast_slice(values))
}

fn values<'a>(name: &str, view: &TensorView<'a>) -> Result<Values<'a>> {
    view.as_slice::<f32>()
        .map(Values::F32)
        .or_else(|_| view.as_slice::<i64>().map(Values::I64))
        .map_err(|error| error.context(format!("the tensor `{name}`")))
}
