//! A confusion matrix as a picture: TensorBoard has no page for tables of counts.

use font8x8::{BASIC_FONTS, GREEK_FONTS, LATIN_FONTS, UnicodeFonts};
use monitor::ConfusionMatrix;
use plugin_api::Result;

use crate::proto::Value;
use crate::summary;

/// The size of a letter in pixels.
const LETTER: usize = 8;

/// Longer names of classes are cut off.
const LONGEST_NAME: usize = 14;

/// Pixels of the cells of a row together, as far as the cells stay within their limits.
const CELLS: usize = 560;

/// The least and the largest size of a cell; names need cells that are higher than a letter.
const CELL: [usize; 2] = [2, 48];

const WHITE: [u8; 3] = [255; 3];
const INK: [u8; 3] = [32; 3];
/// A cell with all samples of its row.
const FULL: [u8; 3] = [8, 64, 129];

/// The summary of a matrix.
///
/// # Errors
///
/// When the picture cannot be encoded.
pub(crate) fn summary(tag: &str, matrix: &ConfusionMatrix) -> Result<Value> {
    let canvas = draw(matrix);
    let size = [canvas.height as u32, canvas.width as u32, 3];
    let description =
        format!("Rows are the true classes, columns the predicted ones, in this order: {}", matrix.classes.join(", "));
    summary::image(tag, size, &canvas.pixels, &description)
}

/// Rows of pixels from the top.
struct Canvas {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

/// The cells, darker for a larger share of their row, with counts and names where there is room for them.
fn draw(matrix: &ConfusionMatrix) -> Canvas {
    let classes = matrix.classes.len();
    let cell = (CELLS / classes.max(1)).clamp(CELL[0], CELL[1]);
    let names: Vec<Vec<char>> = match cell > LETTER {
        true => matrix.classes.iter().map(|name| name.chars().take(LONGEST_NAME).collect()).collect(),
        false => Vec::new(),
    };
    let margin = (names.iter().map(Vec::len).max().unwrap_or(0) + 1) * LETTER;
    let size = margin + classes * cell + 1;
    let mut canvas = Canvas { height: size, width: size, pixels: WHITE.repeat(size * size) };
    for (index, name) in names.iter().enumerate() {
        let middle = margin + index * cell + (cell - LETTER) / 2;
        let start = margin - LETTER / 2 - name.len() * LETTER;
        canvas.text(middle, start, name, INK);
        canvas.text_upward(margin - LETTER / 2, middle, name, INK);
    }
    for (row, (_, counts)) in matrix.rows().enumerate() {
        let sum: u64 = counts.iter().sum();
        for (column, count) in counts.iter().enumerate() {
            let share = if sum == 0 { 0.0 } else { *count as f64 / sum as f64 };
            let mix = |from: u8, to: u8| (f64::from(from) + (f64::from(to) - f64::from(from)) * share).round() as u8;
            let color = [0, 1, 2].map(|channel| mix(WHITE[channel], FULL[channel]));
            let (top, left) = (margin + row * cell, margin + column * cell);
            canvas.fill(top, left, cell, color);
            let digits: Vec<char> = count.to_string().chars().collect();
            if *count > 0 && digits.len() * LETTER < cell && LETTER < cell {
                let (top, left) = (top + (cell - LETTER) / 2, left + (cell - digits.len() * LETTER) / 2);
                canvas.text(top, left, &digits, if share > 0.5 { WHITE } else { INK });
            }
        }
    }
    canvas
}

impl Canvas {
    fn dot(&mut self, row: usize, column: usize, color: [u8; 3]) {
        if row < self.height && column < self.width {
            let place = (row * self.width + column) * 3;
            self.pixels[place..place + 3].copy_from_slice(&color);
        }
    }

    /// A square with a line of the ground at its right and lower edges, if it is large enough to see it.
    fn fill(&mut self, top: usize, left: usize, cell: usize, color: [u8; 3]) {
        let filled = if cell > 4 { cell - 1 } else { cell };
        for row in top..top + filled {
            (left..left + filled).for_each(|column| self.dot(row, column, color));
        }
    }

    /// A text whose first letter has its upper left corner there.
    fn text(&mut self, top: usize, left: usize, text: &[char], color: [u8; 3]) {
        for (index, letter) in text.iter().enumerate() {
            for (row, column) in dots(*letter) {
                self.dot(top + row, left + index * LETTER + column, color);
            }
        }
    }

    /// A text from below upward: its first letter ends above `bottom`.
    fn text_upward(&mut self, bottom: usize, left: usize, text: &[char], color: [u8; 3]) {
        for (index, letter) in text.iter().enumerate() {
            for (row, column) in dots(*letter) {
                let up = index * LETTER + column + 1;
                self.dot(bottom.saturating_sub(up), left + row, color);
            }
        }
    }
}

/// The places of a letter's dots; a box for a letter that the font lacks.
fn dots(letter: char) -> impl Iterator<Item = (usize, usize)> {
    const BOX: [u8; LETTER] = [0x7e, 0x42, 0x42, 0x42, 0x42, 0x42, 0x7e, 0];
    let known = BASIC_FONTS.get(letter).or_else(|| LATIN_FONTS.get(letter)).or_else(|| GREEK_FONTS.get(letter));
    let rows = known.unwrap_or(BOX);
    (0..LETTER * LETTER)
        .map(|dot| (dot / LETTER, dot % LETTER))
        .filter(move |(row, column)| rows[*row] >> column & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(classes: usize, counts: Vec<u64>) -> ConfusionMatrix {
        let classes = (0..classes).map(|class| format!("c{class}")).collect();
        ConfusionMatrix { name: "val_confusion_matrix".to_owned(), epoch: 1, step: 1, classes, counts }
    }

    #[test]
    fn cells_are_as_dark_as_their_share_of_the_row() {
        let canvas = draw(&matrix(2, vec![4, 0, 3, 3]));
        let margin = 3 * LETTER;
        assert_eq!((canvas.height, canvas.width), (margin + 2 * 48 + 1, margin + 2 * 48 + 1));
        let at = |row: usize, column: usize| {
            let place = ((margin + row * 48 + 1) * canvas.width + margin + column * 48 + 1) * 3;
            <[u8; 3]>::try_from(&canvas.pixels[place..place + 3]).unwrap()
        };
        assert_eq!((at(0, 0), at(0, 1)), (FULL, WHITE));
        assert_eq!(at(1, 0), at(1, 1));
        let names = canvas.pixels.chunks(canvas.width * 3).take(margin);
        assert!(names.flatten().any(|channel| *channel == INK[0]), "names are drawn");
    }

    #[test]
    fn any_number_of_classes_is_drawn() {
        for classes in [1, 60, 61, 100, 1000] {
            let canvas = draw(&matrix(classes, vec![1; classes * classes]));
            assert!(canvas.pixels.len() == canvas.width * canvas.height * 3 && canvas.width >= classes);
        }
        assert!(draw(&matrix(1000, vec![0; 1_000_000])).pixels.iter().all(|channel| *channel == 255));
        assert!(dots('\u{4e2d}').count() > 10 && dots('\u{fc}').count() > 4);
    }
}
