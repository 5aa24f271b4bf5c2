//! From an image file to planes of numbers.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read as _, Seek, SeekFrom};
use std::path::Path;

use image::imageops::FilterType;
use image::metadata::Orientation as Turn;
use image::{ColorType, DynamicImage, ImageDecoder, ImageReader, Limits};

use super::jpeg;
use crate::data::DataError;
use crate::data::options::{Color, Orientation};
use crate::regular_file;

/// The most pixels of an image: Pillow's own limit, beyond which an image is a decompression bomb.
const MOST_PIXELS: u64 = 178_956_970;

/// The most bytes that a decoder takes: four channels of 16 bits for the largest image, and its own tables.
const DECODER_BYTES: u64 = MOST_PIXELS * 8 + (64 << 20);

/// The first bytes of a JPEG file that hold its header, with few exceptions.
const HEADER_BYTES: usize = 64 << 10;

/// The last bytes of a JPEG file in which its end is looked for before all of it is read.
const END_BYTES: u64 = 4 << 10;

/// What is known of an image without decoding it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// Height and width once the orientation is applied, or as they are stored if it is ignored.
    pub(super) size: (u32, u32),
    /// Whether the file says that the image is to be turned or mirrored.
    pub(super) is_turned: bool,
    /// Whether a channel has 16 bits.
    pub(super) is_deep: bool,
}

/// Reads the header, and looks whether a JPEG file is whole.
pub(super) fn header(path: &Path, orientation: Orientation) -> Result<Header, DataError> {
    let mut file = open(path)?;
    let read = |source| DataError::Read { path: path.to_owned(), source };
    if !jpeg::is_jpeg(file.fill_buf().map_err(read)?) {
        return header_of(path, decoder(path, file)?, orientation);
    }
    let mut bytes = Vec::new();
    file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(read)?;
    let mut has_end = false;
    if bytes.len() == HEADER_BYTES {
        let length = file.seek(SeekFrom::End(0)).map_err(read)?;
        file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES))).map_err(read)?;
        let mut end = Vec::new();
        file.read_to_end(&mut end).map_err(read)?;
        has_end = jpeg::contains_end(&end);
    }
    if has_end && let Ok(decoder) = decoder(path, Cursor::new(&bytes)) {
        return header_of(path, decoder, orientation);
    }
    file.seek(SeekFrom::Start(bytes.len() as u64)).map_err(read)?;
    file.read_to_end(&mut bytes).map_err(read)?;
    header_of(path, decoder(path, Cursor::new(whole(path, &bytes)?))?, orientation)
}

/// Decodes an image, turned as its orientation says.
pub(super) fn decode(path: &Path, orientation: Orientation) -> Result<DynamicImage, DataError> {
    let mut file = open(path)?;
    let read = |source| DataError::Read { path: path.to_owned(), source };
    if !jpeg::is_jpeg(file.fill_buf().map_err(read)?) {
        return decode_with(path, decoder(path, file)?, orientation);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(read)?;
    decode_with(path, decoder(path, Cursor::new(whole(path, &bytes)?))?, orientation)
}

/// Resizes an image to a height and a width, without a change to its ratio.
pub(super) fn resize(image: &DynamicImage, height: u32, width: u32) -> DynamicImage {
    // Triangle is bilinear, with a filter as wide as the reduction: torchvision's antialias.
    image.resize_exact(width, height, FilterType::Triangle)
}

/// The channels of an image, one plane after another, with black as 0 and white as 255.
#[derive(Debug, PartialEq)]
pub(super) enum Planes {
    /// Of an image with 8 bits for a channel.
    Bytes(Vec<u8>),
    /// Of an image with 16 bits: a 257th of them, so that white is 255 here too.
    Numbers(Vec<f64>),
}

/// The planes of an image; an alpha channel is left out.
pub(super) fn planes(path: &Path, image: &DynamicImage, color: Color) -> Result<Planes, DataError> {
    let eight = |pixels: &[u8], channels| Planes::Bytes(spread(pixels, channels, color, luma, |value| value));
    let sixteen = |pixels: &[u16], channels| {
        Planes::Numbers(spread(pixels, channels, color, deep_luma, |value| f64::from(value) / 257.0))
    };
    Ok(match image {
        DynamicImage::ImageLuma8(pixels) => eight(pixels, 1),
        DynamicImage::ImageLumaA8(pixels) => eight(pixels, 2),
        DynamicImage::ImageRgb8(pixels) => eight(pixels, 3),
        DynamicImage::ImageRgba8(pixels) => eight(pixels, 4),
        DynamicImage::ImageLuma16(pixels) => sixteen(pixels, 1),
        DynamicImage::ImageLumaA16(pixels) => sixteen(pixels, 2),
        DynamicImage::ImageRgb16(pixels) => sixteen(pixels, 3),
        DynamicImage::ImageRgba16(pixels) => sixteen(pixels, 4),
        _ => return Err(unsupported(path)),
    })
}

/// Gray of ITU-R BT.601, rounded as Pillow does.
fn luma(red: u8, green: u8, blue: u8) -> u8 {
    let [red, green, blue] = [red, green, blue].map(u32::from);
    ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16) as u8
}

/// The same of 16 bits, without the rounding.
fn deep_luma(red: u16, green: u16, blue: u16) -> f64 {
    let [red, green, blue] = [red, green, blue].map(f64::from);
    (red * 19595.0 + green * 38470.0 + blue * 7471.0) / 65536.0 / 257.0
}

/// Planes from pixels of 1 (gray), 2 (gray, alpha), 3 (red, green, blue) or 4 channels.
fn spread<T: Copy, N: Copy + Default>(
    pixels: &[T],
    channels: usize,
    color: Color,
    gray: impl Fn(T, T, T) -> N,
    number: impl Fn(T) -> N,
) -> Vec<N> {
    let count = pixels.len() / channels;
    let pixels = pixels.chunks_exact(channels);
    match color {
        Color::Gray => pixels
            .map(|pixel| match *pixel {
                [red, green, blue, ..] => gray(red, green, blue),
                [value, ..] => number(value),
                [] => N::default(),
            })
            .collect(),
        Color::Rgb => {
            let mut planes = vec![N::default(); 3 * count];
            let (red, rest) = planes.split_at_mut(count);
            let (green, blue) = rest.split_at_mut(count);
            for (pixel, ((red, green), blue)) in pixels.zip(red.iter_mut().zip(green).zip(blue)) {
                let [first, second, third] = match *pixel {
                    [first, second, third, ..] => [first, second, third],
                    _ => [pixel[0]; 3],
                };
                (*red, *green, *blue) = (number(first), number(second), number(third));
            }
            planes
        }
    }
}

fn open(path: &Path) -> Result<BufReader<File>, DataError> {
    regular_file::open(path).map(BufReader::new).map_err(|source| DataError::Read { path: path.to_owned(), source })
}

/// The bytes of a JPEG file, which must be whole: its decoder fills in what is missing, without a word.
fn whole<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8], DataError> {
    match jpeg::is_whole(bytes) {
        true => Ok(bytes),
        false => Err(DataError::Malformed {
            path: path.to_owned(),
            problem: format!("is truncated: its {} bytes end before the image does", bytes.len()),
            hint: Some("fetch or write the file again, or remove it"),
        }),
    }
}

/// The decoder for what is in the file, whatever its name says.
fn decoder<'a>(path: &Path, input: impl BufRead + Seek + 'a) -> Result<impl ImageDecoder + 'a, DataError> {
    let guessed = ImageReader::new(input).with_guessed_format();
    let mut reader = guessed.map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODER_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| broken(path, &error))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(DataError::Malformed {
            path: path.to_owned(),
            problem: format!(
                "is {height} pixels high and {width} wide; an image has {MOST_PIXELS} pixels at most, so that a small \
                 file cannot take all memory"
            ),
            hint: Some("make the image smaller, or remove it"),
        });
    }
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(unsupported(path));
    }
    Ok(decoder)
}

fn header_of(path: &Path, mut decoder: impl ImageDecoder, orientation: Orientation) -> Result<Header, DataError> {
    let turn = decoder.orientation().map_err(|error| broken(path, &error))?;
    let (width, height) = decoder.dimensions();
    let on_its_side = matches!(turn, Turn::Rotate90 | Turn::Rotate270 | Turn::Rotate90FlipH | Turn::Rotate270FlipH);
    let size = match orientation {
        Orientation::Apply if on_its_side => (width, height),
        Orientation::Apply | Orientation::Ignore => (height, width),
    };
    let is_deep =
        matches!(decoder.color_type(), ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16);
    Ok(Header { size, is_turned: turn != Turn::NoTransforms, is_deep })
}

fn decode_with(
    path: &Path,
    mut decoder: impl ImageDecoder,
    orientation: Orientation,
) -> Result<DynamicImage, DataError> {
    let turn = match orientation {
        Orientation::Apply => decoder.orientation().map_err(|error| broken(path, &error))?,
        Orientation::Ignore => Turn::NoTransforms,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| broken(path, &error))?;
    image.apply_orientation(turn);
    Ok(image)
}

fn broken(path: &Path, error: &image::ImageError) -> DataError {
    DataError::malformed(path, &format!("is not an image that can be decoded: {error}"))
}

fn unsupported(path: &Path) -> DataError {
    DataError::Malformed {
        path: path.to_owned(),
        problem: "has pixels of floating-point numbers, not of 8 or 16 bits".to_owned(),
        hint: Some("save the images as one array with `numpy.save`, and read it with `format = \"npy\"`"),
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, Luma, Rgb, Rgba};

    use super::*;

    fn of(image: impl Into<DynamicImage>, color: Color) -> Planes {
        planes(Path::new("x"), &image.into(), color).unwrap()
    }

    #[test]
    fn gray_is_that_of_pillow() {
        // PIL.Image.new("RGB", (1, 1), color).convert("L").getpixel((0, 0)), of Pillow 13.
        for (color, expected) in [
            ([0u8, 0, 255], 29),
            ([200, 100, 50], 124),
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([1, 2, 3], 2),
            ([254, 255, 253], 254),
            ([12, 200, 77], 130),
            ([255, 255, 255], 255),
        ] {
            let [red, green, blue] = color;
            let gray = of(ImageBuffer::from_pixel(1, 1, Rgb(color)), Color::Gray);
            assert_eq!(gray, Planes::Bytes(vec![expected]), "{color:?}");
            let with_alpha = of(ImageBuffer::from_pixel(1, 1, Rgba([red, green, blue, 9])), Color::Gray);
            assert_eq!(with_alpha, Planes::Bytes(vec![expected]));
        }
    }

    #[test]
    fn sixteen_bits_are_kept_and_white_is_255_whatever_the_depth() {
        let gray = ImageBuffer::from_vec(3, 1, vec![1000u16, 1100, 65535]).unwrap();
        let expected = vec![1000.0 / 257.0, 1100.0 / 257.0, 255.0];
        assert_eq!(of(DynamicImage::ImageLuma16(gray), Color::Gray), Planes::Numbers(expected));
        let white = ImageBuffer::from_pixel(1, 1, Rgb([65535u16; 3]));
        assert_eq!(of(DynamicImage::ImageRgb16(white.clone()), Color::Gray), Planes::Numbers(vec![255.0]));
        assert_eq!(of(DynamicImage::ImageRgb16(white), Color::Rgb), Planes::Numbers(vec![255.0; 3]));
        // As of the same color in 8 bits, before it is rounded there: (200, 100, 50) * 257.
        let color = ImageBuffer::from_pixel(1, 1, Rgb([51400u16, 25700, 12850]));
        let Planes::Numbers(found) = of(DynamicImage::ImageRgb16(color), Color::Gray) else { panic!("16 bits") };
        assert!((found[0] - 124.2).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn planes_come_one_after_another_and_gray_images_have_three_alike() {
        let image = ImageBuffer::from_vec(2, 1, vec![1u8, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(of(DynamicImage::ImageRgb8(image), Color::Rgb), Planes::Bytes(vec![1, 4, 2, 5, 3, 6]));
        let gray = ImageBuffer::from_pixel(2, 1, Luma([7u8]));
        assert_eq!(of(gray, Color::Rgb), Planes::Bytes(vec![7; 6]));
    }
}
