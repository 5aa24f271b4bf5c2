//! A published ONNX file as an MLflow model: a folder of the artifacts with the file and with `MLmodel`, which says what the
//! model takes and gives.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use prost::Message;
use serde_json::{Value as Json, json};

use crate::names;

/// Fields of `onnx.proto`: `ModelProto.graph`, `GraphProto.input` and `GraphProto.output`.
const GRAPH: u64 = 7;
const INPUT: u64 = 11;
const OUTPUT: u64 = 12;

/// The largest description of an input or output that is read, in bytes.
const LARGEST: u64 = 1 << 16;

/// A published ONNX file.
pub(crate) struct Model {
    file: PathBuf,
    /// The folder of the artifacts.
    pub(crate) folder: String,
}

impl Model {
    /// That of a file of the artifacts; `None` if it is not ONNX.
    pub(crate) fn of(artifact: &str, file: &Path) -> Option<Self> {
        let folder = names::name(artifact.strip_suffix(".onnx")?);
        Some(Self { file: file.to_owned(), folder })
    }

    /// Whether a file is its own.
    pub(crate) fn is_of(&self, file: &Path) -> bool {
        self.file == file
    }

    /// The file and those that hold its weights, with their names among the artifacts.
    pub(crate) fn files(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let name = self.name();
        let mut files = Vec::new();
        for entry in self.file.parent().unwrap_or(Path::new(".")).read_dir()? {
            let path = entry?.path();
            let other = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if other.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
                files.push((format!("{}/{}", self.folder, names::name(&other)), path));
            }
        }
        Ok(files)
    }

    /// The content of `MLmodel`: JSON, which is YAML, too.
    pub(crate) fn description(&self, run_id: &str) -> io::Result<Json> {
        let (inputs, outputs) = signature(&mut BufReader::new(File::open(&self.file)?))?;
        let data = names::name(&self.name());
        Ok(json!({
            "artifact_path": self.folder,
            "flavors": {
                "onnx": { "code": null, "data": data },
                "python_function": { "data": data, "loader_module": "mlflow.onnx" },
            },
            "run_id": run_id,
            // MLflow keeps them as text.
            "signature": { "inputs": inputs.to_string(), "outputs": outputs.to_string(), "params": null },
            "utc_time_created": jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string(),
        }))
    }

    fn name(&self) -> String {
        self.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dimension: Vec<Dimension>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Dimension {
    /// Absent where any length fits, such as that of a batch.
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
}

/// The inputs and outputs of an ONNX file, as MLflow describes tensors. Weights are passed over, not read.
fn signature(file: &mut (impl Read + Seek)) -> io::Result<(Json, Json)> {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    while let Some((field, length)) = field(file)? {
        if field != GRAPH {
            skip(file, length)?;
            continue;
        }
        let end = file.stream_position()? + length;
        while file.stream_position()? < end {
            let Some((field, length)) = self::field(file)? else { break };
            let found = match field {
                INPUT => &mut inputs,
                OUTPUT => &mut outputs,
                _ => {
                    skip(file, length)?;
                    continue;
                }
            };
            let mut bytes = Vec::new();
            file.take(length.min(LARGEST)).read_to_end(&mut bytes)?;
            found.push(tensor(&ValueInfo::decode(bytes.as_slice()).map_err(io::Error::other)?)?);
        }
    }
    Ok((inputs.into(), outputs.into()))
}

/// A tensor as MLflow's `TensorSpec` writes it.
fn tensor(value: &ValueInfo) -> io::Result<Json> {
    let tensor = value.r#type.as_ref().and_then(|of| of.tensor.as_ref());
    let element = tensor.map_or(0, |tensor| tensor.element);
    // `TensorProto.DataType`.
    let dtype = match element {
        1 => "float32",
        2 => "uint8",
        3 => "int8",
        5 => "int16",
        6 => "int32",
        7 => "int64",
        9 => "bool",
        10 => "float16",
        11 => "float64",
        other => {
            return Err(invalid(&format!("`{}` has elements of the type {other}, which is not known", value.name)));
        }
    };
    let dimensions = tensor.and_then(|tensor| tensor.shape.as_ref()).into_iter().flat_map(|shape| &shape.dimension);
    let shape: Vec<i64> = dimensions.map(|dimension| dimension.value.unwrap_or(-1)).collect();
    Ok(json!({ "type": "tensor", "name": value.name, "tensor-spec": { "dtype": dtype, "shape": shape } }))
}

/// The number of the next field of a message and the length of its content, at which the file then is; numbers are passed over.
fn field(file: &mut (impl Read + Seek)) -> io::Result<Option<(u64, u64)>> {
    while let Some(key) = varint(file)? {
        match key & 7 {
            0 => drop(varint(file)?),
            1 => skip(file, 8)?,
            2 => return Ok(Some((key >> 3, varint(file)?.ok_or_else(|| invalid("it ends in a field"))?))),
            5 => skip(file, 4)?,
            _ => return Err(invalid("it is not a message of ONNX")),
        }
    }
    Ok(None)
}

/// A number of variable length; `None` at the end of the file.
fn varint(file: &mut impl Read) -> io::Result<Option<u64>> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        match file.read_exact(&mut byte) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && shift == 0 => return Ok(None),
            read => read?,
        }
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(Some(value));
        }
    }
    Err(invalid("a number in it has more than 64 bits"))
}

fn skip(file: &mut impl Seek, length: u64) -> io::Result<()> {
    file.seek_relative(i64::try_from(length).map_err(|_| invalid("a field is longer than a file can be"))?)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn delimited(field: u64, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(field << 3 | 2, &mut bytes);
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        bytes.extend_from_slice(content);
        bytes
    }

    fn value(name: &str, element: i32, shape: &[Option<i64>]) -> Vec<u8> {
        let dimension = shape.iter().map(|value| Dimension { value: *value }).collect();
        let tensor = Some(Tensor { element, shape: Some(Shape { dimension }) });
        ValueInfo { name: name.to_owned(), r#type: Some(Type { tensor }) }.encode_to_vec()
    }

    /// A model that takes `[batch, 64]` and gives a class.
    pub(crate) fn onnx() -> Vec<u8> {
        let graph = [
            delimited(5, &[9; 5000]),
            delimited(INPUT, &value("inputs", 1, &[None, Some(64)])),
            delimited(OUTPUT, &value("class", 7, &[None])),
        ];
        // The version of the format is a number.
        [vec![0x08, 9], delimited(2, b"host"), delimited(GRAPH, &graph.concat()), delimited(14, b"")].concat()
    }

    #[test]
    fn the_signature_is_that_of_the_file() {
        let (inputs, outputs) = signature(&mut Cursor::new(onnx())).unwrap();
        let tensor = |name: &str, dtype: &str, shape: &[i64]| json!([{ "type": "tensor", "name": name, "tensor-spec": { "dtype": dtype, "shape": shape } }]);
        assert_eq!((inputs, outputs), (tensor("inputs", "float32", &[-1, 64]), tensor("class", "int64", &[-1])));
    }

    #[test]
    fn a_file_has_a_folder_with_the_weights_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["model.onnx", "model.onnx.data", "model.tflite", "other.onnx"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let model = Model::of("exports/model.onnx", &folder.path().join("model.onnx")).unwrap();
        let mut names: Vec<_> = model.files().unwrap().into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["exports/model/model.onnx", "exports/model/model.onnx.data"]);
        assert!(Model::of("exports/model.tflite", Path::new("")).is_none());
    }

    proptest! {
        #[test]
        fn any_file_has_a_signature_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = signature(&mut Cursor::new(bytes));
        }

        #[test]
        fn a_file_that_is_cut_is_no_endless_one(length in 0usize..5200) {
            let bytes = onnx();
            let _ = signature(&mut Cursor::new(&bytes[..length.min(bytes.len())]));
        }
    }
}
