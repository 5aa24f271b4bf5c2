//! The weights of the model, borrowed.

use std::collections::BTreeMap;
use std::io::{self, Write};

use plugin_api::protocol::TensorSet;
use plugin_api::{Error, Result, Run, TensorView};

use crate::{Precision, check_finite};

/// Parameters and buffers by their names in the state dict, borrowed until the hook returns: those on the CPU are not
/// copied.
#[derive(Debug, Default)]
pub struct Weights<'a> {
    all: BTreeMap<&'a str, Weight<'a>>,
    allow_non_finite: bool,
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

impl<'a> Weight<'a> {
    /// Its elements as they are in memory: in row-major order, little-endian.
    pub fn bytes(&self) -> &'a [u8] {
        // In the machine's byte order; the SDK's targets are all little-endian.
        const { assert!(cfg!(target_endian = "little")) };
        match self.values {
            Values::F32(values) => bytemuck::cast_slice(values),
            Values::I64(values) => bytemuck::cast_slice(values),
        }
    }
}

impl<'a> Weights<'a> {
    /// Reads all of them.
    ///
    /// # Errors
    ///
    /// A weight that is NaN or infinite, unless those are allowed, or one of an unsupported type.
    pub fn read(run: &'a Run<'_>, allow_non_finite: bool) -> Result<Weights<'a>> {
        let mut weights = Weights { allow_non_finite, ..Weights::default() };
        for set in [TensorSet::Parameters, TensorSet::Buffers] {
            for view in run.tensors(set)? {
                let name = view.name();
                weights.insert(weight(run, name, view)?);
            }
        }
        weights.check_all()?;
        Ok(weights)
    }

    /// Reads parameters by their names, each to be written under another one: those of adapters, which the model's weights above
    /// already have in them.
    ///
    /// # Errors
    ///
    /// Those of [`Weights::read`], and a name that there is not.
    pub fn read_as(
        run: &'a Run<'_>,
        names: impl IntoIterator<Item = (&'a str, &'a str)>,
        allow_non_finite: bool,
    ) -> Result<Weights<'a>> {
        let mut weights = Weights { allow_non_finite, ..Weights::default() };
        for (name, written) in names {
            weights.insert(weight(run, written, run.tensor(TensorSet::Parameters, name)?)?);
        }
        weights.check_all()?;
        Ok(weights)
    }

    fn check_all(&self) -> Result<()> {
        self.iter().try_for_each(|weight| match weight.values {
            Values::F32(values) => self.check(weight.name, values, Precision::Full),
            Values::I64(_) => Ok(()),
        })
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

    /// Rejects numbers that are computed from weights if they are not finite once they are written, unless that is
    /// allowed.
    ///
    /// # Errors
    ///
    /// Those of [`check_finite`].
    pub fn check(&self, name: &str, values: &[f32], precision: Precision) -> Result<()> {
        if self.allow_non_finite { Ok(()) } else { check_finite(name, values, precision) }
    }
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

fn weight<'a>(run: &'a Run<'_>, name: &'a str, view: TensorView<'a>) -> Result<Weight<'a>> {
    let view = if view.device().is_cpu() { view } else { run.to_host(&view)? };
    Ok(Weight { name, shape: view.shape(), values: values(name, &view)? })
}

fn values<'a>(name: &str, view: &TensorView<'a>) -> Result<Values<'a>> {
    view.as_slice::<f32>()
        .map(Values::F32)
        .or_else(|_| view.as_slice::<i64>().map(Values::I64))
        .map_err(|error| error.context(format!("the tensor `{name}`")))
}
