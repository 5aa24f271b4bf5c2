//! Text of strangers as text for people: the one place that decides what may reach a terminal.
//!
//! A plugin, a run file, or a file of a run that somebody else trained can hold any bytes. A terminal obeys some of them: they
//! move the cursor over what is there, name the window, make links, fill the keyboard's buffer. Of all that, colors are left.

use std::borrow::Cow;
use std::io::{self, Write};

/// Whether colors stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colors {
    /// As ECMA-48's SGR; what is open at the end is closed.
    Keep,
    /// No.
    Drop,
}

const ESCAPE: char = '\u{1b}';

/// The longest parameters of a color that stays; `38;2;255;255;255;48;2;255;255;255;1;4` is shorter.
const COLOR_BYTES: usize = 64;

/// The text without control sequences and invisible characters: what is left is printable characters, line breaks, and,
/// if they are kept, colors. A tab or another white space is a space.
///
/// Control sequences are those of ECMA-48. One that is not complete loses its beginning, and the rest stays as text.
pub fn printable(text: &str, colors: Colors) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let (mut rest, mut is_colored) = (text, false);
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        match first {
            '\n' => clean.push('\n'),
            '\r' if rest.as_bytes().get(1) == Some(&b'\n') => {}
            '\t' | '\u{b}' | '\u{c}' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => clean.push(' '),
            ESCAPE | '\u{80}'..='\u{9f}' => {
                let sequence = sequence(rest);
                if let (Some(color), Colors::Keep) = (sequence.color, colors) {
                    is_colored = !matches!(color, "" | "0");
                    clean.extend(["\u{1b}[", color, "m"]);
                }
                taken = sequence.length;
            }
            _ if is_invisible(first) => {}
            _ => clean.push(first),
        }
        rest = &rest[taken..];
    }
    if is_colored {
        clean.push_str("\u{1b}[0m");
    }
    Cow::Owned(clean)
}

/// The same, in one line without colors.
pub fn printable_line(text: &str) -> Cow<'_, str> {
    match printable(text, Colors::Drop) {
        line if line.contains('\n') => Cow::Owned(line.replace('\n', " ")),
        line => line,
    }
}

/// A control sequence at the beginning of a text.
struct Sequence<'a> {
    /// Its bytes; where it is not complete, those of its beginning.
    length: usize,
    /// The parameters, if it sets colors.
    color: Option<&'a str>,
}

/// The sequence that `text` begins with; its first character is the escape character or one of C1.
fn sequence(text: &str) -> Sequence<'_> {
    let other = |length| Sequence { length, color: None };
    let mut characters = text.chars();
    let (kind, begin) = match characters.next() {
        // C1 in seven bits: the escape character and one of 0x40 to 0x5f.
        Some(ESCAPE) => match characters.next() {
            Some(second @ '@'..='_') => (second, 2),
            // Of one function: `ESC c` resets the terminal, `ESC ( 0` chooses its characters.
            Some(' '..='~') => {
                let body = text.get(1..).unwrap_or_default();
                let between = body.bytes().take_while(|byte| matches!(byte, b' '..=b'/')).count();
                let end = body.as_bytes().get(between).is_some_and(|byte| matches!(byte, b'0'..=b'~'));
                return other(1 + between + usize::from(end));
            }
            _ => return other(1),
        },
        Some(first) => match u8::try_from(u32::from(first) - 0x40) {
            Ok(second) => (char::from(second), first.len_utf8()),
            Err(_) => return other(first.len_utf8()),
        },
        None => return other(0),
    };
    let body = text.get(begin..).unwrap_or_default();
    match kind {
        // A control sequence: parameters, intermediate bytes, and a final one.
        '[' => {
            let parameters = body.bytes().take_while(|byte| matches!(byte, b'0'..=b'?')).count();
            let between = body.bytes().skip(parameters).take_while(|byte| matches!(byte, b' '..=b'/')).count();
            let end = body.as_bytes().get(parameters + between).filter(|byte| matches!(byte, b'@'..=b'~'));
            let length = begin + parameters + between + usize::from(end.is_some());
            let is_color = end == Some(&b'm')
                && between == 0
                && parameters <= COLOR_BYTES
                && body.bytes().take(parameters).all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':'));
            Sequence { length, color: is_color.then(|| body.get(..parameters)).flatten() }
        }
        // Strings: of a device, of the system (titles, links, the clipboard), of a program, private.
        'P' | 'X' | ']' | '^' | '_' => {
            let end = body.char_indices().find(|(_, character)| character.is_control());
            match end {
                Some((at, character @ ('\u{7}' | '\u{9c}'))) => other(begin + at + character.len_utf8()),
                Some((at, ESCAPE)) if body.as_bytes().get(at + 1) == Some(&b'\\') => other(begin + at + 2),
                _ => other(begin),
            }
        }
        _ => other(begin),
    }
}

/// Characters that are not seen, or change where others are: the rest of C0, those of bidirectional text, of no width, and tags.
/// Joiners stay, which scripts and pictures need.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Writes text of strangers line by line as [`printable`] makes it; bytes that are no text are replaced.
#[derive(Debug)]
pub struct Printable<W: Write> {
    out: W,
    colors: Colors,
    /// The line that has no end yet.
    line: Vec<u8>,
}

impl<W: Write> Printable<W> {
    /// Writes to `out`.
    pub fn new(out: W, colors: Colors) -> Self {
        Self { out, colors, line: Vec::new() }
    }

    fn write_lines(&mut self, end: usize) -> io::Result<()> {
        let lines: Vec<u8> = self.line.drain(..end).collect();
        for line in String::from_utf8_lossy(&lines).split_inclusive('\n') {
            self.out.write_all(printable(line, self.colors).as_bytes())?;
        }
        Ok(())
    }
}

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if let Some(last) = self.line.iter().rposition(|byte| *byte == b'\n') {
            self.write_lines(last + 1)?;
        }
        Ok(bytes.len())
    }

    /// Writes the line that has no end yet, too; a character that is cut waits for its rest.
    fn flush(&mut self) -> io::Result<()> {
        let cut = match std::str::from_utf8(&self.line) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.line.len(),
        };
        self.write_lines(cut)?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Printable<W> {
    fn drop(&mut self) {
        // Nobody can be told that it fails.
        let _ = self.write_lines(self.line.len()).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_moves_names_or_hides_is_taken_out() {
        for (text, clean) in [
            ("plain\nlines", "plain\nlines"),
            ("\u{1b}[2J\u{1b}[1;1Hgone", "gone"),
            ("\u{1b}]0;title\u{7}a \u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "a link"),
            ("\u{1b}]52;c;aGk=\u{9c}x", "x"),
            ("\u{1b}]never closed\nnext", "never closed\nnext"),
            ("\u{9b}31mred", "red"),
            ("\u{1b}c\u{1b}(0\u{1b}7a", "a"),
            ("\u{1b}P+q\u{1b}\\a\u{1b}_x\u{7}b", "ab"),
            ("50 %\r100 %\r\nnext\ttab", "50 % 100 %\nnext tab"),
            ("a\u{8}b\u{7}\u{0}\u{7f}c", "abc"),
            ("\u{202e}txt.exe\u{2066}\u{200b}", "txt.exe"),
            ("\u{1b}", ""),
            ("\u{1b}[3", ""),
            ("\u{1b}[>4;1m\u{1b}[4\"m", ""),
            ("naïve 👩\u{200d}💻 日本", "naïve 👩\u{200d}💻 日本"),
        ] {
            assert_eq!(printable(text, Colors::Drop), clean, "{text:?}");
        }
    }

    #[test]
    fn colors_stay_where_they_are_wanted_and_end_with_the_text() {
        let text = "a \u{1b}[1;32m0.5*\u{1b}[0m b\u{1b}[38:5:1mc\u{1b}[5A";
        assert_eq!(printable(text, Colors::Keep), "a \u{1b}[1;32m0.5*\u{1b}[0m b\u{1b}[38:5:1mc\u{1b}[0m");
        assert_eq!(printable(text, Colors::Drop), "a 0.5* bc");
        let long = format!("\u{1b}[{}mx", "1;".repeat(COLOR_BYTES));
        assert_eq!(printable(&long, Colors::Keep), "x");
        assert_eq!(printable_line("a\r\nb\nc\u{1b}[1m"), "a b c");
    }

    #[test]
    fn a_text_in_parts_is_as_safe_as_a_whole_one() {
        let mut out = Vec::new();
        let mut printed = Printable::new(&mut out, Colors::Keep);
        for part in ["prompt\u{1b}", "[2Jé", "\u{1b}]0;x\u{7}\n"] {
            for byte in part.bytes() {
                printed.write_all(&[byte]).unwrap();
                printed.flush().unwrap();
            }
        }
        drop(printed);
        assert_eq!(String::from_utf8(out).unwrap(), "prompt[2Jé]0;x\n");
    }

    /// Whether a text holds nothing but printable characters, line breaks and, with `colors`, whole sequences of colors.
    fn is_harmless(text: &str, colors: Colors) -> bool {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == ESCAPE {
                let Some(color) = rest.strip_prefix("\u{1b}[").filter(|_| colors == Colors::Keep) else { return false };
                let end = color.find(|character: char| !matches!(character, '0'..='9' | ';' | ':'));
                let Some(after) = end.and_then(|end| color[end..].strip_prefix('m')) else { return false };
                rest = after;
                continue;
            }
            if first != '\n' && (first.is_control() || is_invisible(first)) {
                return false;
            }
            rest = &rest[first.len_utf8()..];
        }
        true
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..8),
            any::<char>().prop_map(|character| character.to_string().into_bytes()),
            "\u{1b}\\[[0-9;:?<=>]{0,9}[ -/]{0,2}[@-~]?".prop_map(String::into_bytes),
            "\u{1b}[\\]PX^_][ -~]{0,6}(\u{7}|\u{1b}\\\\|\u{9c})?".prop_map(String::into_bytes),
            "[\u{80}-\u{9f}\u{0}-\u{1f}\u{7f}\u{202a}-\u{202e}][0-9;]{0,3}m?".prop_map(String::into_bytes),
            "[ -~]{0,6}\n?".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn nothing_gets_through_but_text_line_breaks_and_colors(bytes in hostile(), cuts in proptest::collection::vec(1usize..9, 0..40)) {
            let text = String::from_utf8_lossy(&bytes);
            for colors in [Colors::Keep, Colors::Drop] {
                let clean = printable(&text, colors);
                prop_assert!(is_harmless(&clean, colors), "{clean:?}");
                prop_assert_eq!(&printable(&clean, colors), &clean, "it is clean after one pass");
                prop_assert!(clean.len() <= text.len() + 4);
                let mut out = Vec::new();
                let mut printed = Printable::new(&mut out, colors);
                let mut rest = bytes.as_slice();
                for cut in &cuts {
                    let (part, after) = rest.split_at((*cut).min(rest.len()));
                    printed.write_all(part).unwrap();
                    printed.flush().unwrap();
                    rest = after;
                }
                printed.write_all(rest).unwrap();
                drop(printed);
                let out = String::from_utf8(out).unwrap();
                prop_assert!(is_harmless(&out, colors), "{out:?}");
            }
        }
    }
}
