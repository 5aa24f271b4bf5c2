//! The secret that the page is protected by.

use std::fs::{File, Metadata};
use std::io::Read;

use plugin_api::{Error, Result};

/// The fewest characters of a token in a file.
const SHORTEST: usize = 16;

/// The longest file of a token, in bytes: a token must fit into the head of a request.
const LONGEST: usize = 1024;

/// A token. It has no `Debug`, so that nothing prints it by accident.
#[derive(Clone)]
pub(crate) struct Token {
    text: String,
    is_from_file: bool,
}

impl Token {
    /// 128 random bits as hexadecimal digits.
    pub(crate) fn new() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::new(format!("cannot get random bytes from the system: {error}")))?;
        Ok(Self { text: bytes.iter().map(|byte| format!("{byte:02x}")).collect(), is_from_file: false })
    }

    /// The token in the file of `token_file`. No error contains it.
    pub(crate) fn from_file(path: &str) -> Result<Self> {
        let place = format!("the file `{path}` of `token_file`");
        let cannot = |error: std::io::Error| Error::from(error).context(format!("cannot read {place}"));
        // To open a pipe would mean to wait until somebody writes to it.
        if !std::fs::metadata(path).map_err(cannot)?.is_file() {
            return Err(Error::new(format!("{place} is not a regular file")));
        }
        let file = File::open(path).map_err(cannot)?;
        // Of the open file: the path may lead to another one by now.
        check_access(&file.metadata().map_err(cannot)?, path, &place)?;
        let mut bytes = Vec::new();
        file.take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
        let text = bytes.trim_ascii();
        if bytes.len() > LONGEST || text.len() < SHORTEST || !text.iter().all(u8::is_ascii_graphic) {
            return Err(Error::new(format!(
                "{place} must contain one token of at least {SHORTEST} visible ASCII characters, and be no longer than \
                 {LONGEST} bytes; `openssl rand -hex 32` makes one"
            )));
        }
        Ok(Self { text: text.iter().copied().map(char::from).collect(), is_from_file: true })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it comes from a file of the user's, so that it is shown nowhere.
    pub(crate) fn is_from_file(&self) -> bool {
        self.is_from_file
    }

    /// Whether `told` is the token. Takes the same time for every wrong one of a length, so that it cannot be guessed
    /// digit by digit.
    pub(crate) fn is(&self, told: &[u8]) -> bool {
        let differences = self.text.bytes().zip(told).fold(0, |all, (own, other)| all | (own ^ other));
        self.text.len() == told.len() && differences == 0
    }
}

/// Refuses a file that other users may read, or write: they would know the token.
#[cfg(unix)]
fn check_access(file: &Metadata, path: &str, place: &str) -> Result<()> {
    use std::os::unix::fs::MetadataExt;

    let mode = file.mode() & 0o777;
    if mode & 0o066 == 0 {
        return Ok(());
    }
    Err(Error::new(format!(
        "{place} has the mode {mode:03o}, with which other users can read or replace the token: `chmod 600 {path}`"
    )))
}

/// What decides elsewhere, such as access-control lists, is not visible here.
#[cfg(not(unix))]
fn check_access(_: &Metadata, _: &str, _: &str) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_alone() {
        let token = Token::new().unwrap();
        assert!(token.is(token.text().as_bytes()));
        assert_eq!(token.text().len(), 32);
        assert_ne!(token.text(), Token::new().unwrap().text());
        for wrong in ["", "0", &token.text()[1..], &format!("{}0", token.text()), &"0".repeat(32)] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
    }
}
