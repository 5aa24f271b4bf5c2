//! Tensors as pictures.
//!
//! The last two dimensions are rows and columns, and the dimensions before them count tiles, which lie in a grid with a black
//! line between them. The tiles of a kernel `[outputs, inputs, height, width]` have a row of the grid for each output and a
//! column for each input; kernels of three inputs are in color.

/// The most pixels of a picture: those of 4096 × 4096.
const MOST_PIXELS: usize = 1 << 24;

/// Pixels between two tiles.
const GAP: usize = 1;

/// Rows of pixels from the top.
#[derive(Debug, PartialEq)]
pub(crate) struct Picture {
    /// Height, width, and 1 (gray) or 3 (RGB) channels.
    pub(crate) size: [u32; 3],
    pub(crate) pixels: Vec<u8>,
}

/// The numbers that are black and white; `None` is the least or the greatest number of the picture.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shades {
    pub(crate) black: Option<f64>,
    pub(crate) white: Option<f64>,
}

/// Where the numbers of a tensor are in its picture.
#[derive(Debug, PartialEq)]
struct Layout {
    tiles: usize,
    /// Tiles in a row of the grid.
    across: usize,
    /// Rows and columns of a tile.
    tile: [usize; 2],
    channels: usize,
}

impl Layout {
    fn of(shape: &[usize]) -> Self {
        let gray = |tiles: usize, across: usize, tile: [usize; 2]| Self { tiles, across, tile, channels: 1 };
        match *shape {
            [] => gray(1, 1, [1, 1]),
            [columns] => gray(1, 1, [1, columns]),
            [rows, columns] => gray(1, 1, [rows, columns]),
            [outputs, 3, rows, columns] => Self { channels: 3, ..gray(outputs, square(outputs), [rows, columns]) },
            [outputs, 1, rows, columns] => gray(outputs, square(outputs), [rows, columns]),
            [outputs, inputs, rows, columns] => gray(outputs * inputs, inputs, [rows, columns]),
            [ref before @ .., rows, columns] => {
                let tiles = before.iter().product();
                gray(tiles, square(tiles), [rows, columns])
            }
        }
    }

    /// Height and width in pixels.
    fn size(&self) -> [usize; 2] {
        let down = self.tiles.div_ceil(self.across.max(1));
        let along = |tiles: usize, tile: usize| (tiles * (tile + GAP)).saturating_sub(GAP);
        [along(down, self.tile[0]), along(self.across, self.tile[1])]
    }
}

/// Tiles in a row of a grid that is about as high as it is wide.
fn square(tiles: usize) -> usize {
    (1..).find(|across| across * across >= tiles).unwrap_or(1)
}

impl Picture {
    /// The picture of a tensor; `None` for one without numbers, or with too many. Numbers that are NaN are black.
    pub(crate) fn of(shape: &[usize], values: &[f32], shades: Shades) -> Option<Self> {
        let layout = Layout::of(shape);
        let [height, width] = layout.size();
        let ([rows, columns], channels) = (layout.tile, layout.channels);
        let fits = height.checked_mul(width)?.checked_mul(channels)? <= MOST_PIXELS;
        if values.is_empty() || !fits || values.len() != layout.tiles * channels * rows * columns {
            return None;
        }
        let byte = shades.over(values);
        let mut pixels = vec![0; height * width * channels];
        for (index, plane) in values.chunks_exact(rows * columns).enumerate() {
            let (tile, channel) = (index / channels, index % channels);
            let (top, left) = (tile / layout.across * (rows + GAP), tile % layout.across * (columns + GAP));
            for (row, line) in plane.chunks_exact(columns).enumerate() {
                let start = ((top + row) * width + left) * channels + channel;
                let places = pixels[start..].iter_mut().step_by(channels);
                places.zip(line).for_each(|(pixel, value)| *pixel = byte(*value));
            }
        }
        Some(Self { size: [height as u32, width as u32, channels as u32], pixels })
    }
}

impl Shades {
    /// The brightness of a number among `values`.
    fn over(self, values: &[f32]) -> impl Fn(f32) -> u8 {
        let finite = || values.iter().filter(|value| value.is_finite()).map(|&value| f64::from(value));
        let black = self.black.or_else(|| finite().reduce(f64::min)).unwrap_or(0.0);
        let white = self.white.or_else(|| finite().reduce(f64::max)).unwrap_or(1.0);
        // The conversion saturates, and makes NaN black: also that of numbers which are all the same.
        move |value| ((f64::from(value) - black) / (white - black) * 255.0).round() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(shape: &[usize], values: &[f32]) -> ([u32; 3], Vec<u8>) {
        let picture = Picture::of(shape, values, Shades::default()).unwrap();
        (picture.size, picture.pixels)
    }

    #[test]
    fn a_matrix_is_a_picture_from_its_least_to_its_greatest_number() {
        assert_eq!(picture(&[2, 2], &[-1.0, 1.0, 0.0, -1.0]), ([2, 2, 1], vec![0, 255, 128, 0]));
        assert_eq!(picture(&[3], &[0.0, 5.0, 10.0]), ([1, 3, 1], vec![0, 128, 255]));
        assert_eq!(picture(&[], &[3.0]), ([1, 1, 1], vec![0]));
    }

    #[test]
    fn a_kernel_has_a_row_for_each_output_and_a_column_for_each_input() {
        // [2 outputs, 2 inputs, 1, 2]
        let values = [0.0, 51.0, 102.0, 153.0, 204.0, 255.0, 0.0, 255.0];
        let expected = [0, 51, 0, 102, 153, /* gap */ 0, 0, 0, 0, 0, 204, 255, 0, 0, 255];
        assert_eq!(picture(&[2, 2, 1, 2], &values), ([3, 5, 1], expected.to_vec()));
    }

    #[test]
    fn kernels_of_three_inputs_are_in_color() {
        let values = [0.0, 51.0, 102.0, 255.0, 204.0, 153.0];
        assert_eq!(picture(&[2, 3, 1, 1], &values), ([1, 3, 3], vec![0, 51, 102, 0, 0, 0, 255, 204, 153]));
    }

    #[test]
    fn other_tensors_are_tiles_in_a_square() {
        let layout = Layout::of(&[5, 4, 6]);
        assert_eq!((layout.across, layout.size()), (3, [2 * 5 - 1, 3 * 7 - 1]));
        assert_eq!(Layout::of(&[8, 1, 3, 3]).across, 3);
        assert_eq!(Layout::of(&[2, 4, 3, 3, 3]).tiles, 24);
    }

    #[test]
    fn black_and_white_can_be_given() {
        let shades = Shades { black: Some(0.0), white: Some(2.0) };
        let picture = Picture::of(&[5], &[-1.0, 1.0, 9.0, f32::NAN, f32::INFINITY], shades).unwrap();
        assert_eq!(picture.pixels, [0, 128, 255, 0, 255]);
    }

    #[test]
    fn what_is_no_picture_is_none() {
        let of = |shape: &[usize], values: &[f32]| Picture::of(shape, values, Shades::default());
        assert_eq!(of(&[0, 3], &[]), None);
        assert_eq!(of(&[2], &[1.0]), None);
        // Each of these tiles is one pixel, and needs four.
        assert_eq!(of(&[5 << 20, 1, 1], &vec![0.0; 5 << 20]), None);
    }
}
