//! NumPy's formats: `.npy` (NEP 1), and `.npz`, a zip file of them. Objects, which NumPy pickles, are rejected and
//! never unpickled, since unpickling runs code from the file.

use std::io::{Cursor, Read as _};
use std::path::Path;
use std::sync::Arc;

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};
use zip::{CompressionMethod, ZipArchive};

use super::array::{Array, Bytes, Element, Layout};
use super::file::{SUSPECT_BYTES, SUSPECT_RATIO};
use crate::data::{DataError, Source};
use crate::report::nearest;

/// The most bytes of an unpacked array: larger ones belong in a `.npy` file, which is mapped.
const LARGEST_UNPACKED: u64 = 16 << 30;

/// The longest header, in bytes, that is accepted; NumPy itself writes a few hundred.
const LONGEST_HEADER: usize = 1 << 16;

/// The most opening brackets in a header. NumPy writes two for an array of numbers, and three and more for records.
const MOST_BRACKETS: usize = 6;

/// The array of a `.npy` file.
pub(super) fn open(path: &Path, source: Source<'_>) -> Result<Array, DataError> {
    let (path, bytes) = Bytes::open(path, source)?;
    let layout = header(&bytes).map_err(|problem| DataError::malformed(&path, &problem))?;
    Array::new(path, "", Arc::new(bytes), layout)
}

/// The arrays of these names in a `.npz` file, in their order. One that is not compressed is mapped.
pub(super) fn open_archive(path: &Path, names: &[&str], source: Source<'_>) -> Result<Vec<Array>, DataError> {
    let (path, bytes) = Bytes::open(path, source)?;
    let bytes = Arc::new(bytes);
    names.iter().map(|name| member(&path, &bytes, name)).collect()
}

fn member(path: &Path, bytes: &Arc<Bytes>, name: &str) -> Result<Array, DataError> {
    let malformed = |problem: &str| DataError::malformed(path, problem);
    let mut archive =
        ZipArchive::new(Cursor::new(&***bytes)).map_err(|error| malformed(&format!("is not an npz file: {error}")))?;
    let available: Vec<String> =
        archive.file_names().map(|name| name.strip_suffix(".npy").unwrap_or(name).to_owned()).collect();
    let index = archive.index_for_name(&format!("{name}.npy")).or_else(|| archive.index_for_name(name));
    let Some(index) = index else {
        return Err(no_array(path, name, &available));
    };
    let mut member = archive.by_index(index).map_err(|error| malformed(&format!("array `{name}`: {error}")))?;
    let (packed, unpacked) = (member.compressed_size(), member.size());
    if member.compression() == CompressionMethod::Stored {
        let start = usize::try_from(member.data_start()).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(unpacked).unwrap_or(usize::MAX));
        let Some(content) = bytes.get(start..end) else {
            return Err(malformed(&format!("array `{name}` is truncated")));
        };
        let mut layout = header(content).map_err(|problem| malformed(&format!("array `{name}` {problem}")))?;
        layout.start += start;
        return Array::new(path.to_owned(), name, Arc::clone(bytes), layout);
    }
    let is_bomb = unpacked > SUSPECT_BYTES && unpacked / packed.max(1) > SUSPECT_RATIO;
    if is_bomb || unpacked > LARGEST_UNPACKED {
        return Err(DataError::Malformed {
            path: path.to_owned(),
            problem: format!("array `{name}` would unpack from {packed} to {unpacked} bytes"),
            hint: Some("if that is correct, save it with `numpy.save` as a `.npy` file, which is read on demand"),
        });
    }
    // Do not trust the size that the file states: unpack no more than that, and allocate as the data comes.
    let mut content = Vec::new();
    member
        .by_ref()
        .take(unpacked + 1)
        .read_to_end(&mut content)
        .map_err(|error| malformed(&format!("array `{name}` is damaged: {error}")))?;
    if content.len() as u64 != unpacked {
        return Err(malformed(&format!(
            "array `{name}` is damaged: it does not have the {unpacked} bytes that it states"
        )));
    }
    let layout = header(&content).map_err(|problem| malformed(&format!("array `{name}` {problem}")))?;
    Array::new(path.to_owned(), name, Arc::new(Bytes::Owned(content)), layout)
}

/// The requested array is not in the file.
pub(super) fn no_array(path: &Path, name: &str, available: &[String]) -> DataError {
    let near = nearest(name, available.iter().map(String::as_str));
    let did_you_mean = near.first().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let available = available.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    DataError::malformed(path, &format!("has no array `{name}`; it has {available}{did_you_mean}"))
}

/// The layout of the array that these bytes of an `.npy` file begin with.
///
/// # Errors
///
/// What is wrong with it, to follow the name of the file or the array: no array of numbers, or one that is stored by columns.
pub(crate) fn header(bytes: &[u8]) -> Result<Layout, String> {
    let mut rest = bytes.get(..bytes.len().min(LONGEST_HEADER)).unwrap_or_default();
    let within = rest.len();
    // Look at the header before `npyz` does, which allocates as many bytes as its length says, and whose time may double
    // with each opening bracket.
    if let [0x93, b'N', b'U', b'M', b'P', b'Y', version, _, a, b, c, d, ..] = *rest {
        let (prefix, length) = match version {
            1 => (10, usize::from(u16::from_le_bytes([a, b]))),
            _ => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        };
        if length > within {
            return Err("is not an npy file: its header is longer than a header can be".to_owned());
        }
        let text = rest.iter().skip(prefix).take(length);
        if text.filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count() > MOST_BRACKETS {
            return Err("has records, not numbers, or its header is damaged".to_owned());
        }
    }
    let header = NpyHeader::from_reader(&mut rest).map_err(|error| format!("is not an npy file: {error}"))?;
    let start = within - rest.len();
    if header.uses_pickled_array() {
        return Err("has Python objects, which are not read because unpickling runs code from the file; save \
                    numbers with `numpy.save(…, allow_pickle=False)`"
            .to_owned());
    }
    let DType::Plain(dtype) = header.dtype() else {
        return Err(format!("has records `{}`, not numbers", header.dtype().descr()));
    };
    let element = match (dtype.type_char(), dtype.size_field()) {
        (TypeChar::Bool, _) => Element::Bool,
        (TypeChar::Uint, 1) => Element::U8,
        (TypeChar::Int, 1) => Element::I8,
        (TypeChar::Uint, 2) => Element::U16,
        (TypeChar::Int, 2) => Element::I16,
        (TypeChar::Uint, 4) => Element::U32,
        (TypeChar::Int, 4) => Element::I32,
        (TypeChar::Uint, 8) => Element::U64,
        (TypeChar::Int, 8) => Element::I64,
        (TypeChar::Float, 2) => Element::F16,
        (TypeChar::Float, 4) => Element::F32,
        (TypeChar::Float, 8) => Element::F64,
        _ => return Err(format!("has elements of type `{dtype}`, which are not real numbers")),
    };
    if header.order() == Order::Fortran && header.shape().len() > 1 {
        return Err("is stored column by column; save `numpy.ascontiguousarray` of it".to_owned());
    }
    let shape = header.shape().iter().map(|length| usize::try_from(*length).unwrap_or(usize::MAX)).collect();
    Ok(Layout { start, element, big_endian: dtype.endianness() == Endianness::Big, shape })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::data::Normalization;
    use crate::data::rows::Rows;

    /// A `.npy` file of version 1.
    fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
        let fortran = if fortran { "True" } else { "False" };
        let dictionary = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((dictionary.len() as u16).to_le_bytes());
        bytes.extend(dictionary.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn zip(members: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in members {
            writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn read(bytes: &[u8]) -> Result<Array, DataError> {
        open(Path::new("a.npy"), Source::Bytes(bytes))
    }

    fn message(bytes: &[u8]) -> String {
        read(bytes).err().unwrap().to_string()
    }

    #[test]
    fn elements_of_every_type_are_read() {
        let cases: [(&str, Vec<u8>); 6] = [
            ("'|b1'", vec![0, 1]),
            ("'|u1'", vec![0, 1]),
            ("'<i8'", [0i64, 1].iter().flat_map(|value| value.to_le_bytes()).collect()),
            ("'>i4'", [0i32, 1].iter().flat_map(|value| value.to_be_bytes()).collect()),
            ("'<f2'", vec![0, 0, 0, 0x3c]),
            ("'>f8'", [0f64, 1.0].iter().flat_map(|value| value.to_be_bytes()).collect()),
        ];
        for (descr, data) in cases {
            let array = read(&npy(descr, false, "(2,)", &data)).unwrap();
            assert_eq!(array.numbers(), [0.0, 1.0], "{descr}");
        }
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, npy("'|u1'", false, "(100000, 1)", &[1; 100_000])).unwrap();
        let array = open(Path::new("a.npy"), Source::Folder(folder.path())).unwrap();
        let mut value = [0.0];
        array.read(&[99_999], &Normalization::none(), &mut value).unwrap();
        assert_eq!(value, [1.0]);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        let error = array.read(&[99_999], &Normalization::none(), &mut value).unwrap_err().to_string();
        assert!(error.ends_with("a.npy` was shortened while it was read"), "{error}");
        std::fs::write(&path, "").unwrap();
        let error = open(Path::new("a.npy"), Source::Folder(folder.path())).err().unwrap().to_string();
        assert!(error.contains("is not an npy file"), "{error}");
    }

    #[test]
    fn objects_are_refused() {
        let found = message(&npy("'|O'", false, "(2,)", b"\x80\x04\x95"));
        assert!(found.starts_with("`a.npy` has Python objects"), "{found}");
        let record = message(&npy("[('a', '|O'), ('b', '<i4')]", false, "(2,)", b""));
        assert!(record.contains("has Python objects"), "{record}");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert!(message(b"PK").starts_with("`a.npy` is not an npy file"), "{}", message(b"PK"));
        assert_eq!(
            message(&npy("'<f4'", false, "(3,)", &[0; 8])),
            "`a.npy` is truncated: 8 bytes are too few for an array of shape [3]"
        );
        assert!(message(&npy("'<c8'", false, "(1,)", &[0; 8])).contains("not real numbers"));
        assert!(message(&npy("'<f4'", true, "(1, 2)", &[0; 8])).contains("ascontiguousarray"));
        assert!(message(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{").contains("header is longer"));
        // The time of the parser may double with each of them; those in texts are not told from others.
        for brackets in ["[".repeat(2000), "[')',".repeat(500)] {
            let brackets = message(&npy(&brackets, false, "(3,)", &[0; 12]));
            assert!(brackets.ends_with("has records, not numbers, or its header is damaged"), "{brackets}");
        }
        let records = npy("[('a', '<f4'), ('b', '<f4')]", false, "(3,)", &[0; 24]);
        assert!(message(&records).contains("has records `["), "{}", message(&records));
        let huge = npy("'<f8'", false, "(4294967296, 4294967296, 8)", &[0; 8]);
        assert!(message(&huge).contains("is truncated"), "{}", message(&huge));
        let array = read(&npy("'<f4'", false, "(2, 1)", &[0, 0, 0, 0, 0, 0, 0xc0, 0x7f])).unwrap();
        let mut value = [0.0];
        array.read(&[0], &Normalization::none(), &mut value).unwrap();
        assert_eq!(
            array.read(&[1], &Normalization::none(), &mut value).unwrap_err().to_string(),
            "`a.npy` sample 1 has `NaN` at position 0, which is not a finite 32-bit number"
        );
    }

    #[test]
    fn archives_are_read_stored_and_compressed() {
        let (x, y) = (npy("'|u1'", false, "(2, 2)", &[1, 2, 3, 4]), npy("'<i2'", false, "(2,)", &[5, 0, 6, 0]));
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let bytes = zip(&[("x.npy", &x), ("y.npy", &y)], method);
            let arrays = open_archive(Path::new("a.npz"), &["x", "y"], Source::Bytes(&bytes)).unwrap();
            let [inputs, targets] = &arrays[..] else { panic!("two arrays") };
            assert_eq!((inputs.numbers(), targets.numbers()), (vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0]));
            let error = open_archive(Path::new("a.npz"), &["x", "Y"], Source::Bytes(&bytes)).err().unwrap();
            assert_eq!(error.to_string(), "`a.npz` has no array `Y`; it has `x`, `y`; did you mean `y`?");
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        // 300 MB of zeros become 0.3 MB.
        let array = npy("'|u1'", false, "(300000000,)", &vec![0; 300_000_000]);
        let bytes = zip(&[("x.npy", &array), ("y.npy", &array)], CompressionMethod::Deflated);
        assert!(bytes.len() < 2_000_000);
        let error = open_archive(Path::new("a.npz"), &["x", "y"], Source::Bytes(&bytes)).err().unwrap();
        assert!(error.to_string().contains("to 300000"), "{error}");
        assert!(error.hint().is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_array_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            shape in "\\([0-9]{0,20}, ?[0-9]{0,3}\\)",
            descr in "'[<>|=][biufcSO][0-9]{1,2}'",
            whole: bool,
        ) {
            let bytes = if whole { npy(&descr, false, &shape, &bytes) } else { bytes };
            if let Ok(array) = read(&bytes) {
                prop_assert_eq!(array.numbers().len(), array.shape().iter().product::<usize>());
            }
            let _ = open_archive(Path::new("a.npz"), &["x", "y"], Source::Bytes(&bytes));
        }

        #[test]
        fn a_damaged_archive_is_an_error_or_an_array(position in 0usize..400, byte: u8) {
            let array = npy("'|u1'", false, "(64,)", &[7; 64]);
            let mut bytes = zip(&[("x.npy", &array), ("y.npy", &array)], CompressionMethod::Deflated);
            let position = position % bytes.len();
            bytes[position] = byte;
            let _ = open_archive(Path::new("a.npz"), &["x", "y"], Source::Bytes(&bytes));
        }
    }
}
