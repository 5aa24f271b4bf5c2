//! A table as plain text: each column is as wide as its widest cell, and the last one is not padded.

use std::io::{self, Write};

/// Writes `rows` under `header`, with two spaces between columns and none at the end of a line.
///
/// # Errors
/// Those of `out`.
pub fn write<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut widths = header.map(width);
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let header = header.map(str::to_owned);
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, &widest) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', widest - width(cell) + 2));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Characters, without ANSI colors.
fn width(cell: &str) -> usize {
    let mut inside = false;
    let visible = cell.chars().filter(|&character| {
        let was_inside = inside;
        match character {
            '\u{1b}' => inside = true,
            'm' => inside = false,
            _ => {}
        }
        !was_inside && !inside
    });
    visible.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_spaces() {
        let mut out = Vec::new();
        let rows = [["a", "1", ""], ["\u{1b}[31mlonger\u{1b}[0m", "2", "last"]].map(|row| row.map(str::to_owned));
        write(["kind", "number", "text"], &rows, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "kind    number  text\na       1\n\u{1b}[31mlonger\u{1b}[0m  2       last\n");
    }
}
