//! The text of a file: its encoding, and its lines.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use encoding_rs::DecoderResult;

use super::problem::TableProblem;
use crate::config::Encoding;
use crate::data::formats::file;
use crate::data::{DataError, Source};

/// The text of a file.
pub(super) struct Text<'a> {
    pub(super) path: PathBuf,
    text: Cow<'a, str>,
}

impl<'a> Text<'a> {
    pub(super) fn open(encoding: Encoding, path: &Path, source: Source<'a>) -> Result<Text<'a>, DataError> {
        let (path, bytes) = file::read(path, source)?;
        match decode(encoding, bytes) {
            Ok(text) => Ok(Text { path, text }),
            Err(problem) => Err(DataError::table(&path, problem)),
        }
    }

    /// In UTF-8, perhaps after a byte order mark.
    pub(super) fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The line, counted from 1, of the record that is found from byte `start` on. The reader's own count does not
    /// include the blank lines, and the second half of a line break, that it skips next.
    pub(super) fn line(&self, start: u64) -> u64 {
        let bytes = self.bytes();
        let start = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
        let skipped = bytes[start..].iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        line_breaks(&bytes[..start + skipped]) + 1
    }
}

/// Line breaks: a line feed, a carriage return, or both.
pub(super) fn line_breaks(bytes: &[u8]) -> u64 {
    let mut breaks = 0;
    let mut before = 0;
    for byte in bytes {
        let second_half = *byte == b'\n' && before == b'\r';
        if matches!(byte, b'\n' | b'\r') && !second_half {
            breaks += 1;
        }
        before = *byte;
    }
    breaks
}

fn decode(encoding: Encoding, bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, TableProblem> {
    let marks = [b"\xff\xfe", b"\xfe\xff"];
    let is_utf_16 = [encoding_rs::UTF_16LE, encoding_rs::UTF_16BE].contains(&encoding.codec());
    if !is_utf_16 && marks.iter().any(|mark| bytes.starts_with(*mark)) {
        let evidence = "it begins with the byte order mark".to_owned();
        return Err(TableProblem::Utf16 { evidence, key: "encoding = \"utf-16\"" });
    }
    if !is_utf_16 && bytes.contains(&0) {
        let position = bytes.iter().take_while(|byte| **byte != 0).count();
        let evidence = format!("line {} has null characters", line_breaks(&bytes[..position]) + 1);
        // The first character of most tables is ASCII, whose high byte is null.
        let key = if position == 0 { "encoding = \"utf-16be\"" } else { "encoding = \"utf-16\"" };
        return Err(TableProblem::Utf16 { evidence, key });
    }
    if encoding == Encoding::UTF_8 { utf_8(bytes) } else { other(encoding, &bytes).map(Cow::Owned) }
}

fn utf_8(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, TableProblem> {
    let wrong = |before: &[u8]| TableProblem::Encoding { line: line_breaks(before) + 1, encoding: "utf-8".to_owned() };
    match bytes {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(error) => Err(wrong(&bytes[..error.valid_up_to()])),
        },
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Owned(text)),
            Err(error) => Err(wrong(&error.as_bytes()[..error.utf8_error().valid_up_to()])),
        },
    }
}

/// Decodes what is not UTF-8. A byte order mark decides, as the Encoding Standard has it.
fn other(encoding: Encoding, bytes: &[u8]) -> Result<String, TableProblem> {
    let mut decoder = encoding.codec().new_decoder();
    let too_large = || TableProblem::Encoding { line: 1, encoding: encoding.to_string() };
    let capacity = decoder.max_utf8_buffer_length_without_replacement(bytes.len()).ok_or_else(too_large)?;
    let mut text = String::with_capacity(capacity);
    match decoder.decode_to_string_without_replacement(bytes, &mut text, true) {
        (DecoderResult::InputEmpty, _) => Ok(text),
        // The room is that of the longest result, so that the output is never full.
        (DecoderResult::Malformed(..) | DecoderResult::OutputFull, _) => {
            Err(TableProblem::Encoding { line: line_breaks(text.as_bytes()) + 1, encoding: encoding.to_string() })
        }
    }
}
