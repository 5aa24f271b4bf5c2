//! Norms and histograms of tensors, as records for the monitors.

use plugin_api::protocol::{RecordValue, TensorSet};
use plugin_api::{Result, Run};

use super::values::{f32_values, is_f32, sum_of_squares};

/// The intervals of a histogram, of equal width from the least to the greatest value.
const BINS: usize = 64;

/// Which tensors are measured, and how.
pub(crate) struct Selection<'a> {
    pub(crate) include: &'a [String],
    pub(crate) exclude: &'a [String],
    pub(crate) histograms: bool,
}

/// Puts the records `<what>_norm/<tensor>` and `<what>_histogram/<tensor>` of a set's f32 tensors, and
/// `total_<what>_norm`, the norm of all of them together.
///
/// # Errors
///
/// A hook in which the set cannot be read.
pub(crate) fn put_records(run: &mut Run<'_>, set: TensorSet, what: &str, selection: &Selection<'_>) -> Result<()> {
    let mut records = Vec::new();
    let mut squares = 0.0;
    for view in run.tensors(set)?.iter().filter(|view| is_f32(view)) {
        let name = view.name();
        if !monitor::selected(selection.include, selection.exclude, name) {
            continue;
        }
        let values = f32_values(run, view)?;
        let of_tensor = sum_of_squares(&values);
        squares += of_tensor;
        records.push((format!("{what}_norm/{name}"), RecordValue::Scalar { value: of_tensor.sqrt() }));
        if let Some(histogram) = selection.histograms.then(|| histogram(&values)).flatten() {
            records.push((format!("{what}_histogram/{name}"), histogram));
        }
    }
    if !records.is_empty() {
        records.push((format!("total_{what}_norm"), RecordValue::Scalar { value: squares.sqrt() }));
    }
    records.into_iter().try_for_each(|(name, value)| run.put_record(&name, value))
}

/// The distribution of the finite values; `None` if there is none.
pub(crate) fn histogram(values: &[f32]) -> Option<RecordValue> {
    let finite = || values.iter().filter(|value| value.is_finite()).map(|&value| f64::from(value));
    let (least, greatest) = (finite().reduce(f64::min)?, finite().reduce(f64::max)?);
    if least == greatest {
        // Borders must ascend; half of 1 to each side is what NumPy does.
        let edges = vec![least - 0.5, least + 0.5];
        return Some(RecordValue::Histogram { edges, counts: vec![finite().count() as f64] });
    }
    let width = (greatest - least) / BINS as f64;
    let mut counts = vec![0.0; BINS];
    for value in finite() {
        // The greatest value belongs to the last interval.
        counts[(((value - least) / width) as usize).min(BINS - 1)] += 1.0;
    }
    let mut edges: Vec<f64> = (0..BINS).map(|border| least + width * border as f64).collect();
    edges.push(greatest);
    Some(RecordValue::Histogram { edges, counts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: &[f32]) -> Option<(Vec<f64>, Vec<f64>)> {
        match histogram(values)? {
            RecordValue::Histogram { edges, counts } => Some((edges, counts)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_finite_value_is_counted_once_between_the_least_and_the_greatest() {
        let (edges, counts) = counts(&[-1.0, 0.0, f32::NAN, 1.0, f32::INFINITY, 1.0]).unwrap();
        assert_eq!((edges.len(), edges[0], edges[64]), (65, -1.0, 1.0));
        assert!(edges.is_sorted());
        assert_eq!((counts[0], counts[32], counts[63], counts.iter().sum::<f64>()), (1.0, 1.0, 2.0, 4.0));
    }

    #[test]
    fn equal_values_have_one_interval_and_no_values_no_histogram() {
        assert_eq!(counts(&[2.0, 2.0]), Some((vec![1.5, 2.5], vec![2.0])));
        assert_eq!((counts(&[]), counts(&[f32::NAN])), (None, None));
    }
}
