//! Numbers as they are written: a file must not hold NaN or infinities, also where a cast makes them.

use plugin_api::{Error, Result};

/// The floating-point format in which numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    Full,
    /// 16 bits, of which 5 are the exponent.
    Half,
}

/// The least magnitude that is rounded to infinity in 16 bits: half a step above 65504, the largest number.
const HALF_OVERFLOW: f32 = 65520.0;

impl Precision {
    fn holds(self, value: f32) -> bool {
        match self {
            Precision::Full => value.is_finite(),
            Precision::Half => value.abs() < HALF_OVERFLOW,
        }
    }
}

/// Rejects numbers of the weight `name` that are not finite once they are written.
///
/// # Errors
///
/// The first of them, with its place.
pub fn check_finite(name: &str, values: &[f32], precision: Precision) -> Result<()> {
    let Some(position) = first_outside(values, precision) else { return Ok(()) };
    let value = values[position];
    let allow = "set `allow_non_finite = true` to export it anyway";
    Err(Error::new(if value.is_finite() {
        format!(
            "the weight `{name}` is `{value}` at element {position}, but 16 bits hold numbers up to 65504; use `quantize = \
             \"none\"`, or {allow}, as infinity"
        )
    } else {
        format!("the weight `{name}` is `{value}` at element {position}; {allow}")
    }))
}

/// The position of the first number that is not held. Whole blocks are checked without an early exit, as fast as memory
/// is read.
fn first_outside(values: &[f32], precision: Precision) -> Option<usize> {
    const BLOCK: usize = 1024;
    let block =
        values.chunks(BLOCK).position(|block| block.iter().fold(false, |any, value| any | !precision.holds(*value)))?;
    let begin = block * BLOCK;
    values[begin..].iter().position(|value| !precision.holds(*value)).map(|position| begin + position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked_as_they_are_written() {
        let message = |values: &[f32], precision| {
            check_finite("fc1.weight", values, precision).map_err(|error| error.message().to_owned())
        };
        assert_eq!(message(&[65504.0, -65519.0, 1e-9], Precision::Half), Ok(()));
        assert_eq!(message(&[65520.0], Precision::Full), Ok(()));
        let found = message(&[0.0, -65520.0], Precision::Half).unwrap_err();
        assert!(found.starts_with("the weight `fc1.weight` is `-65520` at element 1, but 16 bits hold"), "{found}");
        for precision in [Precision::Full, Precision::Half] {
            let found = message(&[f32::NAN], precision).unwrap_err();
            assert!(found.starts_with("the weight `fc1.weight` is `NaN` at element 0; set"), "{found}");
        }
    }
}
