//! Options whose values have a range.

/// An option of the run file whose value is out of range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("`{key}` = `{value}` must be {expected}")]
pub struct OutOfRange {
    /// The option.
    pub key: &'static str,
    /// Its value.
    pub value: f64,
    /// What it must be.
    pub expected: &'static str,
}

/// Refuses the value of `key` unless it `fits`.
pub(super) fn require(fits: bool, key: &'static str, value: f64, expected: &'static str) -> Result<(), OutOfRange> {
    if fits { Ok(()) } else { Err(OutOfRange { key, value, expected }) }
}

/// Refuses values that are not above zero and finite.
pub(super) fn require_positive(key: &'static str, value: f64) -> Result<(), OutOfRange> {
    require(value > 0.0 && value.is_finite(), key, value, "above 0 and finite")
}
