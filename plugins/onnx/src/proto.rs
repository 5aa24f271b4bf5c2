//! The messages of ONNX that are written here. Names and numbers of fields are those of `onnx.proto3` (ONNX 1.13 and
//! later).

use prost::Message;

/// Element types of tensors (`TensorProto.DataType`).
pub mod element {
    pub const FLOAT: i32 = 1;
    pub const INT8: i32 = 3;
    pub const INT64: i32 = 7;
    pub const BOOL: i32 = 9;
    pub const FLOAT16: i32 = 10;
}

/// Types of attributes (`AttributeProto.AttributeType`).
mod attribute {
    pub const FLOAT: i32 = 1;
    pub const INT: i32 = 2;
    pub const STRING: i32 = 3;
    pub const INTS: i32 = 7;
}

#[derive(Clone, PartialEq, Message)]
pub struct OperatorSetId {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct StringEntry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, tag = "2")]
    pub f: f32,
    #[prost(int64, tag = "3")]
    pub i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub r#type: i32,
}

/// A tensor without its elements, which follow as field 9, or are in another file.
#[derive(Clone, PartialEq, Message)]
pub struct TensorHead {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringEntry>,
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// Field of the elements (`TensorProto.raw_data`).
pub const RAW_DATA: u32 = 9;

/// `TensorProto.DataLocation.EXTERNAL`.
pub const EXTERNAL: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub value: Option<DimensionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum DimensionValue {
    #[prost(int64, tag = "1")]
    Value(i64),
    #[prost(string, tag = "2")]
    Parameter(String),
}

/// A graph without its initializers, which are field 5.
#[derive(Clone, PartialEq, Message)]
pub struct GraphHead {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

/// Field of the initializers (`GraphProto.initializer`).
pub const INITIALIZER: u32 = 5;

/// A model without its graph, which is field 7.
#[derive(Clone, PartialEq, Message)]
pub struct ModelHead {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetId>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringEntry>,
}

/// Field of the graph (`ModelProto.graph`).
pub const GRAPH: u32 = 7;

impl Attribute {
    /// An integer.
    pub fn int(name: &str, value: i64) -> Self {
        Self { name: name.to_owned(), i: value, r#type: attribute::INT, ..Self::default() }
    }

    /// A number.
    pub fn float(name: &str, value: f64) -> Self {
        Self { name: name.to_owned(), f: value as f32, r#type: attribute::FLOAT, ..Self::default() }
    }

    /// Integers.
    pub fn ints(name: &str, values: impl IntoIterator<Item = i64>) -> Self {
        let ints = values.into_iter().collect();
        Self { name: name.to_owned(), ints, r#type: attribute::INTS, ..Self::default() }
    }

    /// A text.
    pub fn text(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), s: value.as_bytes().to_vec(), r#type: attribute::STRING, ..Self::default() }
    }
}

impl ValueInfo {
    /// A value whose first dimension is the batch's, of any length.
    pub fn batched(name: &str, elem_type: i32, sample_shape: &[i64]) -> Self {
        let batch = DimensionValue::Parameter("batch".to_owned());
        let values = std::iter::once(batch).chain(sample_shape.iter().map(|length| DimensionValue::Value(*length)));
        let dim = values.map(|value| Dimension { value: Some(value) }).collect();
        let tensor_type = Some(TensorType { elem_type, shape: Some(Shape { dim }) });
        Self { name: name.to_owned(), r#type: Some(Type { tensor_type }) }
    }
}
