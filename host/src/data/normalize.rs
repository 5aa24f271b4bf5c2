//! Normalization of samples.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DataError;
use super::dataset::row_length;

/// `[data] normalize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected `none`, `standard`, `range`, or `{ offset = […], scale = […] }`")]
pub enum NormalizeOptions {
    /// Fitted on the training split.
    Fitted(Normalize),
    /// `(x - offset) / scale`, with one pair for each feature of a vector or each channel of an image.
    Given(GivenNormalization),
}

impl Default for NormalizeOptions {
    fn default() -> Self {
        NormalizeOptions::Fitted(Normalize::None)
    }
}

impl NormalizeOptions {
    /// The normalization to fit.
    pub(super) fn kind(&self) -> Normalize {
        match self {
            NormalizeOptions::Fitted(kind) => *kind,
            NormalizeOptions::Given(_) => Normalize::None,
        }
    }
}

/// A known normalization, such as that of the data that weights were trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GivenNormalization {
    /// The numbers to subtract.
    pub offset: Vec<f64>,
    /// The numbers to divide by.
    pub scale: Vec<f64>,
}

/// How a normalization is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Not at all.
    #[default]
    None,
    /// To mean 0 and standard deviation 1 over the training split.
    Standard,
    /// To the range from 0 to 1 over the training split.
    Range,
}

/// `(x - offset) / scale`, with one pair for each index of a sample's first dimension: for each feature of a vector,
/// for each channel of an image. It is computed in f64 on the numbers as they are stored; the result is then narrowed to
/// f32. Kept with the model, because the model takes normalized samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// The numbers to subtract; empty for none.
    pub offset: Vec<f64>,
    /// The numbers to divide by; empty for none. As f32 they are finite and not zero.
    pub scale: Vec<f64>,
}

impl Normalization {
    /// The normalization that changes nothing.
    pub fn none() -> Normalization {
        Normalization { offset: Vec::new(), scale: Vec::new() }
    }

    /// The normalization of the options, for samples of `sample_shape`; `None` if it must be fitted.
    pub(super) fn given(options: &NormalizeOptions, sample_shape: &[i64]) -> Result<Option<Normalization>, DataError> {
        let GivenNormalization { offset, scale } = match options {
            NormalizeOptions::Fitted(Normalize::None) => return Ok(Some(Normalization::none())),
            NormalizeOptions::Fitted(_) => return Ok(None),
            NormalizeOptions::Given(given) => given.clone(),
        };
        let groups = group_count(sample_shape);
        for (key, values) in [("offset", &offset), ("scale", &scale)] {
            let option = format!("data.normalize.{key}");
            // Callbacks get them as f32.
            let fits = values.len() == groups && values.iter().all(|value| (*value as f32).is_finite());
            if !fits || (key == "scale" && values.iter().any(|value| !(*value as f32).is_normal())) {
                let expected = match key {
                    "offset" => "a finite number for each feature of a vector or each channel of an image",
                    _ => "a number other than 0 for each feature of a vector or each channel of an image",
                };
                return Err(DataError::Option { option, value: format!("{values:?}"), expected });
            }
        }
        Ok(Some(Normalization { offset, scale }))
    }

    /// Whether it changes nothing.
    pub fn is_none(&self) -> bool {
        self.offset.is_empty()
    }

    /// The offset and the scale of a feature or a channel.
    pub(crate) fn of(&self, group: usize) -> (f64, f64) {
        let number = |numbers: &[f64], otherwise| numbers.get(group).copied().unwrap_or(otherwise);
        (number(&self.offset, 0.0), number(&self.scale, 1.0))
    }

    /// Writes one sample from its stored values, of each of which `number` makes a number.
    ///
    /// # Errors
    ///
    /// The position of a number that is not finite as f32.
    pub(super) fn write<S: Copy>(&self, stored: &[S], number: impl Fn(S) -> f64, row: &mut [f32]) -> Result<(), usize> {
        let pairs = self.offset.iter().zip(&self.scale);
        let length = row.len();
        let values = row.iter_mut().zip(stored);
        match self.offset.len() {
            0 => values.for_each(|(value, stored)| *value = number(*stored) as f32),
            groups if groups == length => {
                for ((value, stored), (offset, scale)) in values.zip(pairs) {
                    *value = ((number(*stored) - offset) / scale) as f32;
                }
            }
            groups => {
                let length = (length / groups).max(1);
                for ((values, stored), (offset, scale)) in row.chunks_mut(length).zip(stored.chunks(length)).zip(pairs)
                {
                    for (value, stored) in values.iter_mut().zip(stored) {
                        *value = ((number(*stored) - offset) / scale) as f32;
                    }
                }
            }
        }
        finite(row)
    }

    /// Normalizes samples, in place, that are stored one after another and that f32 holds exactly: the same numbers as
    /// those of [`Self::write`].
    ///
    /// # Errors
    ///
    /// The sample, and the position in it, of a number that is not finite as f32.
    pub(super) fn apply(&self, samples: &mut [f32], row_length: usize) -> Result<(), (usize, usize)> {
        if self.is_none() {
            return Ok(());
        }
        let mut stored = Vec::new();
        for (sample, row) in samples.chunks_mut(row_length.max(1)).enumerate() {
            stored.clear();
            stored.extend_from_slice(row);
            self.write(&stored, f64::from, row).map_err(|position| (sample, position))?;
        }
        Ok(())
    }
}

/// The position of a number that is not finite is an error.
fn finite(row: &[f32]) -> Result<(), usize> {
    // Without an early exit, which the compiler could not vectorize.
    if row.iter().fold(true, |finite, value| finite & value.is_finite()) {
        return Ok(());
    }
    Err(row.iter().position(|value| !value.is_finite()).unwrap_or(0))
}

/// What a normalization makes of each of the 256 values of a byte: exact, and faster than to compute it for each pixel.
pub(super) struct ByteTables {
    /// One for each group.
    tables: Vec<[f32; 256]>,
}

impl ByteTables {
    /// The tables for `count` bytes, of each of which `number` makes a number; `None` if they would not save time, or
    /// if a number would not be finite.
    pub(super) fn new(normalization: &Normalization, count: usize, number: impl Fn(u8) -> f64) -> Option<ByteTables> {
        let groups = normalization.offset.len();
        if groups == 0 || count / groups < 512 {
            return None;
        }
        let tables: Vec<[f32; 256]> = (0..groups)
            .map(|group| {
                let (offset, scale) = normalization.of(group);
                std::array::from_fn(|byte| ((number(byte as u8) - offset) / scale) as f32)
            })
            .collect();
        tables.iter().all(|table| finite(table).is_ok()).then_some(ByteTables { tables })
    }

    /// Writes one sample.
    pub(super) fn write(&self, stored: &[u8], row: &mut [f32]) {
        let length = (row.len() / self.tables.len()).max(1);
        for ((values, stored), table) in row.chunks_mut(length).zip(stored.chunks(length)).zip(&self.tables) {
            for (value, stored) in values.iter_mut().zip(stored) {
                *value = table[usize::from(*stored)];
            }
        }
    }
}

/// Fits a normalization in one pass over samples, in f64.
pub(super) struct Fit {
    kind: Normalize,
    row_length: usize,
    groups: Vec<Moments>,
}

impl Fit {
    pub(super) fn new(kind: Normalize, sample_shape: &[i64]) -> Fit {
        let groups = vec![Moments::default(); group_count(sample_shape)];
        Fit { kind, row_length: row_length(sample_shape), groups }
    }

    /// Adds samples that are stored one after another.
    pub(super) fn add<T: Copy + Into<f64>>(&mut self, samples: &[T]) {
        let group_length = (self.row_length / self.groups.len().max(1)).max(1);
        for row in samples.chunks_exact(self.row_length.max(1)) {
            for (values, moments) in row.chunks_exact(group_length).zip(&mut self.groups) {
                moments.add(values);
            }
        }
    }

    /// The normalization of the samples. A constant feature keeps its scale.
    pub(super) fn finish(self) -> Normalization {
        let (mut offset, mut scale) = (Vec::new(), Vec::new());
        for moments in &self.groups {
            let (group_offset, group_scale) = match self.kind {
                Normalize::None => return Normalization::none(),
                Normalize::Standard => (moments.mean, (moments.squares / moments.count.max(1.0)).sqrt()),
                Normalize::Range => (moments.low, moments.high - moments.low),
            };
            offset.push(group_offset);
            // Callbacks get it as f32.
            let usable = (group_scale as f32).is_normal();
            scale.push(if usable { group_scale } else { 1.0 });
        }
        Normalization { offset, scale }
    }
}

/// Count, mean, sum of squared deviations and range of values that come in parts: the parts' sums are merged as in
/// Chan, Golub and LeVeque 1979, so that large means lose no digits.
#[derive(Clone, Copy)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
    low: f64,
    high: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Moments { count: 0.0, mean: 0.0, squares: 0.0, low: f64::INFINITY, high: f64::NEG_INFINITY }
    }
}

impl Moments {
    fn add<T: Copy + Into<f64>>(&mut self, values: &[T]) {
        let values = || values.iter().map(|value| -> f64 { (*value).into() });
        let count = values().len() as f64;
        let mean = values().sum::<f64>() / count;
        let squares = values().map(|value| (value - mean).powi(2)).sum::<f64>();
        let total = self.count + count;
        let difference = mean - self.mean;
        self.mean += difference * count / total;
        self.squares += squares + difference * difference * self.count * count / total;
        self.count = total;
        (self.low, self.high) =
            values().fold((self.low, self.high), |(low, high), value| (low.min(value), high.max(value)));
    }
}

/// The features of a vector, or the channels of an image.
pub(super) fn group_count(sample_shape: &[i64]) -> usize {
    sample_shape.first().map_or(1, |length| usize::try_from(*length).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fitted(kind: Normalize, samples: &[f64], sample_shape: &[i64]) -> Normalization {
        let mut fit = Fit::new(kind, sample_shape);
        fit.add(samples);
        fit.finish()
    }

    #[test]
    fn vectors_are_normalized_by_feature_on_the_rows_of_the_fit() {
        let mut samples = vec![1.0, 10.0, 3.0, 10.0, 100.0, 12.0];
        let fitted = fitted(Normalize::Standard, &[1.0, 10.0, 3.0, 10.0], &[2]);
        assert_eq!(
            (fitted.offset.as_slice(), fitted.scale.as_slice()),
            ([2.0, 10.0].as_slice(), [1.0, 1.0].as_slice())
        );
        fitted.apply(&mut samples, 2).unwrap();
        assert_eq!(samples, [-1.0, 0.0, 1.0, 0.0, 98.0, 2.0]);
    }

    #[test]
    fn images_are_normalized_by_channel() {
        let mut samples = vec![0.0, 2.0, 5.0, 9.0];
        let fitted = fitted(Normalize::Range, &[0.0, 2.0, 5.0, 9.0], &[2, 1, 2]);
        assert_eq!((fitted.offset.as_slice(), fitted.scale.as_slice()), ([0.0, 5.0].as_slice(), [2.0, 4.0].as_slice()));
        fitted.apply(&mut samples, 4).unwrap();
        assert_eq!(samples, [0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn none_leaves_samples_alone_and_a_given_one_is_checked() {
        let mut samples = vec![3.0, 4.0];
        Normalization::none().apply(&mut samples, 2).unwrap();
        assert_eq!(samples, [3.0, 4.0]);
        let given = |offset: &[f64], scale: &[f64]| {
            let given = GivenNormalization { offset: offset.to_vec(), scale: scale.to_vec() };
            Normalization::given(&NormalizeOptions::Given(given), &[2])
        };
        given(&[1.0, 2.0], &[2.0, 4.0]).unwrap().unwrap().apply(&mut samples, 2).unwrap();
        assert_eq!(samples, [1.0, 0.5]);
        assert!(given(&[1.0], &[2.0, 4.0]).unwrap_err().to_string().contains("data.normalize.offset"));
        assert!(given(&[1.0, 1.0], &[2.0, 1e-40]).is_err(), "f32 has no such number");
        assert!(given(&[1.0, 1.0], &[2.0, 0.0]).unwrap_err().to_string().contains("data.normalize.scale"));
    }

    #[test]
    fn numbers_are_narrowed_after_they_are_normalized() {
        let seconds: Vec<f64> = (0..4).map(|second| 1.7e9 + f64::from(second)).collect();
        let mut fit = Fit::new(Normalize::Range, &[1]);
        fit.add(&seconds);
        let fitted = fit.finish();
        let mut values = [0.0; 4];
        for (value, stored) in values.chunks_mut(1).zip(seconds.chunks(1)) {
            fitted.write(stored, |value| value, value).unwrap();
        }
        assert_eq!((values, fitted.offset), ([0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0], vec![1.7e9]));
    }

    #[test]
    fn a_number_that_f32_cannot_hold_is_told_with_its_position() {
        let normalization = Normalization { offset: vec![0.0, 0.0], scale: vec![1.0, 1e-37] };
        let mut row = [0.0; 4];
        assert_eq!(normalization.write(&[1u8, 2, 3, 40], f64::from, &mut row), Err(3));
        assert_eq!(normalization.write(&[1u8, 2, 3, 4], f64::from, &mut row), Ok(()));
        assert_eq!(Normalization::none().write(&[f64::NAN], |value| value, &mut row[..1]), Err(0));
        assert!(ByteTables::new(&normalization, 1 << 20, f64::from).is_none());
        assert_eq!(normalization.apply(&mut [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 50.0, 0.0], 4), Err((1, 2)));
    }

    #[test]
    fn a_table_of_bytes_holds_the_same_numbers() {
        let normalization = Normalization { offset: vec![0.485, 3.0], scale: vec![0.229, 255.0] };
        let stored: Vec<u8> = (0..=255).chain(0..=255).collect();
        let (mut computed, mut looked_up) = (vec![0.0; 512], vec![0.0; 512]);
        normalization.write(&stored, f64::from, &mut computed).unwrap();
        ByteTables::new(&normalization, 1 << 20, f64::from).unwrap().write(&stored, &mut looked_up);
        assert_eq!(computed, looked_up);
        assert!(ByteTables::new(&normalization, 512, f64::from).is_none(), "too few to be worth a table");
    }

    proptest! {
         /// Compares with the two passes of the definition.
        #[test]
        fn one_pass_finds_mean_and_deviation(
            samples in prop::collection::vec(-100f64..100.0, 1..200),
            shift in prop::sample::select(vec![0f64, 1000.0, 1.7e9]),
        ) {
            let samples: Vec<f64> = samples.iter().map(|value| value + shift).collect();
            let fitted = fitted(Normalize::Standard, &samples, &[1]);
            let count = samples.len() as f64;
            let mean = samples.iter().sum::<f64>() / count;
            let variance = samples.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            prop_assert!((fitted.offset[0] - mean).abs() <= 1e-12 * mean.abs().max(1.0));
            if variance.sqrt() > 1e-3 {
                prop_assert!((fitted.scale[0] - variance.sqrt()).abs() <= 1e-6 * variance.sqrt());
            }
        }
    }
}
