//! The frames of a TFRecord file: length, its checksum, the data, its checksum; numbers are little-endian
//! (TensorFlow's `record_writer.cc`).

/// Bytes before a record's data.
const HEAD: usize = 12;
/// Bytes after it.
const TAIL: usize = 4;

/// The masked checksum: a plain CRC of data that contains CRCs would be weak (TensorFlow's `crc32c.h`).
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Appends a record to `buffer`, its data written by `encode`.
pub(crate) fn append(buffer: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.resize(start + HEAD, 0);
    encode(buffer);
    let length = ((buffer.len() - start - HEAD) as u64).to_le_bytes();
    let data = masked(&buffer[start + HEAD..]).to_le_bytes();
    buffer.extend_from_slice(&data);
    buffer[start..start + 8].copy_from_slice(&length);
    buffer[start + 8..start + HEAD].copy_from_slice(&masked(&length).to_le_bytes());
}

/// The first record of `bytes` and the rest; `None` if it is incomplete, damaged or missing.
pub(crate) fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (length, sum) = head.split_at_checked(8)?;
    if sum != masked(length).to_le_bytes() {
        return None;
    }
    let (data, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?)?;
    let (sum, rest) = rest.split_at_checked(TAIL)?;
    (sum == masked(data).to_le_bytes()).then_some((data, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_that_of_tensorflow() {
        // `tf.io.TFRecordWriter("f").write(b"abc")`.
        let mut buffer = Vec::new();
        append(&mut buffer, |buffer| buffer.extend_from_slice(b"abc"));
        assert_eq!(buffer[..8], 3u64.to_le_bytes());
        assert_eq!(buffer.len(), 3 + HEAD + TAIL);
        // The test vector of RFC 3720, B.4, and the mask over it.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked(&[0; 32]), 0x8a91_36aau32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    proptest! {
        #[test]
        fn what_was_appended_is_read(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..5)) {
            let mut buffer = Vec::new();
            for record in &records {
                append(&mut buffer, |buffer| buffer.extend_from_slice(record));
            }
            let (mut rest, mut read) = (buffer.as_slice(), Vec::new());
            while let Some((record, tail)) = first(rest) {
                read.push(record.to_vec());
                rest = tail;
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_bytes_are_a_record_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(first(&bytes).is_none_or(|(data, rest)| data.len() + rest.len() + HEAD + TAIL == bytes.len()));
        }

        #[test]
        fn a_flipped_bit_is_found(record in prop::collection::vec(any::<u8>(), 1..64), at: prop::sample::Index) {
            let mut buffer = Vec::new();
            append(&mut buffer, |buffer| buffer.extend_from_slice(&record));
            let bit = at.index(buffer.len() * 8);
            buffer[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(first(&buffer).is_none());
        }
    }
}
