//! Samples as pictures of a visible size.

use plugin_api::{Error, Result};

/// Numbers in rows, one plane per channel.
pub(crate) struct Planes {
    height: usize,
    width: usize,
    planes: Vec<Vec<f32>>,
}

impl Planes {
    /// A sample of this shape: `[channels, height, width]`, `[height, width]`, or a vector of as many values as an
    /// image of the `wanted` height, width and channels has.
    pub(crate) fn new(shape: &[usize], wanted: [u32; 3], values: &[f32]) -> Result<Self> {
        let [wanted_height, wanted_width, wanted_channels] = wanted.map(|size| size as usize);
        let (channels, height, width) = match *shape {
            [channels @ (1 | 3 | 4), height, width] => (channels, height, width),
            [height, width] => (1, height, width),
            [count] if count == wanted_channels * wanted_height * wanted_width => {
                (wanted_channels, wanted_height, wanted_width)
            }
            _ => {
                return Err(Error::new(format!(
                    "samples of shape {shape:?} are not images: `image_shape` needs [channels, height, width] with 1, 3 or \
                     4 channels, [height, width], or as many values as {wanted:?} has"
                )));
            }
        };
        if height * width == 0 || values.len() != channels * height * width {
            return Err(Error::new(format!("a sample of shape {shape:?} has {} values", values.len())));
        }
        let planes = values.chunks_exact(height * width).map(<[f32]>::to_vec).collect();
        Ok(Self { height, width, planes })
    }

    /// The smallest and the largest number.
    pub(crate) fn range(&self) -> [f32; 2] {
        let finite = self.planes.iter().flatten().copied().filter(|value| value.is_finite());
        finite.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], value| [low.min(value), high.max(value)])
    }

    /// Rows of pixels, `height × width × channels` bytes, with the first of `range` as black and the second as white.
    /// Linear between the middles of pixels (`align_corners = False`).
    pub(crate) fn resized(&self, [height, width, channels]: [u32; 3], [low, high]: [f32; 2]) -> Vec<u8> {
        let mut pixels = Vec::with_capacity((height * width * channels) as usize);
        let rows: Vec<_> = (0..height).map(|row| between(row, height, self.height)).collect();
        let columns: Vec<_> = (0..width).map(|column| between(column, width, self.width)).collect();
        for (upper, lower, down) in &rows {
            for (left, right, across) in &columns {
                let at = |plane: &[f32]| {
                    let pixel =
                        |row: &usize, column: &usize| plane.get(row * self.width + column).copied().unwrap_or(low);
                    let mix = |first: f32, second: f32, share: f32| first + (second - first) * share;
                    let top = mix(pixel(upper, left), pixel(upper, right), *across);
                    mix(top, mix(pixel(lower, left), pixel(lower, right), *across), *down)
                };
                // A NaN becomes black.
                let byte = |value: f32| ((value - low) / (high - low) * 255.0).round() as u8;
                match (self.planes.as_slice(), channels) {
                    ([red, green, blue, ..], 1) => {
                        // Luma of ITU-R BT.601.
                        pixels.push(byte(0.299 * at(red) + 0.587 * at(green) + 0.114 * at(blue)));
                    }
                    ([red, green, blue, ..], _) => pixels.extend([red, green, blue].map(|plane| byte(at(plane)))),
                    (planes, _) => {
                        let gray = planes.first().map_or(0, |plane| byte(at(plane)));
                        pixels.extend(std::iter::repeat_n(gray, channels.min(3) as usize));
                    }
                }
                if channels == 4 {
                    pixels.push(u8::MAX);
                }
            }
        }
        pixels
    }
}

/// For an index of a new length: the two nearest indices of the old one, and the distance from the first.
fn between(index: u32, new: u32, old: usize) -> (usize, usize, f32) {
    let place = ((index as f32 + 0.5) * old as f32 / new as f32 - 0.5).clamp(0.0, old as f32 - 1.0);
    let first = place as usize;
    (first, (first + 1).min(old - 1), place - first as f32)
}

/// Draws a frame of a thirty-second of the height around RGB or RGBA rows.
pub(crate) fn frame(pixels: &mut [u8], [height, width, channels]: [u32; 3], color: [u8; 3]) {
    if channels < 3 {
        return;
    }
    let thick = (height / 32).max(1);
    for (index, pixel) in pixels.chunks_exact_mut(channels as usize).enumerate() {
        let (row, column) = (index as u32 / width, index as u32 % width);
        if row.min(height - 1 - row.min(height - 1)) < thick || column.min(width - 1 - column) < thick {
            pixel.iter_mut().zip(color).for_each(|(place, value)| *place = value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_those_of_pytorch() {
        let planes = Planes::new(&[1, 2, 2], [4, 4, 1], &[0.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(planes.range(), [0.0, 3.0]);
        // torch.nn.functional.interpolate(x, (4, 4), mode="bilinear") * 85
        let expected = [0, 21, 64, 85, 43, 64, 106, 128, 128, 149, 191, 213, 170, 191, 234, 255];
        let found = planes.resized([4, 4, 1], [0.0, 3.0]);
        assert!(found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= 1), "{found:?}");
        assert_eq!(planes.resized([1, 1, 3], [0.0, 3.0]), [128; 3]);
    }

    #[test]
    fn channels_are_made_fewer_or_more() {
        let planes = Planes::new(&[3, 1, 1], [1, 1, 1], &[1.0, 0.0, 0.0]).unwrap();
        assert_eq!(planes.resized([1, 1, 1], [0.0, 1.0]), [76]);
        assert_eq!(planes.resized([1, 1, 4], [0.0, 1.0]), [255, 0, 0, 255]);
        assert!(Planes::new(&[5, 1, 1], [1, 1, 1], &[0.0; 5]).is_err());
        assert!(Planes::new(&[12], [2, 2, 3], &[0.0; 12]).is_ok());
    }

    #[test]
    fn a_frame_goes_round() {
        let mut pixels = vec![9; 3 * 4 * 3];
        frame(&mut pixels, [3, 4, 3], [1, 2, 3]);
        let kept = pixels.chunks(3).filter(|pixel| **pixel == [9; 3]).count();
        assert_eq!(kept, 2);
    }
}
