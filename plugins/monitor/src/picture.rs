//! Pictures as PNG.

use plugin_api::{Error, Result};

/// A picture as PNG: rows from the top, `width × height × channels` bytes.
///
/// # Errors
///
/// Another number of channels than 1, 3 or 4, or of bytes.
pub fn encode_png([height, width, channels]: [u32; 3], pixels: &[u8]) -> Result<Vec<u8>> {
    let color = match channels {
        1 => png::ColorType::Grayscale,
        3 => png::ColorType::Rgb,
        4 => png::ColorType::Rgba,
        other => return Err(Error::new(format!("a picture has {other} channels, not 1, 3 or 4"))),
    };
    let mut encoded = Vec::new();
    let mut encoder = png::Encoder::new(&mut encoded, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(pixels)?;
        writer.finish()
    });
    written.map_err(|error| Error::from(error).context("a picture cannot be encoded"))?;
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_back_as_it_was() {
        let encoded = encode_png([1, 2, 3], &[1, 2, 3, 250, 251, 252]).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(encoded)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (2, 1, png::ColorType::Rgb));
        assert_eq!(pixels, [1, 2, 3, 250, 251, 252]);
    }

    #[test]
    fn pixels_that_do_not_fit_are_refused() {
        assert!(encode_png([1, 2, 1], &[0]).is_err());
        assert_eq!(encode_png([1, 1, 2], &[0, 0]).unwrap_err().message(), "a picture has 2 channels, not 1, 3 or 4");
    }
}
