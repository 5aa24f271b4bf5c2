//! Confusion matrices in the history.

use plugin_api::protocol::ArrayPoint;
use plugin_api::{Result, Run};
use serde::Serialize;

/// The ending of their names: `val_confusion_matrix`.
const NAME: &str = "confusion_matrix";

/// How often each class was predicted as each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfusionMatrix {
    /// Its name in the history.
    pub name: String,
    /// The epoch in which it was measured, from 1.
    pub epoch: u64,
    /// The global step after which it was measured.
    pub step: u64,
    /// The names of the classes, or their numbers.
    pub classes: Vec<String>,
    /// The counts, row by row: the true class is the row, the predicted one is the column.
    pub counts: Vec<u64>,
}

/// A number of samples of one class that were predicted as another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion<'m> {
    /// Their class.
    pub class: &'m str,
    /// What they were predicted as.
    pub predicted: &'m str,
    /// How many there are.
    pub count: u64,
}

impl ConfusionMatrix {
    /// The latest matrix of each name.
    ///
    /// # Errors
    ///
    /// Those of every service.
    pub fn latest(run: &Run<'_>) -> Result<Vec<Self>> {
        let arrays = run.latest_arrays()?;
        let is_matrix =
            |name: &str| name.strip_suffix(NAME).is_some_and(|split| split.is_empty() || split.ends_with('_'));
        if !arrays.keys().any(|name| is_matrix(name)) {
            return Ok(Vec::new());
        }
        let names = run.info()?.data.target_names;
        let matrices = arrays.into_iter().filter(|(name, _)| is_matrix(name));
        Ok(matrices.filter_map(|(name, array)| Self::of(name, array, &names)).collect())
    }

    /// Those of [`Self::latest`] that were measured at `global_step`.
    ///
    /// # Errors
    ///
    /// Those of every service.
    pub fn of_step(run: &Run<'_>, global_step: u64) -> Result<Vec<Self>> {
        let mut matrices = Self::latest(run)?;
        matrices.retain(|matrix| matrix.step == global_step);
        Ok(matrices)
    }

    /// A matrix of an array; `None` if the array is none.
    fn of(name: String, array: ArrayPoint, names: &[String]) -> Option<Self> {
        let [rows, columns] = *array.shape else { return None };
        if rows != columns || rows == 0 {
            return None;
        }
        let classes = match names.len() as u64 == rows {
            true => names.to_vec(),
            false => (0..rows).map(|class| class.to_string()).collect(),
        };
        // Counts are whole numbers, and not negative.
        let counts = array.values.into_iter().map(|count| count as u64).collect();
        Some(Self { name, epoch: array.epoch, step: array.global_step, classes, counts })
    }

    /// The counts of each class: its name, and how often it was predicted as each.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &[u64])> {
        self.classes.iter().map(String::as_str).zip(self.counts.chunks(self.classes.len().max(1)))
    }

    /// The most frequent errors, at most `most` of them.
    pub fn largest_errors(&self, most: usize) -> Vec<Confusion<'_>> {
        let mut errors: Vec<Confusion<'_>> = self
            .rows()
            .flat_map(|(class, counts)| {
                let errors =
                    self.classes.iter().zip(counts).filter(move |(other, count)| *other != class && **count > 0);
                errors.map(move |(predicted, count)| Confusion { class, predicted, count: *count })
            })
            .collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        errors.truncate(most);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(shape: &[u64], values: &[f32]) -> ArrayPoint {
        ArrayPoint { epoch: 2, global_step: 7, shape: shape.to_vec(), values: values.to_vec() }
    }

    #[test]
    fn a_matrix_has_the_names_of_the_classes() {
        let names = ["cat".to_owned(), "dog".to_owned()];
        let matrix = ConfusionMatrix::of("val".to_owned(), array(&[2, 2], &[5.0, 3.0, 4.0, 9.0]), &names).unwrap();
        let rows: Vec<_> = matrix.rows().collect();
        assert_eq!(rows, [("cat", [5, 3].as_slice()), ("dog", [4, 9].as_slice())]);
        assert_eq!(matrix.largest_errors(1), [Confusion { class: "dog", predicted: "cat", count: 4 }]);
        let matrix = ConfusionMatrix::of("val".to_owned(), array(&[1, 1], &[5.0]), &names).unwrap();
        assert_eq!((matrix.classes.as_slice(), matrix.largest_errors(9)), (["0".to_owned()].as_slice(), Vec::new()));
    }

    #[test]
    fn other_arrays_are_no_matrices() {
        for (shape, values) in [(vec![2], vec![1.0, 2.0]), (vec![1, 2], vec![1.0, 2.0]), (vec![0, 0], vec![])] {
            assert_eq!(ConfusionMatrix::of("val".to_owned(), array(&shape, &values), &[]), None);
        }
    }
}
