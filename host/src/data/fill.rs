//! Missing features, and what replaces them.

use std::path::Path;
use std::sync::Arc;

use super::rows::Rows;
use super::{DataError, FeatureColumn, FeatureContent, Normalization, Samples};

/// The rows that are read at once to fit what replaces missing features.
const ROWS_AT_ONCE: usize = 1024;

/// What replaces missing features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filling {
    /// The mean of those in the training split.
    Mean,
    /// The median of those in the training split.
    Median,
    /// Zero.
    Zero,
}

/// The features of a sample that some samples may lack: NaN stands for them in the rows.
pub(super) struct Gaps {
    pub(super) filling: Filling,
    /// By their positions in a sample.
    pub(super) features: Vec<Gap>,
}

/// A feature that some samples may lack.
pub(super) struct Gap {
    pub(super) position: usize,
    /// Its column among those of the samples' description.
    pub(super) column: usize,
    /// Its name, for messages.
    pub(super) name: String,
    /// How many samples lack it, in all splits.
    pub(super) count: usize,
}

impl Gaps {
    /// What replaces the features, from the training split: the rows at `indices`, of `row_length` numbers, of `path`.
    ///
    /// # Errors
    ///
    /// Rows that cannot be read, or a feature that all of them lack.
    pub(super) fn fit(
        &self,
        path: &Path,
        rows: &dyn Rows,
        row_length: usize,
        indices: &[u32],
    ) -> Result<Fill, DataError> {
        let mut present: Vec<Vec<f64>> = self.features.iter().map(|_| Vec::new()).collect();
        let needed: &[u32] = if self.filling == Filling::Zero { &[] } else { indices };
        let mut samples = Vec::new();
        for indices in needed.chunks(ROWS_AT_ONCE) {
            samples.resize(indices.len() * row_length, 0.0);
            rows.read_stored(indices, &mut samples)?;
            for row in samples.chunks_exact(row_length.max(1)) {
                for (gap, present) in self.features.iter().zip(&mut present) {
                    present.extend(row.get(gap.position).filter(|value| !value.is_nan()));
                }
            }
        }
        let values = self.features.iter().zip(present).map(|(gap, mut present)| match self.filling {
            Filling::Zero => Ok(0.0),
            _ if present.is_empty() => {
                Err(DataError::NothingToFill { path: path.to_owned(), feature: gap.name.clone() })
            }
            Filling::Mean => Ok(present.iter().sum::<f64>() / present.len() as f64),
            Filling::Median => Ok(median(&mut present)),
        });
        Ok(Fill { values: values.collect::<Result<_, _>>()? })
    }

    /// What was replaced by what, for people.
    pub(super) fn notes(&self, fill: &Fill) -> Vec<String> {
        let lacking = self.features.iter().zip(&fill.values).filter(|(gap, _)| gap.count > 0);
        let note = |(gap, value): (&Gap, &f64)| {
            let Gap { name, count, .. } = gap;
            let values = if *count == 1 { "value" } else { "values" };
            let what = match self.filling {
                Filling::Mean => format!("the mean of `train`, {value},"),
                Filling::Median => format!("the median of `train`, {value},"),
                Filling::Zero => "0".to_owned(),
            };
            format!("{name}: {what} replaces {count} missing {values}")
        };
        lacking.map(note).collect()
    }

    /// Adds what replaces missing numbers to the description of the samples.
    pub(super) fn describe(&self, fill: &Fill, samples: &mut Samples) {
        let Samples::Table { columns, .. } = samples else { return };
        for (gap, value) in self.features.iter().zip(&fill.values) {
            if let Some(FeatureColumn { content: FeatureContent::Numbers { fill }, .. }) = columns.get_mut(gap.column) {
                *fill = Some(*value);
            }
        }
    }

    /// The rows without missing features.
    pub(super) fn apply(&self, fill: &Fill, rows: Arc<dyn Rows>, row_length: usize) -> Arc<dyn Rows> {
        let lacking = self.features.iter().zip(&fill.values).filter(|(gap, _)| gap.count > 0);
        let values: Vec<(usize, f64)> = lacking.map(|(gap, value)| (gap.position, *value)).collect();
        if values.is_empty() {
            return rows;
        }
        Arc::new(Filled { rows, values, row_length })
    }
}

/// What replaces missing features: a value for each of [`Gaps::features`].
pub(super) struct Fill {
    pub(super) values: Vec<f64>,
}

/// Rows whose missing values have been replaced.
struct Filled {
    rows: Arc<dyn Rows>,
    /// By their positions in a sample.
    values: Vec<(usize, f64)>,
    row_length: usize,
}

impl Rows for Filled {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn fits_f32(&self) -> bool {
        false
    }

    fn in_memory(&self) -> bool {
        self.rows.in_memory()
    }

    fn read_stored(&self, indices: &[u32], values: &mut [f64]) -> Result<(), DataError> {
        self.rows.read_stored(indices, values)?;
        for row in values.chunks_exact_mut(self.row_length.max(1)) {
            for (position, fill) in &self.values {
                if row[*position].is_nan() {
                    row[*position] = *fill;
                }
            }
        }
        Ok(())
    }

    fn read(&self, indices: &[u32], normalization: &Normalization, values: &mut [f32]) -> Result<(), DataError> {
        let mut stored = vec![0.0; self.row_length];
        for (index, row) in indices.iter().zip(values.chunks_exact_mut(self.row_length.max(1))) {
            self.read_stored(&[*index], &mut stored)?;
            let written = normalization.write(&stored, |value| value, row);
            written.map_err(|position| DataError::Overflow { sample: *index as usize, position })?;
        }
        Ok(())
    }
}

/// The value in the middle, or the mean of the two there. `values` is not empty.
fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let is_odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    match is_odd {
        true => upper,
        false => f64::midpoint(below.iter().copied().fold(f64::NEG_INFINITY, f64::max), upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rows::Table;
    use crate::data::{CategoricalAs, Column};

    fn rows(values: Vec<f64>) -> Arc<dyn Rows> {
        Arc::new(Table { values, row_length: 2 })
    }

    /// What is missing in two rows of the second of two columns.
    fn gaps(filling: Filling) -> Gaps {
        Gaps { filling, features: vec![Gap { position: 1, column: 1, name: "`b`".to_owned(), count: 2 }] }
    }

    fn fit(filling: Filling, rows: &dyn Rows, indices: &[u32]) -> Result<Fill, DataError> {
        gaps(filling).fit(Path::new("table"), rows, 2, indices)
    }

    #[test]
    fn the_rows_of_the_training_split_decide_and_no_others() {
        let training = rows(vec![0.0, 1.0, 0.0, f64::NAN, 0.0, 2.0, 0.0, 6.0, 0.0, 1000.0]);
        for (filling, expected, note) in [
            (Filling::Mean, 3.0, "`b`: the mean of `train`, 3, replaces 2 missing values"),
            (Filling::Median, 2.0, "`b`: the median of `train`, 2, replaces 2 missing values"),
            (Filling::Zero, 0.0, "`b`: 0 replaces 2 missing values"),
        ] {
            let fill = fit(filling, &*training, &[0, 1, 2, 3]).unwrap();
            assert_eq!(gaps(filling).notes(&fill), [note]);
            let filled = |rows: Arc<dyn Rows>| gaps(filling).apply(&fill, rows, 2);
            let mut read = [0.0; 4];
            filled(Arc::clone(&training)).read_stored(&[1, 4], &mut read).unwrap();
            assert_eq!(read, [0.0, expected, 0.0, 1000.0]);
            let mut read = [0.0; 2];
            filled(rows(vec![f64::NAN, f64::NAN])).read_stored(&[0], &mut read).unwrap();
            assert!(read[0].is_nan() && read[1] == expected, "another feature is not touched");
            // Filled as it is stored, then normalized.
            let normalization = Normalization { offset: vec![0.0, 1.0], scale: vec![1.0, 2.0] };
            let mut read = [0.0; 2];
            filled(Arc::clone(&training)).read(&[1], &normalization, &mut read).unwrap();
            assert_eq!(read, [0.0, ((expected - 1.0) / 2.0) as f32]);
        }
    }

    #[test]
    fn the_description_of_a_table_has_what_replaces() {
        let number = |name: &str, fill| FeatureColumn {
            column: Column::Name(name.to_owned()),
            content: FeatureContent::Numbers { fill },
        };
        let table = |fill| Samples::Table {
            categorical_as: CategoricalAs::OneHot,
            columns: vec![number("a", None), number("b", fill)],
        };
        let mut samples = table(None);
        let fill = fit(Filling::Mean, &*rows(vec![0.0, 1.0, 0.0, 2.0]), &[0, 1]).unwrap();
        gaps(Filling::Mean).describe(&fill, &mut samples);
        assert_eq!(samples, table(Some(1.5)));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_two() {
        assert_eq!((median(&mut [4.0, 1.0]), median(&mut [9.0, 1.0, 4.0])), (2.5, 4.0));
        assert_eq!(median(&mut [5.0, 1.0, 2.0, 100.0]), 3.5);
    }

    #[test]
    fn a_feature_that_no_row_of_the_training_split_has_cannot_be_fitted() {
        let training = rows(vec![0.0, f64::NAN, 0.0, 5.0]);
        let error = fit(Filling::Mean, &*training, &[0]).err().unwrap();
        assert_eq!(error.to_string(), "`table`: no sample of `train` has the feature `b`");
        assert!(fit(Filling::Zero, &*training, &[0]).is_ok());
    }
}
