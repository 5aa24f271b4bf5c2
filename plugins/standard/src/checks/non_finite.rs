//! Tensors that have NaN or infinity.
//!
//! Values and gradients are counted where they are, by taps: of each tensor, only one number leaves the device.

use std::collections::BTreeMap;

use plugin_api::protocol::{Tap, TapOf, TapReduce, TensorSet};
use plugin_api::{Result, Run, TensorView};

/// Taps of tensors, in the model's order.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// The name of each tap, and of what it counts in.
    names: Vec<(String, String)>,
}

/// A tensor with NaN or infinity.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NonFinite {
    /// The node or parameter.
    pub(crate) name: String,
    /// How many of its values are NaN or infinite.
    pub(crate) count: f64,
}

impl Taps {
    /// In `setup`: asks for the counts of these nodes or gradients.
    pub(crate) fn request(run: &mut Run<'_>, of: TapOf, nodes: Vec<String>) -> Result<Self> {
        let what = if of == TapOf::Gradient { "gradient" } else { "value" };
        let mut names = Vec::new();
        for node in nodes {
            // The same name in all instances: the host computes equal taps once.
            let name = format!("non_finite.{what}.{node}");
            run.tap(&Tap { name: name.clone(), node: node.clone(), of, reduce: TapReduce::NonFinite })?;
            names.push((name, node));
        }
        Ok(Self { names })
    }

    /// The tensors that have NaN or infinity, in the model's order.
    pub(crate) fn read(&self, run: &Run<'_>) -> Result<Vec<NonFinite>> {
        let mut counts = BTreeMap::new();
        for view in run.tensors(TensorSet::Taps)? {
            if self.names.iter().any(|(tap, _)| tap == view.name()) {
                counts.insert(view.name(), on_cpu(run, view)?.scalar()?);
            }
        }
        let found = self.names.iter().filter_map(|(tap, node)| {
            let count = counts.get(tap.as_str()).copied().filter(|count| *count != 0.0)?;
            Some(NonFinite { name: node.clone(), count })
        });
        Ok(found.collect())
    }
}

/// The first parameter, or else buffer, that has NaN or infinity, with the index of the value. On an accelerator, each is
/// copied first.
pub(crate) fn first_weight(run: &Run<'_>) -> Result<Option<(String, usize, f32)>> {
    for set in [TensorSet::Parameters, TensorSet::Buffers] {
        for view in run.tensors(set)? {
            // Only numbers with a fraction can be NaN: counters of steps are integers.
            if view.dtype().name() != "f32" {
                continue;
            }
            let values = on_cpu(run, view)?.to_vec::<f32>()?;
            if let Some(index) = first(&values) {
                return Ok(Some((view.name().to_owned(), index, values[index])));
            }
        }
    }
    Ok(None)
}

/// The view, or a copy of it if it lies on an accelerator.
fn on_cpu<'a>(run: &'a Run<'_>, view: TensorView<'a>) -> Result<TensorView<'a>> {
    if view.device().is_cpu() { Ok(view) } else { run.to_host(&view) }
}

/// The first value that is NaN or infinite. Blocks are summed up without an early exit, as fast as memory is read.
fn first(values: &[f32]) -> Option<usize> {
    const BLOCK: usize = 1024;
    let is_wrong = |block: &[f32]| block.iter().fold(false, |any, value| any | !value.is_finite());
    let block = values.chunks(BLOCK).position(is_wrong)?;
    let begin = block * BLOCK;
    values[begin..].iter().position(|value| !value.is_finite()).map(|index| begin + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_many_values_is_found() {
        let mut values = vec![1f32; 5000];
        assert_eq!(first(&values), None);
        (values[4999], values[2050]) = (f32::NAN, f32::NEG_INFINITY);
        assert_eq!(first(&values), Some(2050));
    }
}
