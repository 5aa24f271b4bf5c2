//! Histograms with TensorFlow's buckets: limits that grow by a tenth, from 1e-12 to 1e20, their negatives, and zero
//! (`tensorflow/core/lib/histogram/histogram.cc`), as in `SummaryWriter.add_histogram`.

use std::sync::OnceLock;

use crate::proto::Histogram;

/// The key bits of a float: sign, exponent, and four bits of the mantissa. Two floats with the same key differ by less
/// than a sixteenth, so that at most one limit is between them.
const KEY_BITS: u32 = 1 + 8 + 4;

struct Buckets {
    /// The upper limit of each bucket; a value belongs to the first whose limit is greater.
    limits: Vec<f64>,
    /// For each key, the bucket of its smallest value.
    first: Vec<u16>,
}

fn buckets() -> &'static Buckets {
    static BUCKETS: OnceLock<Buckets> = OnceLock::new();
    BUCKETS.get_or_init(|| {
        let growing = std::iter::successors(Some(1e-12), |border: &f64| Some(border * 1.1));
        let positive: Vec<f64> = growing.take_while(|border| *border < 1e20).chain([f64::MAX]).collect();
        let negative = positive.iter().rev().map(|border| -border);
        let limits: Vec<f64> = negative.chain([0.0]).chain(positive.iter().copied()).collect();
        let first = (0..1u32 << KEY_BITS)
            .map(|key| {
                let (low, high) = (key << (32 - KEY_BITS), (key << (32 - KEY_BITS)) | ((1 << (32 - KEY_BITS)) - 1));
                let least = f64::from(f32::from_bits(low)).min(f64::from(f32::from_bits(high)));
                limits.partition_point(|limit| *limit <= least) as u16
            })
            .collect();
        Buckets { limits, first }
    })
}

/// The histogram of `values`, and the number of NaN and infinite values, which are not in it. `None` if it is empty.
pub(crate) fn of_values(values: &[f32]) -> (Option<Histogram>, u64) {
    let Buckets { limits, first } = buckets();
    let mut counts = vec![0u64; limits.len()];
    let mut left_out = 0;
    let (mut min, mut max, mut sum, mut sum_squares) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0);
    for &value in values {
        if !value.is_finite() {
            left_out += 1;
            continue;
        }
        let mut bucket = usize::from(first[(value.to_bits() >> (32 - KEY_BITS)) as usize]);
        let value = f64::from(value);
        while limits[bucket] <= value {
            bucket += 1;
        }
        counts[bucket] += 1;
        (min, max) = (min.min(value), max.max(value));
        sum += value;
        sum_squares += value * value;
    }
    let num = values.len() as f64 - left_out as f64;
    if num == 0.0 {
        return (None, left_out);
    }
    let counted: Vec<f64> = counts.iter().map(|count| *count as f64).collect();
    let (bucket_limit, bucket) = without_empty(limits, &counted);
    (Some(Histogram { min, max, num, sum, sum_squares, bucket_limit, bucket }), left_out)
}

/// Merges empty buckets in a row (`EncodeToProto` with `preserve_zero_buckets` false).
fn without_empty(limits: &[f64], counts: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let last_of_empty = |index: &usize| counts[*index] > 0.0 || counts.get(index + 1).is_none_or(|next| *next > 0.0);
    let kept = (0..counts.len()).filter(last_of_empty);
    kept.map(|index| (limits[index], counts[index])).unzip()
}

/// A histogram with given `edges`, one more than `counts`. Unknown statistics are computed from the middles. `None` if
/// it is empty, or the edges are not ascending numbers.
pub(crate) fn of_edges(edges: &[f64], counts: &[f64]) -> Option<Histogram> {
    let ascending = edges.windows(2).all(|pair| matches!(pair, [low, high] if low <= high && high.is_finite()));
    let countable = counts.iter().all(|count| count.is_finite() && *count >= 0.0);
    let (first, limits) = edges.split_first()?;
    if !first.is_finite() || !ascending || !countable || limits.len() != counts.len() || limits.is_empty() {
        return None;
    }
    let middles = || edges.windows(2).map(|pair| pair.iter().sum::<f64>() / 2.0).zip(counts);
    Some(Histogram {
        min: *first,
        max: *limits.last()?,
        num: counts.iter().sum(),
        sum: middles().map(|(middle, count)| middle * count).sum(),
        sum_squares: middles().map(|(middle, count)| middle * middle * count).sum(),
        bucket_limit: limits.to_vec(),
        bucket: counts.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn borders_are_those_of_tensorflow() {
        let limits = &buckets().limits;
        // `len(torch.utils.tensorboard.writer.SummaryWriter._get_default_bins(self))` is 1549, without the outermost
        // two.
        assert_eq!(limits.len(), 774 * 2 + 3);
        assert_eq!(limits[limits.len() / 2 - 1..=limits.len() / 2 + 2], [-1e-12, 0.0, 1e-12, 1e-12 * 1.1]);
    }

    #[test]
    fn empty_buckets_in_a_row_are_one() {
        let (histogram, left_out) = of_values(&[1.0, 1.0, 2.0, f32::NAN, f32::INFINITY]);
        let histogram = histogram.unwrap();
        assert_eq!((histogram.min, histogram.max, histogram.num, left_out), (1.0, 2.0, 3.0, 2));
        assert_eq!((histogram.sum, histogram.sum_squares), (4.0, 6.0));
        assert_eq!(histogram.bucket, [0.0, 2.0, 0.0, 1.0, 0.0]);
        assert_eq!(of_values(&[f32::NAN]), (None, 1));
        assert_eq!(of_values(&[]), (None, 0));
    }

    #[test]
    fn edges_that_are_none_are_refused() {
        assert!(of_edges(&[0.0, 1.0, 3.0], &[2.0, 1.0]).is_some_and(|histogram| histogram.sum == 3.0));
        for (edges, counts) in
            [(&[0.0, 1.0][..], &[1.0, 2.0][..]), (&[1.0, 0.0], &[1.0]), (&[0.0, f64::NAN], &[1.0]), (&[0.0], &[])]
        {
            assert!(of_edges(edges, counts).is_none(), "{edges:?} {counts:?}");
        }
    }

    proptest! {
        #[test]
        fn every_value_lies_in_its_bucket(values in prop::collection::vec(any::<f32>(), 1..50)) {
            let (histogram, left_out) = of_values(&values);
            let finite: Vec<f64> = values.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value)).collect();
            prop_assert_eq!(finite.len() as u64 + left_out, values.len() as u64);
            if let Some(Histogram { bucket_limit, bucket, .. }) = histogram {
                let mut low = f64::NEG_INFINITY;
                for (limit, count) in bucket_limit.iter().zip(&bucket) {
                    let within = finite.iter().filter(|value| low <= **value && **value < *limit).count();
                    prop_assert_eq!(within as f64, *count);
                    low = *limit;
                }
            }
        }
    }
}
