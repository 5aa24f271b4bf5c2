//! `encoding` and `delimiter`: how the bytes of a text file are read.

use std::fmt;
use std::str::FromStr;

use super::formats::{FormatError, written_as_string};
use crate::report::did_you_mean;

/// The encoding of a text file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Encoding(&'static encoding_rs::Encoding);

impl Encoding {
    /// UTF-8.
    pub const UTF_8: Encoding = Encoding(encoding_rs::UTF_8);

    /// The tables of the encoding.
    pub(crate) fn codec(self) -> &'static encoding_rs::Encoding {
        self.0
    }
}

impl Default for Encoding {
    fn default() -> Encoding {
        Encoding::UTF_8
    }
}

impl FromStr for Encoding {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Encoding, FormatError> {
        /// The encodings that most files have, for hints.
        const COMMON: [&str; 8] =
            ["utf-8", "utf-16", "latin-1", "windows-1252", "iso-8859-2", "windows-1251", "shift_jis", "gb18030"];
        let label = match text {
            "latin-1" => "latin1",
            text => text,
        };
        // `replacement` stands for encodings that are unsafe to read; it decodes to nothing.
        let found = encoding_rs::Encoding::for_label_no_replacement(label.as_bytes());
        found.map(Encoding).ok_or_else(|| {
            let near = did_you_mean(text, COMMON).map_or_else(String::new, |near| format!("{near} "));
            FormatError::new(
                format!("`{text}` is not an encoding"),
                format!("{near}accepted: the names of the Encoding Standard, such as `{}`", COMMON.join("`, `")),
            )
        })
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.name().to_ascii_lowercase())
    }
}

written_as_string!(
    Encoding,
    "encoding",
    "The encoding of a text file: `utf-8`, `utf-16`, `windows-1252`, `latin-1` (read as `windows-1252`, as browsers \
     do), or another name of the Encoding Standard"
);

/// The character between the columns of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delimiter(u8);

impl Delimiter {
    /// The character, which is ASCII.
    pub fn byte(self) -> u8 {
        self.0
    }
}

impl FromStr for Delimiter {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Delimiter, FormatError> {
        // Letters, digits, and the characters of numbers and quotes are part of what a delimiter separates.
        let fits =
            |byte: u8| byte == b'\t' || byte == b' ' || (byte.is_ascii_punctuation() && !b"\"'+-.".contains(&byte));
        match text.as_bytes() {
            [byte] if fits(*byte) => Ok(Delimiter(*byte)),
            _ => Err(FormatError::new(
                format!("`{}` is not a delimiter", text.escape_default()),
                "accepted: one character that no number has: `,`, `;`, `\\t` for a tab, `|`, or a space",
            )),
        }
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", char::from(self.0))
    }
}

written_as_string!(Delimiter, "delimiter", "The character between columns: `,`, `;`, a tab, `|` or a space");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_have_the_names_that_people_use() {
        let name = |text: &str| text.parse::<Encoding>().map(|encoding| encoding.to_string());
        for (written, read) in [
            ("utf-8", "utf-8"),
            ("UTF8", "utf-8"),
            ("latin-1", "windows-1252"),
            ("iso-8859-1", "windows-1252"),
            ("windows-1252", "windows-1252"),
            ("utf-16", "utf-16le"),
            ("utf-16be", "utf-16be"),
            ("koi8-r", "koi8-r"),
        ] {
            assert_eq!(name(written), Ok(read.to_owned()), "{written}");
        }
        let error = name("latin-2x").unwrap_err();
        assert_eq!(error.message, "`latin-2x` is not an encoding");
        assert!(error.hint.starts_with("did you mean `latin-1`? accepted: "), "{}", error.hint);
        assert!(name("hz-gb-2312").is_err());
    }

    #[test]
    fn a_delimiter_is_one_character_that_no_number_has() {
        for text in [",", ";", "\t", "|", " ", ":"] {
            assert_eq!(text.parse::<Delimiter>().map(|delimiter| delimiter.to_string()), Ok(text.to_owned()));
        }
        for text in ["", ",,", "a", "0", ".", "-", "\"", "\n", "é"] {
            assert!(text.parse::<Delimiter>().is_err(), "{text}");
        }
    }
}
