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
    pub offset: Vec<f32>,
    /// The numbers to divide by.
    pub scale: Vec<f32>,
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
/// for each channel of an image. Kept with the model, because the model takes normalized samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// The numbers to subtract; empty for none.
    pub offset: Vec<f32>,
    /// The numbers to divide by; empty for none, never zero.
    pub scale: Vec<f32>,
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
            let fits = values.len() == groups && values.iter().all(|value| value.is_finite());
            if !fits || (key == "scale" && values.iter().any(|value| !value.is_normal())) {
                let expected = match key {
                    "offset" => "a finite number for each feature of a vector or each channel of an image",
                    _ => "a number other than 0 for each feature of a vector or each channel of an image",
                };
                return Err(DataError::Option { option, value: format!("{values:?}"), expected });
            }
        }
        Ok(Some(Normalization { offset, scale }))
    }

    /// Normalizes samples of `sample_shape` that are stored one after another, in place.
    pub fn apply(&self, samples: &mut [f32], sample_shape: &[i64]) {
        let groups = self.offset.len();
        if groups == 0 {
            return;
        }
        let row_length = row_length(sample_shape);
        let group_length = (row_length / groups).max(1);
        for row in samples.chunks_mut(row_length.max(1)) {
            for (values, (offset, scale)) in row.chunks_mut(group_length).zip(self.offset.iter().zip(&self.scale)) {
                for value in values {
                    *value = (*value - offset) / scale;
                }
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
    pub(super) fn add(&mut self, samples: &[f32]) {
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
            offset.push(group_offset as f32);
            let usable = (group_scale as f32).is_normal();
            scale.push(if usable { group_scale as f32 } else { 1.0 });
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
    fn add(&mut self, values: &[f32]) {
        let values = || values.iter().map(|value| f64::from(*value));
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

fn group_count(sample_shape: &[i64]) -> usize {
    sample_shape.first().map_or(1, |length| usize::try_from(*length).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fitted(kind: Normalize, samples: &[f32], sample_shape: &[i64]) -> Normalization {
        let mut fit = Fit::new(kind, sample_shape);
        fit.add(samples);
        fit.finish()
    }

    #[test]
    fn vectors_are_normalized_by_feature_on_the_rows_of_the_fit() {
        let mut samples = vec![1.0, 10.0, 3.0, 10.0, 100.0, 12.0];
        let fitted = fitted(Normalize::Standard, &samples[..4], &[2]);
        assert_eq!(
            (fitted.offset.as_slice(), fitted.scale.as_slice()),
            ([2.0, 10.0].as_slice(), [1.0, 1.0].as_slice())
        );
        fitted.apply(&mut samples, &[2]);
        assert_eq!(samples, [-1.0, 0.0, 1.0, 0.0, 98.0, 2.0]);
    }

    #[test]
    fn images_are_normalized_by_channel() {
        let mut samples = vec![0.0, 2.0, 5.0, 9.0];
        let fitted = fitted(Normalize::Range, &samples, &[2, 1, 2]);
        assert_eq!((fitted.offset.as_slice(), fitted.scale.as_slice()), ([0.0, 5.0].as_slice(), [2.0, 4.0].as_slice()));
        fitted.apply(&mut samples, &[2, 1, 2]);
        assert_eq!(samples, [0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn none_leaves_samples_alone_and_a_given_one_is_checked() {
        let mut samples = vec![3.0, 4.0];
        Normalization::none().apply(&mut samples, &[2]);
        assert_eq!(samples, [3.0, 4.0]);
        let given = |offset: &[f32], scale: &[f32]| {
            let given = GivenNormalization { offset: offset.to_vec(), scale: scale.to_vec() };
            Normalization::given(&NormalizeOptions::Given(given), &[2])
        };
        given(&[1.0, 2.0], &[2.0, 4.0]).unwrap().unwrap().apply(&mut samples, &[2]);
        assert_eq!(samples, [1.0, 0.5]);
        assert!(given(&[1.0], &[2.0, 4.0]).unwrap_err().to_string().contains("data.normalize.offset"));
        assert!(given(&[1.0, 1.0], &[2.0, 0.0]).unwrap_err().to_string().contains("data.normalize.scale"));
    }

    proptest! {
         /// Compares with the two passes of the definition.
        #[test]
        fn one_pass_finds_mean_and_deviation(
            samples in prop::collection::vec(-100f32..100.0, 1..200),
            shift in prop::sample::select(vec![0f32, 1000.0]),
        ) {
            let samples: Vec<f32> = samples.iter().map(|value| value + shift).collect();
            let fitted = fitted(Normalize::Standard, &samples, &[1]);
            let count = samples.len() as f64;
            let mean = samples.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
            let variance = samples.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
            prop_assert!((f64::from(fitted.offset[0]) - mean).abs() <= 1e-6 * mean.abs().max(1.0));
            if variance.sqrt() as f32 > 1e-3 {
                prop_assert!((f64::from(fitted.scale[0]) - variance.sqrt()).abs() <= 1e-5 * variance.sqrt());
            }
        }
    }
}
