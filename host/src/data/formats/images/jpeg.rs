//! Whether a JPEG file (ITU-T T.81) is whole: whether the marker of its end follows what comes before it.

/// The marker of the start, and the first byte of the next.
const START: [u8; 3] = [0xff, 0xd8, 0xff];

/// The marker of the end.
const END: [u8; 2] = [0xff, 0xd9];

/// Whether a JPEG file begins with these bytes.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&START)
}

/// Whether the marker of an end is anywhere in the last bytes of a file. Compressed data has no such bytes.
pub(super) fn contains_end(bytes: &[u8]) -> bool {
    bytes.windows(END.len()).any(|window| window == END)
}

/// Whether the file goes on to the end of its image; what follows that does not matter. Segments are skipped by their
/// length, since a preview in one has an end of its own.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    // To the next marker: through compressed data, or what should not be there, which decoders skip.
    while let Some(start) = rest.iter().position(|byte| *byte == 0xff) {
        rest = &rest[start + 1..];
        match rest {
            [0xd9, ..] => return true,
            // A byte of compressed data, a fill byte, or a marker without a segment.
            [0x00 | 0x01 | 0xd0..=0xd8 | 0xff, ..] => {}
            [_, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = rest.get(1 + length..).unwrap_or_default();
            }
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use image::RgbImage;
    use image::codecs::jpeg::JpegEncoder;

    use super::*;

    fn encoded() -> Vec<u8> {
        let image = RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8]));
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&image).unwrap();
        bytes
    }

    #[test]
    fn a_file_is_whole_only_with_all_of_its_bytes() {
        let bytes = encoded();
        assert!(is_jpeg(&bytes) && is_whole(&bytes) && contains_end(&bytes));
        for length in 0..bytes.len() {
            assert!(!is_whole(&bytes[..length]), "{length} of {}", bytes.len());
        }
        assert!(is_whole(&[bytes.as_slice(), b"\xff\xd8 what follows"].concat()));
        // The rest of a broken download that reserved its space.
        let mut zeros = bytes.clone();
        zeros[bytes.len() / 2..].fill(0);
        assert!(!is_whole(&zeros));
    }

    #[test]
    fn the_end_of_a_preview_is_not_the_end_of_the_image() {
        let bytes = encoded();
        let preview = [b"\xff\xe1\x00\x08".as_slice(), &END, b"\x01\x02\xff\xd9"].concat();
        let with_preview = [&bytes[..2], &preview, &bytes[2..]].concat();
        assert!(is_whole(&with_preview));
        assert!(!is_whole(&with_preview[..with_preview.len() - 2]));
    }
}
