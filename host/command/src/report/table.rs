//! A table as plain text: each column is as wide as its widest cell, and the last one is not padded.

use std::io::{self, Write};

use super::printable::{Colors, printable};
use super::terminal;

/// A last column that would be narrower than this is not wrapped: it would be harder to read than broken lines.
const NARROWEST: usize = 20;

/// As [`write_rows`], for a number of columns that is known.
///
/// # Errors
/// Those of `out`.
pub fn write<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
    limit: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    write_rows(&header.map(str::to_owned), rows, limit, out)
}

/// Writes `rows` under `header`, with two spaces between columns and none at the end of a line. A `limit`, the columns of a
/// terminal, breaks the cells of the last column between words.
///
/// # Errors
/// Those of `out`.
pub fn write_rows<R: AsRef<[String]>>(
    header: &[String],
    rows: &[R],
    limit: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let rows: Vec<Vec<String>> = std::iter::once(header)
        .chain(rows.iter().map(AsRef::as_ref))
        .map(|row| row.iter().map(|text| cell(text)).collect())
        .collect();
    let mut widths = vec![0; header.len()];
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    for row in &rows {
        let mut line = String::new();
        let Some((last, others)) = row.split_last() else { continue };
        for (cell, &widest) in others.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', widest - width(cell) + 2));
        }
        let indent: usize = widths.iter().take(others.len()).map(|widest| widest + 2).sum();
        let left = limit.and_then(|limit| limit.checked_sub(indent)).filter(|&left| left >= NARROWEST);
        let lines = terminal::wrap(last, left.unwrap_or(usize::MAX));
        line.push_str(&lines.join(&format!("\n{}", " ".repeat(indent))));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A cell in one line: a line break in a stranger's text would look like a row.
fn cell(text: &str) -> String {
    printable(text, Colors::Keep).replace('\n', " ")
}

/// Characters, without ANSI colors.
fn width(cell: &str) -> usize {
    terminal::without_colors(cell).chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_spaces() {
        let mut out = Vec::new();
        let rows = [["a", "1", ""], ["\u{1b}[31mlonger\u{1b}[0m", "2", "last"]].map(|row| row.map(str::to_owned));
        write(["kind", "number", "text"], &rows, None, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "kind    number  text\na       1\n\u{1b}[31mlonger\u{1b}[0m  2       last\n");
    }

    #[test]
    fn the_last_column_breaks_between_words() {
        let mut out = Vec::new();
        let rows =
            [["checkpoint", "Writes checkpoints, keeps the last and the best"]].map(|row| row.map(str::to_owned));
        write(["KIND", "SUMMARY"], &rows, Some(40), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected =
            "KIND        SUMMARY\ncheckpoint  Writes checkpoints, keeps\n            the last and the best\n";
        assert_eq!(text, expected);
    }
}
