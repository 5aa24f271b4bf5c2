//! Images with what the model says of them.

use std::path::{Path, PathBuf};

use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage, imageops};
use tch::{Kind, Tensor};

use super::outputs::refuse_existing;
use crate::data::{DataDescription, Normalization, Samples};
use crate::report::{Problem, Problems};

/// The folder of the drawings in that of the predictions.
const FOLDER: &str = "drawings";

/// An image is enlarged, by a whole factor, until it has about so many pixels in a row.
const SHOWN_PIXELS: u32 = 200;

/// The height of the line under an image: eight pixels of a character, twice enlarged, and some room.
const CAPTION: u32 = 24;

/// The pixels of a character and of the room around it.
const CHARACTER: u32 = 16;

const INK: Rgb<u8> = Rgb([255, 255, 255]);

/// A folder of drawings.
pub(super) struct Drawings {
    folder: PathBuf,
    normalization: Normalization,
    /// Channels, height and width.
    shape: [i64; 3],
    /// Whether pixels are from 0 to 255; if not, each drawing is scaled to its own range.
    is_image: bool,
}

impl Drawings {
    /// Drawings of samples like these, in a folder of `folder`.
    pub(super) fn new(folder: &Path, description: &DataDescription, force: bool) -> Result<Self, Problems> {
        let [channels @ (1 | 3), height, width] = description.sample_shape[..] else {
            let message = format!("samples of shape {:?} cannot be drawn", description.sample_shape);
            let hint = "images have the shape [channels, height, width] with 1 or 3 channels: leave out `--draw`";
            return Err(Problem::new(message).with_hint(hint.to_owned()).into());
        };
        let folder = folder.join(FOLDER);
        refuse_existing(std::slice::from_ref(&folder), force)?;
        std::fs::create_dir_all(&folder).map_err(|error| {
            Problem::new(format!("cannot make the folder `{}`", folder.display())).with_cause(&error)
        })?;
        let is_image = matches!(description.samples, Samples::Images { .. });
        let normalization = description.normalization.clone();
        Ok(Self { folder, normalization, shape: [channels, height, width], is_image })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Draws the sample at `index`; `inputs` is what the model got.
    pub(super) fn draw(
        &self,
        index: u64,
        source: &str,
        inputs: &Tensor,
        chosen: Option<(&str, f64)>,
    ) -> std::io::Result<()> {
        let pixels = self.pixels(inputs).map_err(std::io::Error::other)?;
        let factor = (SHOWN_PIXELS / pixels.width().max(1)).max(1);
        let caption =
            chosen.map_or_else(String::new, |(name, probability)| format!("{name} {:.1} %", probability * 100.0));
        let (width, height) = (pixels.width() * factor, pixels.height() * factor);
        let mut picture = RgbImage::new(width.max(caption.chars().count() as u32 * CHARACTER), height + CAPTION);
        let enlarged = imageops::resize(&pixels, width, height, imageops::FilterType::Nearest);
        imageops::replace(&mut picture, &enlarged, 0, 0);
        write_caption(&mut picture, &caption, height + (CAPTION - CHARACTER) / 2);
        let stem = Path::new(source).file_stem().unwrap_or_default().to_string_lossy();
        let name =
            if stem.is_empty() || source.contains(':') { format!("{index:06}") } else { format!("{index:06}-{stem}") };
        picture.save(self.folder.join(format!("{name}.png"))).map_err(std::io::Error::other)
    }

    /// The sample as it was before it was normalized, from 0 to 255.
    fn pixels(&self, inputs: &Tensor) -> Result<RgbImage, crate::torch::TorchError> {
        let [channels, height, width] = self.shape;
        let values = inputs.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?.f_reshape([-1])?;
        let mut values = Vec::<f64>::try_from(values)?;
        let plane = (height * width) as usize;
        for (channel, values) in values.chunks_mut(plane.max(1)).enumerate() {
            let (offset, scale) = match self.normalization.offset.is_empty() {
                true => (0.0, 1.0),
                false => self.normalization.of(channel),
            };
            values.iter_mut().for_each(|value| *value = *value * scale + offset);
        }
        let (low, high) = match self.is_image {
            true => (0.0, 255.0),
            false => values
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value))),
        };
        let range = if high > low { high - low } else { 1.0 };
        let byte = |value: f64| ((value - low) / range * 255.0).round().clamp(0.0, 255.0) as u8;
        Ok(RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let at = y as usize * width as usize + x as usize;
            let of =
                |channel: i64| byte(values.get((channel % channels) as usize * plane + at).copied().unwrap_or(low));
            Rgb([of(0), of(1), of(2)])
        }))
    }
}

/// Writes the text with characters of 16 pixels; those that the font does not have are left out.
fn write_caption(picture: &mut RgbImage, text: &str, top: u32) {
    for (place, character) in (0u32..).zip(text.chars()) {
        let Some(rows) = font8x8::BASIC_FONTS.get(character).or_else(|| font8x8::LATIN_FONTS.get(character)) else {
            continue;
        };
        for (y, row) in (0u32..).zip(rows) {
            for x in (0..8u32).filter(|x| row & (1 << x) != 0) {
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let (x, y) = (place * CHARACTER + 2 * x + dx, top + 2 * y + dy);
                    if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
                        *pixel = INK;
                    }
                }
            }
        }
    }
}
