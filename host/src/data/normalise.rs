//! Normalisation of features.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Table;

/// How features are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// Not at all.
    #[default]
    None,
    /// To mean 0 and standard deviation 1 over the training split.
    Standard,
    /// To the range from 0 to 1 over the training split.
    Range,
}

/// `(x - offset) / scale`, with one pair for each index of a sample's first dimension: for each feature of a vector,
/// for each channel of an image. Kept with the model, because the model takes normalised samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// How it was fitted.
    pub kind: Normalise,
    /// What is subtracted; empty for none.
    pub offset: Vec<f32>,
    /// What is divided by; empty for none, never zero.
    pub scale: Vec<f32>,
}

impl Normalisation {
    /// The one that changes nothing.
    pub fn none() -> Normalisation {
        Normalisation { kind: Normalise::None, offset: Vec::new(), scale: Vec::new() }
    }

    /// Fits on the samples at `indices`, of which there is at least one unless `kind` is none. Sums are in f64. A
    /// constant feature keeps its scale.
    pub(super) fn fit(kind: Normalise, table: &Table, indices: &[u32]) -> Normalisation {
        let groups = group_count(&table.sample_shape);
        let mut offset = Vec::new();
        let mut scale = Vec::new();
        if kind != Normalise::None {
            let group_length = table.row_length / groups.max(1);
            for group in 0..groups {
                let values = || {
                    indices.iter().flat_map(move |index| {
                        let start = *index as usize * table.row_length + group * group_length;
                        table.features[start..start + group_length].iter().map(|value| f64::from(*value))
                    })
                };
                let (group_offset, group_scale) = match kind {
                    Normalise::Range => {
                        let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                            (low.min(value), high.max(value))
                        });
                        (low, high - low)
                    }
                    _ => {
                        let count = (indices.len() * group_length) as f64;
                        let mean = values().sum::<f64>() / count;
                        let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
                        (mean, variance.sqrt())
                    }
                };
                offset.push(group_offset as f32);
                let usable = (group_scale as f32).is_normal();
                scale.push(if usable { group_scale as f32 } else { 1.0 });
            }
        }
        Normalisation { kind, offset, scale }
    }

    /// Normalises samples of `sample_shape` that lie one after another, in place.
    pub fn apply(&self, samples: &mut [f32], sample_shape: &[i64]) {
        let groups = self.offset.len();
        if groups == 0 {
            return;
        }
        let row_length: usize = sample_shape.iter().map(|length| usize::try_from(*length).unwrap_or(0)).product();
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

fn group_count(sample_shape: &[i64]) -> usize {
    sample_shape.first().map_or(1, |length| usize::try_from(*length).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(features: Vec<f32>, sample_shape: Vec<i64>) -> Table {
        let row_length = sample_shape.iter().product::<i64>() as usize;
        Table { targets: vec![0; features.len() / row_length], features, sample_shape, row_length }
    }

    #[test]
    fn vectors_are_normalised_by_feature_on_the_chosen_rows() {
        let mut table = table(vec![1.0, 10.0, 3.0, 10.0, 100.0, 12.0], vec![2]);
        let fitted = Normalisation::fit(Normalise::Standard, &table, &[0, 1]);
        assert_eq!(
            (fitted.offset.as_slice(), fitted.scale.as_slice()),
            ([2.0, 10.0].as_slice(), [1.0, 1.0].as_slice())
        );
        fitted.apply(&mut table.features, &table.sample_shape);
        assert_eq!(table.features, [-1.0, 0.0, 1.0, 0.0, 98.0, 2.0]);
    }

    #[test]
    fn images_are_normalised_by_channel() {
        let mut table = table(vec![0.0, 2.0, 5.0, 9.0], vec![2, 1, 2]);
        let fitted = Normalisation::fit(Normalise::Range, &table, &[0]);
        assert_eq!((fitted.offset.as_slice(), fitted.scale.as_slice()), ([0.0, 5.0].as_slice(), [2.0, 4.0].as_slice()));
        fitted.apply(&mut table.features, &table.sample_shape);
        assert_eq!(table.features, [0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn none_leaves_samples_alone() {
        let mut table = table(vec![3.0, 4.0], vec![2]);
        Normalisation::fit(Normalise::None, &table, &[]).apply(&mut table.features, &table.sample_shape);
        assert_eq!(table.features, [3.0, 4.0]);
    }
}
