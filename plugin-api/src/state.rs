//! The bytes of a callback's state.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Bytes for [`Callback::on_save_state`](crate::Callback::on_save_state): a MessagePack map, which keeps
/// NaN and infinities as they are (JSON does not have them).
///
/// # Errors
///
/// When the value cannot be encoded, such as a map whose keys are not text.
pub fn encode_state<T: Serialize>(state: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(state).map_err(|error| Error::from(error).context("the state cannot be written"))
}

/// Reads what [`encode_state`] wrote. Any bytes may come in: a checkpoint can be damaged, or from another
/// version of the plugin; `#[serde(default)]` on a new field reads older states.
///
/// # Errors
///
/// When the bytes are not a state of this type, or more bytes follow it.
pub fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut rest = bytes;
    let state = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))
        .map_err(|error| Error::from(error).context("the saved state is not understood"))?;
    if rest.is_empty() { Ok(state) } else { Err(Error::new("the saved state is not understood: bytes follow it")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives() {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.1];
        let read: Vec<f64> = decode_state(&encode_state(&values.to_vec()).unwrap()).unwrap();
        assert_eq!(read.map_bits(), values.to_vec().map_bits());
    }

    trait Bits {
        fn map_bits(&self) -> Vec<u64>;
    }

    impl Bits for Vec<f64> {
        fn map_bits(&self) -> Vec<u64> {
            self.iter().map(|value| value.to_bits()).collect()
        }
    }

    #[test]
    fn what_is_no_state_is_an_error() {
        let mut bytes = encode_state(&7u32).unwrap();
        assert!(decode_state::<String>(&bytes).unwrap_err().message().starts_with("the saved state is not understood"));
        bytes.push(0);
        assert!(decode_state::<u32>(&bytes).unwrap_err().message().ends_with("bytes follow it"));
        assert!(decode_state::<u32>(&[]).is_err());
    }
}
