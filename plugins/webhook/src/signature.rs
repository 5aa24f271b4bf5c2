//! Signatures of payloads, by <https://github.com/standard-webhooks/standard-webhooks>, so that a receiver knows the
//! sender.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plugin_api::{Error, Result};
use ring::hmac;

use crate::secret::Secret;

/// The prefix of a secret.
pub(crate) const PREFIX: &str = "whsec_";

/// Signs with HMAC-SHA256.
pub(crate) struct Signer {
    key: hmac::Key,
}

impl Signer {
    /// Reads the key.
    ///
    /// # Errors
    ///
    /// When it is not `whsec_` and Base64.
    pub fn new(secret: &Secret) -> Result<Self> {
        let key = secret.value.strip_prefix(PREFIX).and_then(|key| STANDARD.decode(key).ok());
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| {
            Error::new(format!("{} must contain a signing secret: `{PREFIX}` and Base64", secret.place))
        })?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key) })
    }

    /// The header `webhook-signature`, for a message sent at `timestamp`, in seconds since 1970.
    pub fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let tag = hmac::sign(&self.key, format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_other_implementations() {
        let value = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
        let signer = Signer::new(&Secret { value, place: "the file `key`".to_owned() }).unwrap();
        // The example of Svix's documentation on verification.
        let signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
