//! Minimal readers of the formats. Each returns the tensors by name, and panics at an error.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use zip::ZipArchive;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// `F32` or `I64`.
    pub(super) dtype: String,
    pub(super) shape: Vec<i64>,
    pub(super) bytes: Vec<u8>,
}

pub(super) type Tensors = BTreeMap<String, Found>;

/// The file of a format: `model.pt`.
pub(super) fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("safetensors") => safetensors(&bytes),
        Some("pt") => state_dict(&bytes),
        Some("npz") => npz(&bytes),
        other => panic!("{other:?}"),
    }
}

fn safetensors(bytes: &[u8]) -> Tensors {
    let file = ::safetensors::SafeTensors::deserialize(bytes).unwrap();
    let found = file.iter().map(|(name, view)| {
        let shape: Vec<i64> = view.shape().iter().map(|&length| length as i64).collect();
        let offset = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        let dtype = format!("{:?}", view.dtype());
        assert_eq!(offset % if dtype == "I64" { 8 } else { 4 }, 0, "`{name}` is not aligned");
        (name.to_owned(), Found { dtype, shape, bytes: view.data().to_vec() })
    });
    found.collect()
}

/// The entries of an archive, all of them stored and aligned, in their order.
fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
    (0..archive.len())
        .map(|index| {
            let mut entry = archive.by_index(index).unwrap();
            assert_eq!(entry.compression(), zip::CompressionMethod::Stored);
            assert_eq!(entry.data_start() % 64, 0, "{}", entry.name());
            let mut content = Vec::new();
            // The checksum is checked at the end.
            entry.read_to_end(&mut content).unwrap();
            (entry.name().to_owned(), content)
        })
        .collect()
}

fn npz(bytes: &[u8]) -> Tensors {
    let array = |(name, content): (String, Vec<u8>)| {
        assert_eq!(&content[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([content[8], content[9]]));
        let (header, bytes) = content[10..].split_at(length);
        assert!((10 + length).is_multiple_of(64) && header.ends_with(b"\n"));
        let header = std::str::from_utf8(header).unwrap().trim_end();
        let (descr, shape) = header
            .strip_prefix("{'descr': '")
            .and_then(|rest| rest.strip_suffix("), }")?.split_once("', 'fortran_order': False, 'shape': ("))
            .unwrap_or_else(|| panic!("{header}"));
        let dtype = if descr == "<f4" { "F32" } else { "I64" };
        // One dimension must have its comma to be a tuple.
        let shape = shape.split_terminator(',').map(|length| length.parse().unwrap()).collect();
        let name = name.strip_suffix(".npy").unwrap().to_owned();
        (name, Found { dtype: dtype.to_owned(), shape, bytes: bytes.to_vec() })
    };
    entries(bytes).into_iter().map(array).collect()
}

fn state_dict(bytes: &[u8]) -> Tensors {
    let entries: BTreeMap<String, Vec<u8>> = entries(bytes).into_iter().collect();
    assert_eq!(entries["archive/byteorder"], b"little");
    assert_eq!(entries["archive/version"], b"3\n");
    let Object::Called(class, items) = unpickle(&entries["archive/data.pkl"]) else { panic!("no object") };
    assert_eq!(class, "collections.OrderedDict");
    let tensor = |pair: &[Object]| {
        let [Object::Text(name), Object::Called(function, arguments)] = pair else { panic!("{pair:?}") };
        assert_eq!(function, "torch._utils._rebuild_tensor_v2");
        let [Object::Persistent(storage), Object::Integer(0), size, stride, Object::False, hooks] = &arguments[..]
        else {
            panic!("{arguments:?}")
        };
        assert_eq!(hooks, &Object::Called("collections.OrderedDict".to_owned(), vec![]));
        let [
            Object::Text(kind),
            Object::Global(class),
            Object::Text(key),
            Object::Text(device),
            Object::Integer(count),
        ] = &storage[..]
        else {
            panic!("{storage:?}")
        };
        assert_eq!((kind.as_str(), device.as_str()), ("storage", "cpu"));
        let (dtype, width) = if class == "torch.FloatStorage" { ("F32", 4) } else { ("I64", 8) };
        let (shape, bytes) = (size.integers(), entries[&format!("archive/data/{key}")].clone());
        assert_eq!(bytes.len() as i64, count * width);
        let mut expected = 1;
        for (length, stride) in shape.iter().zip(stride.integers()).rev() {
            assert_eq!(stride, expected);
            expected *= length.max(&1);
        }
        (name.clone(), Found { dtype: dtype.to_owned(), shape, bytes })
    };
    items.chunks(2).map(tensor).collect()
}

/// An object on an unpickler's stack.
#[derive(Clone, Debug, PartialEq)]
enum Object {
    Mark,
    False,
    Integer(i64),
    Text(String),
    Global(String),
    Tuple(Vec<Object>),
    Persistent(Vec<Object>),
    /// The result of a call; for a dictionary, its items, alternating keys and values.
    Called(String, Vec<Object>),
}

impl Object {
    fn integers(&self) -> Vec<i64> {
        let Object::Tuple(objects) = self else { panic!("{self:?}") };
        let integer = |object: &Object| if let Object::Integer(value) = object { *value } else { panic!("{object:?}") };
        objects.iter().map(integer).collect()
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    rest.split_off(..length).unwrap()
}

fn unpickle(pickle: &[u8]) -> Object {
    let (mut rest, mut stack) = (pickle.strip_prefix(&[0x80, 2]).unwrap(), Vec::new());
    let since_mark = |stack: &mut Vec<Object>| {
        let mark = stack.iter().rposition(|object| *object == Object::Mark).unwrap();
        let objects = stack.split_off(mark + 1);
        stack.pop();
        objects
    };
    loop {
        match take(&mut rest, 1)[0] {
            b'.' => {
                assert!(rest.is_empty() && stack.len() == 1);
                return stack.remove(0);
            }
            b'c' => {
                let mut parts = rest.splitn(3, |byte| *byte == b'\n').map(|part| std::str::from_utf8(part).unwrap());
                let (module, name) = (parts.next().unwrap(), parts.next().unwrap());
                take(&mut rest, module.len() + name.len() + 2);
                stack.push(Object::Global(format!("{module}.{name}")));
            }
            b'X' => {
                let length = u32::from_le_bytes(take(&mut rest, 4).try_into().unwrap());
                stack.push(Object::Text(String::from_utf8(take(&mut rest, length as usize).to_vec()).unwrap()));
            }
            b'J' => stack.push(Object::Integer(i32::from_le_bytes(take(&mut rest, 4).try_into().unwrap()).into())),
            0x8a => {
                assert_eq!(take(&mut rest, 1), [8]);
                stack.push(Object::Integer(i64::from_le_bytes(take(&mut rest, 8).try_into().unwrap())));
            }
            0x89 => stack.push(Object::False),
            b'(' => stack.push(Object::Mark),
            b't' => {
                let objects = since_mark(&mut stack);
                stack.push(Object::Tuple(objects));
            }
            b'R' => {
                let (Some(Object::Tuple(arguments)), Some(Object::Global(name))) = (stack.pop(), stack.pop()) else {
                    panic!("{stack:?}")
                };
                stack.push(Object::Called(name, arguments));
            }
            b'Q' => {
                let Some(Object::Tuple(id)) = stack.pop() else { panic!("{stack:?}") };
                stack.push(Object::Persistent(id));
            }
            b'u' => {
                let objects = since_mark(&mut stack);
                let Some(Object::Called(_, items)) = stack.last_mut() else { panic!("{stack:?}") };
                items.extend(objects);
            }
            other => panic!("the opcode {other:#x}"),
        }
    }
}
