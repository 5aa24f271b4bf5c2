//! What callbacks record besides metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

/// Something for the monitors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name, `a/b/c` if it belongs to a group.
    pub name: String,
    /// What it is.
    pub value: RecordValue,
}

/// The content of a [`Record`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecordValue {
    /// A number.
    Scalar {
        /// The number.
        value: f64,
    },
    /// The distribution of values.
    Histogram {
        /// `counts.len() + 1` borders, ascending.
        edges: Vec<f64>,
        /// How many values between two borders.
        counts: Vec<f64>,
    },
    /// A picture.
    Image {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// 1 gray, 3 RGB, 4 RGBA.
        channels: u32,
        /// Rows from the top, `width × height × channels` bytes.
        pixels: Blob,
    },
    /// Text; Markdown if the monitor supports it.
    Text {
        /// The text.
        text: String,
    },
    /// Rows of cells.
    Table {
        /// The columns' names.
        columns: Vec<String>,
        /// The cells, row by row.
        rows: Vec<Vec<String>>,
    },
    /// A line.
    Curve {
        /// The horizontal axis' name.
        x_label: String,
        /// The vertical axis' name.
        y_label: String,
        /// Horizontal positions.
        x: Vec<f64>,
        /// Vertical positions.
        y: Vec<f64>,
    },
    /// A model graph, as the service `graph` writes it.
    Graph {
        /// JSON.
        json: String,
    },
    /// Hyper-parameters that are not in the run file, such as those that a search chose.
    HyperParameters {
        /// By their names.
        values: BTreeMap<String, HyperParameter>,
    },
}

/// The value of a hyper-parameter in a [`Record`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HyperParameter {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(f64),
    /// A name.
    Text(String),
}

impl RecordValue {
    /// The name of the variant in its written form.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Scalar { .. } => "scalar",
            Self::Histogram { .. } => "histogram",
            Self::Image { .. } => "image",
            Self::Text { .. } => "text",
            Self::Table { .. } => "table",
            Self::Curve { .. } => "curve",
            Self::Graph { .. } => "graph",
            Self::HyperParameters { .. } => "hyper_parameters",
        }
    }
}

/// Bytes, written as MessagePack's `bin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Blob;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Blob, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = sequence.next_element()? {
                    bytes.push(byte);
                }
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}
