//! What a stream's terminal can show, and text that fits it.

use std::borrow::Cow;
use std::io::IsTerminal;

use crate::stdout::Stdout;

/// Columns of the terminal that the standard error goes to; `None` if it goes elsewhere.
pub fn stderr_width() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stderr()).map(|(width, _)| usize::from(width.0)).filter(|&width| width > 0)
}

/// Columns of the terminal that the standard output goes to; `None` if it goes elsewhere.
pub fn stdout_width() -> Option<usize> {
    terminal_size::terminal_size_of(Stdout).map(|(width, _)| usize::from(width.0)).filter(|&width| width > 0)
}

/// Whether to color what goes to `stream`: it is a terminal that shows colors, and `NO_COLOR` is unset or empty
/// (<https://no-color.org>).
pub fn shows_colors(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && allows_colors()
}

/// The same of the standard output.
pub fn stdout_shows_colors() -> bool {
    Stdout.is_terminal() && allows_colors()
}

fn allows_colors() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    !refused && !dumb
}

/// The text without ANSI colors.
pub fn without_colors(text: &str) -> Cow<'_, str> {
    const BEGIN: &str = "\u{1b}[";
    let Some((before, mut rest)) = text.split_once(BEGIN) else { return Cow::Borrowed(text) };
    let mut plain = before.to_owned();
    loop {
        // A sequence ends with its first letter.
        let end = rest.find(|character: char| character.is_ascii_alphabetic()).map_or(rest.len(), |end| end + 1);
        match rest[end..].split_once(BEGIN) {
            Some((text, next)) => {
                plain.push_str(text);
                rest = next;
            }
            None => {
                plain.push_str(&rest[end..]);
                return Cow::Owned(plain);
            }
        }
    }
}

/// Lines of at most `width` characters, broken between words; a longer word has a line of its own.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let wide = without_colors(word).chars().count();
        match lines.last_mut() {
            Some(line) if line.is_empty() || used + 1 + wide <= width => {
                if !line.is_empty() {
                    line.push(' ');
                    used += 1;
                }
                line.push_str(word);
                used += wide;
            }
            _ => {
                lines.push(word.to_owned());
                used = wide;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("give the folder that holds it", 10), ["give the", "folder", "that holds", "it"]);
        assert_eq!(wrap("a unbreakable-word b", 5), ["a", "unbreakable-word", "b"]);
        assert_eq!(wrap("\u{1b}[31mab\u{1b}[0m cd", 5), ["\u{1b}[31mab\u{1b}[0m cd"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn colors_are_taken_out() {
        assert_eq!(without_colors("plain"), "plain");
        assert_eq!(without_colors("a \u{1b}[1;32m0.5*\u{1b}[0m b\u{1b}[3"), "a 0.5* b");
    }
}
