//! What is lost when numbers are narrowed to f32: different values that become the same.

use std::ops::Range;
use std::path::Path;

use super::Normalization;
use super::dataset::row_length;
use super::normalize::group_count;

/// The numbers that are looked at in all, so that the cost does not grow with the data.
const EXAMINED: usize = 1 << 20;

/// The parts of the data that they come from, at equal distances: the neighbors in a file are the likeliest to differ by
/// little.
const BLOCKS: usize = 16;

/// Values that differ by less than this share of the largest differ by the rounding of f64, as 0.1 + 0.2 and 0.3 do.
const NOISE: f64 = 1.0 / (1u64 << 44) as f64;

/// Fractions may become the same where the difference is less than this share of their whole range: measurements are no
/// more exact than that. Whole numbers are exact.
const RESOLUTION: f64 = 1.0 / (1 << 14) as f64;

/// Whole numbers of f64 up to this one are those that were stored.
const LARGEST_WHOLE: f64 = (1u64 << 53) as f64;

/// Different values of a feature that are the same once they are f32.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Merged {
    /// Different values that were looked at.
    different: usize,
    /// Those that are left as f32.
    left: usize,
    /// Two of those that became the same, as they are stored.
    example: [f64; 2],
}

/// What is said about the features of `path`, or about the channels if they are `[channels, …]`; `stored` are some of its
/// samples, and `names` are those of a sample's numbers, if they have any.
pub(super) fn features(
    path: &Path,
    stored: &[f64],
    sample_shape: &[i64],
    names: &[String],
    normalization: &Normalization,
    fitted: bool,
) -> Option<String> {
    let (row_length, groups) = (row_length(sample_shape), group_count(sample_shape));
    let merged = merged_groups(stored, row_length, groups, normalization);
    let what = if sample_shape.len() > 1 { "channel" } else { "feature" };
    let name = |group: usize| match names.get(group).filter(|_| names.len() == groups) {
        Some(name) => format!("{what} `{name}`"),
        None => format!("{what} {group}"),
    };
    let cure = match (normalization.is_none(), fitted) {
        (true, _) => "`normalize = \"standard\"` and `\"range\"` are computed before that",
        (false, true) => "make several features of it, such as days and seconds",
        (false, false) => "give an `offset` that is near the values",
    };
    told(path, &merged, name, "the model", cure)
}

/// What is said about the numbers to predict, `names.len()` for each sample.
pub(super) fn targets(path: &Path, numbers: &[f64], names: &[String]) -> Option<String> {
    let width = names.len();
    let rows = numbers.len().checked_div(width)?;
    let stored: Vec<f64> = examined(rows, width)
        .into_iter()
        .flat_map(|rows| &numbers[rows.start * width..rows.end * width])
        .copied()
        .collect();
    let merged = merged_groups(&stored, width, width, &Normalization::none());
    let name = |group: usize| format!("the target `{}`", names[group]);
    told(path, &merged, name, "the loss", "subtract a number near their mean")
}

fn told(
    path: &Path,
    merged: &[(usize, Merged)],
    name: impl Fn(usize) -> String,
    taker: &str,
    cure: &str,
) -> Option<String> {
    let (group, Merged { different, left, example: [first, second] }) = merged.first()?;
    let others = match merged.len() - 1 {
        0 => String::new(),
        1 => ", and one more like it".to_owned(),
        others => format!(", and {others} more like it"),
    };
    Some(format!(
        "`{}`: {}{others}: of {different} different values, {left} stay different in the 32 bits that {taker} takes \
         (`{first}` and `{second}` do not); {cure}",
        path.display(),
        name(*group),
    ))
}

/// The rows to look at, of `count` rows of `row_length` numbers.
pub(super) fn examined(count: usize, row_length: usize) -> Vec<Range<usize>> {
    let wanted = (EXAMINED / row_length.max(1)).max(1).min(count);
    let blocks = if wanted == count { 1 } else { BLOCKS.min(wanted) };
    let length = wanted / blocks;
    let first = |block| (count - length) / blocks * block;
    (0..blocks).map(|block| first(block)..first(block) + length).collect()
}

/// What a normalization and f32 make the same in the rows of `stored`, for each of `groups` features or channels: the
/// group and its loss.
fn merged_groups(
    stored: &[f64],
    row_length: usize,
    groups: usize,
    normalization: &Normalization,
) -> Vec<(usize, Merged)> {
    let group_length = (row_length / groups.max(1)).max(1);
    let rows = || stored.chunks_exact(row_length.max(1));
    let mut extents = vec![Extent::default(); groups];
    for row in rows() {
        for (values, extent) in row.chunks_exact(group_length).zip(&mut extents) {
            values.iter().for_each(|value| extent.add(*value));
        }
    }
    let mut values = Vec::new();
    let losses = extents.iter().enumerate().filter_map(|(group, extent)| {
        let (offset, scale) = normalization.of(group);
        let narrow = |value: f64| ((value - offset) / scale) as f32;
        // Most data ends here: the widest step between two f32 is narrower than any difference that counts.
        let widest = f64::from(narrow(extent.low).abs().max(narrow(extent.high).abs()));
        let counts = extent.counts();
        if widest * f64::from(f32::EPSILON) * scale.abs() < counts {
            return None;
        }
        values.clear();
        for row in rows() {
            values.extend_from_slice(&row[group * group_length..][..group_length]);
        }
        Some((group, merged(&mut values, counts, narrow)?))
    });
    losses.collect()
}

/// The range of values, and whether all are whole numbers.
#[derive(Clone, Copy, Debug)]
struct Extent {
    low: f64,
    high: f64,
    whole: bool,
}

impl Default for Extent {
    fn default() -> Self {
        Extent { low: f64::INFINITY, high: f64::NEG_INFINITY, whole: true }
    }
}

impl Extent {
    fn add(&mut self, value: f64) {
        (self.low, self.high) = (self.low.min(value), self.high.max(value));
        // Without a call, unlike `trunc`; numbers beyond i64 are no whole ones that f64 knows.
        self.whole &= (value as i64) as f64 == value;
    }

    /// The least difference between two values that counts.
    fn counts(&self) -> f64 {
        let largest = self.low.abs().max(self.high.abs());
        match self.whole && largest <= LARGEST_WHOLE {
            true => 1.0,
            false => (largest * NOISE).max((self.high - self.low) * RESOLUTION),
        }
    }
}

/// What `narrow` makes the same, if values differ by what `counts`. Changes the order of `values`.
fn merged(values: &mut Vec<f64>, counts: f64, narrow: impl Fn(f64) -> f32) -> Option<Merged> {
    values.sort_unstable_by(f64::total_cmp);
    values.dedup();
    let mut merged = Merged { different: values.len(), left: 0, example: [0.0; 2] };
    let mut found = false;
    for same in values.chunk_by(|left, right| narrow(*left) == narrow(*right)) {
        merged.left += 1;
        if let [first, .., last] = same
            && last - first >= counts
            && !found
        {
            (merged.example, found) = ([*first, *last], true);
        }
    }
    found.then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The different values of one feature, and those that are left.
    fn found(values: &[f64], offset: f64, scale: f64) -> Option<(usize, usize)> {
        let normalization = Normalization { offset: vec![offset], scale: vec![scale] };
        let merged = merged_groups(values, 1, 1, &normalization);
        merged.first().map(|(_, merged)| (merged.different, merged.left))
    }

    #[test]
    fn whole_numbers_that_become_one_are_found_unless_the_offset_keeps_them_apart() {
        let seconds: Vec<f64> = (0..1000).map(|second| 1.7e9 + f64::from(second)).collect();
        // f32 has a number every 128 seconds here.
        assert_eq!(found(&seconds, 0.0, 1.0), Some((1000, 9)));
        assert_eq!(found(&seconds, 1.7e9, 300.0), None);
        assert_eq!(found(&[16_777_216.0, 16_777_217.0], 0.0, 1.0), Some((2, 1)));
        assert_eq!(found(&[16_777_215.0, 16_777_216.0], 0.0, 1.0), None);
        assert_eq!(found(&[0.0, 255.0], 0.0, 255.0), None);
    }

    #[test]
    fn the_noise_of_floats_is_no_loss() {
        assert_eq!(found(&[0.3, 0.1 + 0.2], 0.0, 1.0), None);
        assert_eq!(found(&[0.1 + 0.2 - 0.3, 0.0, 1.0], 0.0, 1.0), None);
        // Numbers of 17 digits, far from zero: f32 keeps 100 000 steps of the range.
        let many: Vec<f64> =
            (0..5000).map(|index| 1000.0 + (f64::from(index) * 0.618_033_988_7).fract() * 7.0).collect();
        assert_eq!(found(&many, 0.0, 1.0), None);
        assert_eq!(found(&[0.3; 5], 0.0, 1.0), None);
        assert_eq!(found(&[], 0.0, 1.0), None);
    }

    #[test]
    fn fractions_that_lose_their_range_are_found() {
        let prices: Vec<f64> = (0..100).map(|cents| 1e7 + f64::from(cents) / 100.0).collect();
        assert_eq!(found(&prices, 0.0, 1.0), Some((100, 2)));
        assert_eq!(found(&prices, 1e7, 1.0), None);
        // An offset that is far from the values.
        let values: Vec<f64> = (0..100).map(|index| f64::from(index) / 100.0).collect();
        assert!(found(&values, -1e7, 1.0).is_some());
    }

    #[test]
    fn a_bounded_part_is_looked_at() {
        let only = |count, row_length| (examined(count, row_length).len(), examined(count, row_length)[0].clone());
        assert_eq!((only(100, 5), only(0, 5)), ((1, 0..100), (1, 0..0)));
        let blocks = examined(100_000_000, 4);
        assert_eq!(blocks.iter().map(ExactSizeIterator::len).sum::<usize>(), EXAMINED / 4);
        assert!(blocks.windows(2).all(|pair| pair[0].end <= pair[1].start) && blocks[15].end <= 100_000_000);
        assert_eq!(only(10, EXAMINED * 2), (1, 0..1));
    }

    #[test]
    fn the_message_says_what_where_and_what_to_do() {
        let stored: Vec<f64> = (0..500).flat_map(|index| [f64::from(index), 1.7e9 + f64::from(index)]).collect();
        let path = Path::new("x.npy");
        assert_eq!(
            features(path, &stored, &[2], &[], &Normalization::none(), false).unwrap(),
            "`x.npy`: feature 1: of 500 different values, 5 stay different in the 32 bits that the model takes \
             (`1700000000` and `1700000064` do not); `normalize = \"standard\"` and `\"range\"` are computed before that"
        );
        let names = ["a".to_owned(), "b".to_owned()];
        let told = features(path, &stored, &[2], &names, &Normalization::none(), false).unwrap();
        assert!(told.starts_with("`x.npy`: feature `b`: of 500 different values"), "{told}");
        let told = targets(path, &stored, &names).unwrap();
        assert!(told.starts_with("`x.npy`: the target `b`: of 500 different values, 5 stay different"), "{told}");
        assert_eq!(targets(path, &stored[..2], &names), None);
    }

    #[test]
    fn each_feature_has_its_own_normalization() {
        let stored: Vec<f64> = (0..500).flat_map(|index| [f64::from(index), 1.7e9 + f64::from(index)]).collect();
        let none = merged_groups(&stored, 2, 2, &Normalization::none());
        assert_eq!(none.iter().map(|(group, _)| *group).collect::<Vec<_>>(), [1]);
        let normalization = Normalization { offset: vec![0.0, 1.7e9], scale: vec![1.0, 1.0] };
        assert_eq!(merged_groups(&stored, 2, 2, &normalization), []);
    }
}
