//! The secret in the page's address.

use plugin_api::{Error, Result};

/// 128 random bits as hexadecimal digits.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn new() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::new(format!("cannot get random bytes from the system: {error}")))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether `told` is the token. Takes the same time for every wrong one, so that it cannot be guessed digit by
    /// digit.
    pub(crate) fn is(&self, told: &str) -> bool {
        let differences = self.0.bytes().zip(told.bytes()).fold(0, |all, (own, other)| all | (own ^ other));
        self.0.len() == told.len() && differences == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_alone() {
        let token = Token::new().unwrap();
        assert!(token.is(token.text()));
        assert_eq!(token.text().len(), 32);
        assert_ne!(token.text(), Token::new().unwrap().text());
        for wrong in ["", "0", &token.text()[1..], &format!("{}0", token.text()), &"0".repeat(32)] {
            assert!(!token.is(wrong), "{wrong}");
        }
    }
}
