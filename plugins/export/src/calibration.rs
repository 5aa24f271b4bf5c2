//! The ranges of the values of a model's nodes, for exporters that store them in eight bits.

use std::collections::BTreeMap;

use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, Run};

use crate::{Samples, TRAIN, Value, predict};

/// The smallest and the largest value; the range includes 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Range {
    /// At most 0.
    pub least: f32,
    /// At least 0.
    pub most: f32,
}

/// The ranges of the values of a model's nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranges {
    /// The range of the model's first input.
    pub input: Range,
    /// The batches of the training split that were observed.
    pub batches: Vec<u64>,
    nodes: BTreeMap<String, Range>,
}

/// Eight bits for a range: `real = scale · (code − zero_point)`.
///
/// As in TFLite's quantization specification: codes are -128..=127, and 0 has an exact code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// The distance between two neighboring codes.
    pub scale: f32,
    /// The code of 0.
    pub zero_point: i32,
}

impl Range {
    /// The range of some values.
    pub fn of(values: &[f32]) -> Range {
        values.iter().filter(|value| value.is_finite()).fold(Range::default(), |range, value| range.with(*value))
    }

    fn with(self, value: f32) -> Range {
        Range { least: self.least.min(value), most: self.most.max(value) }
    }

    fn and(self, other: Range) -> Range {
        self.with(other.least).with(other.most)
    }

    /// Its eight-bit representation.
    pub fn affine(self) -> Affine {
        let scale = (f64::from(self.most) - f64::from(self.least)) / 255.0;
        // All values are 0: any scale works, but it must be invertible.
        let scale = if scale > f64::from(f32::MIN_POSITIVE) { scale } else { 1.0 };
        let zero_point = (-128.0 - f64::from(self.least) / scale).round() as i32;
        Affine { scale: scale as f32, zero_point: zero_point.clamp(-128, 127) }
    }
}

impl Affine {
    /// The code that is nearest to a number.
    pub fn code(self, value: f32) -> i8 {
        // A cast of floats saturates.
        ((value / self.scale).round() as i32).saturating_add(self.zero_point).clamp(-128, 127) as i8
    }
}

/// The scale of weights around 0: codes are -127..=127, and the code of 0 is 0.
pub fn symmetric_scale(values: impl Iterator<Item = f32>) -> f32 {
    let largest = values.filter(|value| value.is_finite()).fold(0f32, |largest, value| largest.max(value.abs()));
    if largest > f32::MIN_POSITIVE * 127.0 { largest / 127.0 } else { 1.0 }
}

/// The code of a weight.
pub fn symmetric_code(value: f32, scale: f32) -> i8 {
    (value / scale).round().clamp(-127.0, 127.0) as i8
}

impl Ranges {
    /// Lets the model predict up to `batches` batches of the training split, spread over it, and observes the outputs of
    /// `nodes`. The split that evaluates the run is left to measure the result.
    ///
    /// # Errors
    ///
    /// There is no batch, no such node, a value that is not finite unless that is allowed, or the callback is in the
    /// background, where the model is not available.
    pub fn calibrate(
        run: &mut Run<'_>,
        info: &RunInfo,
        batches: u64,
        nodes: &[&str],
        allow_non_finite: bool,
    ) -> Result<Ranges> {
        let mut ranges = Ranges { batches: spread(run, info, batches)?, ..Ranges::default() };
        for index in ranges.batches.clone() {
            let samples = Samples::read(run, TRAIN, index, usize::MAX)?;
            if let Some(Ok(inputs)) = samples.inputs.first().map(|samples| samples.view().as_slice::<f32>()) {
                ranges.input = ranges.input.and(Range::of(inputs));
            }
            let predicted = predict(run, &samples.inputs, nodes)?;
            for (node, Value { values, .. }) in nodes.iter().zip(predicted.iter().skip(1)) {
                if let Some(value) = values.iter().find(|value| !value.is_finite() && !allow_non_finite) {
                    return Err(Error::new(format!(
                        "the value of the node `{node}` is `{value}` for a sample of the data, which eight bits cannot hold; \
                         set `allow_non_finite = true` to export it anyway"
                    )));
                }
                let range = ranges.nodes.entry((*node).to_owned()).or_default();
                *range = range.and(Range::of(values));
            }
        }
        if ranges.nodes.is_empty() && !nodes.is_empty() {
            return Err(Error::new("there is nothing to calibrate with: no batch was requested"));
        }
        Ok(ranges)
    }

    /// The range of a node; `None` if it was not requested.
    pub fn node(&self, name: &str) -> Option<Range> {
        self.nodes.get(name).copied()
    }
}

/// The indices of up to `count` batches of the training split, at equal distances: it may be sorted.
fn spread(run: &Run<'_>, info: &RunInfo, count: u64) -> Result<Vec<u64>> {
    let first = Samples::read(run, TRAIN, 0, usize::MAX);
    let first = first.map_err(|error| error.context("there is nothing to calibrate with"))?;
    let samples = info.data.splits.get(TRAIN).copied().unwrap_or_default();
    let all = samples.div_ceil((first.rows() as u64).max(1)).max(1);
    let count = count.min(all);
    Ok((0..count).map(|place| place * all / count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_fills_the_codes_and_has_zero_as_one_of_them() {
        let affine = Range::of(&[-1.0, 3.0, f32::NAN]).affine();
        assert_eq!((affine.code(-1.0), affine.code(3.0), affine.code(100.0)), (-128, 127, 127));
        assert_eq!(i32::from(affine.code(0.0)), affine.zero_point);
        // Values on one side of 0 only.
        assert_eq!(Range::of(&[2.0, 4.0]).affine(), Affine { scale: 4.0 / 255.0, zero_point: -128 });
        assert_eq!(Range::of(&[-4.0]).affine().zero_point, 127);
        assert_eq!(Range::of(&[0.0]).affine().code(0.0), -128);
    }

    #[test]
    fn weights_lie_around_zero() {
        let scale = symmetric_scale([0.5, -2.0].into_iter());
        assert_eq!(
            (symmetric_code(-2.0, scale), symmetric_code(0.0, scale), symmetric_code(2.0, scale)),
            (-127, 0, 127)
        );
        assert_eq!(symmetric_code(0.0, symmetric_scale([0.0].into_iter())), 0);
    }
}
