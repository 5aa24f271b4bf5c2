//! The difference between two outputs.

/// The largest difference between two lists of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// `max |a - b| / max(1, max |b|)`; infinite if only one of them is NaN.
    pub relative: f64,
    /// Its index.
    pub position: usize,
}

impl Difference {
    /// Whether it is at most `tolerance`.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.relative <= tolerance
    }
}

/// The difference between `found` and `expected`; `None` if they have different numbers of values.
pub fn difference(found: &[f32], expected: &[f32]) -> Option<Difference> {
    if found.len() != expected.len() {
        return None;
    }
    let largest = expected
        .iter()
        .filter(|value| value.is_finite())
        .fold(1f64, |largest, value| largest.max(f64::from(value.abs())));
    let mut difference = Difference { relative: 0.0, position: 0 };
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found == expected || (found.is_nan() && expected.is_nan());
        let apart = match (f64::from(*found) - f64::from(*expected)).abs() {
            _ if same => 0.0,
            apart if apart.is_finite() => apart / largest,
            _ => f64::INFINITY,
        };
        if apart > difference.relative {
            difference = Difference { relative: apart, position };
        }
    }
    Some(difference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_value_but_at_least_to_one() {
        let relative = |found: &[f32], expected: &[f32]| difference(found, expected).map(|found| found.relative);
        assert_eq!(relative(&[0.5], &[0.25]), Some(0.25));
        assert_eq!(relative(&[110.0, 0.0], &[100.0, 0.0]), Some(0.1));
        assert_eq!(difference(&[0.0, 1.0], &[0.0, 3.0]).unwrap().position, 1);
        assert_eq!(relative(&[f32::NAN, f32::INFINITY], &[f32::NAN, f32::INFINITY]), Some(0.0));
        assert_eq!(relative(&[f32::NAN], &[1.0]), Some(f64::INFINITY));
        assert_eq!(relative(&[1.0], &[f32::INFINITY]), Some(f64::INFINITY));
        assert_eq!(relative(&[1.0], &[]), None);
    }
}
