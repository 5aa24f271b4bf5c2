//! Floats that are read from a text exactly as they were written.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A float whose serde form is the string of its shortest exact decimal (`0.1`, `inf`, `NaN`).
///
/// JSON has no NaN and no infinities, and its readers may round the last bit of a number; a resumed run needs all 64.
/// The sign and payload of a NaN are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exact(pub f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `{:?}` of a float is the shortest decimal that reads back as the same float, with an exponent where that is
        // shorter.
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Exact, D::Error> {
        struct Decimal;

        impl Visitor<'_> for Decimal {
            type Value = Exact;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string with a decimal number")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Exact, E> {
                text.parse().map(Exact).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Decimal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_float_comes_back(bits: u64) {
            let value = f64::from_bits(bits);
            let text = serde_json::to_string(&Exact(value)).unwrap();
            let Exact(read) = serde_json::from_str(&text).unwrap();
            prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()), "{text}");
        }
    }

    #[test]
    fn what_json_lacks_is_kept() {
        for value in [f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE / 2.0] {
            let Exact(read) = serde_json::from_str(&serde_json::to_string(&Exact(value)).unwrap()).unwrap();
            assert_eq!(read.to_bits(), value.to_bits());
        }
        let Exact(read) = serde_json::from_str("\"NaN\"").unwrap();
        assert!(read.is_nan());
        assert!(serde_json::from_str::<Exact>("\"a lot\"").is_err());
    }
}
