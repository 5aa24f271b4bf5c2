//! A model as bytes: prost encodes the small parts, weights are written without a copy.

use std::io::{self, Write};

use half::f16;
use prost::Message;

use crate::lower::{Elements, Initializer};
use crate::proto::{EXTERNAL, GRAPH, GraphHead, INITIALIZER, ModelHead, RAW_DATA, StringEntry, TensorHead, element};

/// Offsets in a file of weights are multiples of this, as the format requires, so that they can be mapped.
const ALIGNMENT: u64 = 4096;

/// The number of elements that are converted and written at a time.
const PART: usize = 16 * 1024;

/// A model's parts, before its weights are written.
pub struct ModelFile<'a> {
    pub head: ModelHead,
    pub graph: GraphHead,
    pub initializers: &'a [Initializer<'a>],
    /// Whether weights are stored as 16-bit floats.
    pub half: bool,
}

/// A field's key and length, for a field of bytes (`LEN`).
fn key(field: u32, length: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12);
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(length, &mut bytes);
    bytes
}

impl ModelFile<'_> {
    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> u64 {
        self.initializers.iter().filter(|initializer| initializer.is_weight).map(|weight| self.bytes(weight)).sum()
    }

    /// Writes weights to `weights`, each at a multiple of 4096, and returns the place of each, by its index.
    ///
    /// # Errors
    ///
    /// Errors of writing.
    pub fn write_weights(&self, weights: &mut impl Write) -> io::Result<Vec<(usize, u64)>> {
        let mut places = Vec::new();
        let mut end = 0u64;
        for (index, initializer) in self.initializers.iter().enumerate().filter(|(_, one)| one.is_weight) {
            let start = end.next_multiple_of(ALIGNMENT);
            io::copy(&mut io::Read::take(io::repeat(0), start - end), weights)?;
            self.write_elements(initializer, weights)?;
            places.push((index, start));
            end = start + self.bytes(initializer);
        }
        Ok(places)
    }

    /// Writes the model, with the weights whose `places` in the file `data` are not given.
    ///
    /// # Errors
    ///
    /// Errors of writing.
    pub fn write(&self, data: &str, places: &[(usize, u64)], model: &mut impl Write) -> io::Result<()> {
        let heads: Vec<(Vec<u8>, bool)> = self
            .initializers
            .iter()
            .enumerate()
            .map(|(index, initializer)| {
                let place = places.iter().find(|(external, _)| *external == index).map(|(_, place)| *place);
                (self.tensor_head(initializer, data, place), place.is_some())
            })
            .collect();
        let tensor_length = |initializer: &Initializer<'_>, (head, external): &(Vec<u8>, bool)| -> u64 {
            let elements = self.bytes(initializer);
            head.len() as u64 + if *external { 0 } else { key(RAW_DATA, elements).len() as u64 + elements }
        };
        let graph = self.graph.encode_to_vec();
        let lengths: Vec<u64> =
            self.initializers.iter().zip(&heads).map(|(initializer, head)| tensor_length(initializer, head)).collect();
        let tensors: u64 = lengths.iter().map(|length| key(INITIALIZER, *length).len() as u64 + length).sum();

        model.write_all(&self.head.encode_to_vec())?;
        model.write_all(&key(GRAPH, graph.len() as u64 + tensors))?;
        model.write_all(&graph)?;
        for ((initializer, (head, external)), length) in self.initializers.iter().zip(&heads).zip(lengths) {
            model.write_all(&key(INITIALIZER, length))?;
            model.write_all(head)?;
            if !external {
                model.write_all(&key(RAW_DATA, self.bytes(initializer)))?;
                self.write_elements(initializer, model)?;
            }
        }
        Ok(())
    }

    fn tensor_head(&self, initializer: &Initializer<'_>, data: &str, place: Option<u64>) -> Vec<u8> {
        let entry = |key: &str, value: String| StringEntry { key: key.to_owned(), value };
        let external_data = place.map_or_else(Vec::new, |place| {
            vec![
                entry("location", data.to_owned()),
                entry("offset", place.to_string()),
                entry("length", self.bytes(initializer).to_string()),
            ]
        });
        let data_type = match &initializer.elements {
            Elements::F32(_) if self.is_half(initializer) => element::FLOAT16,
            Elements::F32(_) => element::FLOAT,
            Elements::I8(_) => element::INT8,
            Elements::I64(_) => element::INT64,
        };
        let data_location = if external_data.is_empty() { 0 } else { EXTERNAL };
        let name = if self.is_half(initializer) { half_name(&initializer.name) } else { initializer.name.clone() };
        TensorHead { dims: initializer.dims.clone(), data_type, name, external_data, data_location }.encode_to_vec()
    }

    fn is_half(&self, initializer: &Initializer<'_>) -> bool {
        self.half && initializer.is_weight && matches!(initializer.elements, Elements::F32(_))
    }

    fn bytes(&self, initializer: &Initializer<'_>) -> u64 {
        let (count, size) = match &initializer.elements {
            Elements::F32(values) => (values.len(), if self.is_half(initializer) { 2 } else { 4 }),
            Elements::I8(values) => (values.len(), 1),
            Elements::I64(values) => (values.len(), 8),
        };
        count as u64 * size
    }

    fn write_elements(&self, initializer: &Initializer<'_>, to: &mut impl Write) -> io::Result<()> {
        match &initializer.elements {
            Elements::F32(values) if self.is_half(initializer) => {
                parts(values, |value| f16::from_f32(*value).to_le_bytes(), to)
            }
            Elements::F32(values) => export::write_numbers(values, to),
            Elements::I8(values) => parts(values, |value| value.to_le_bytes(), to),
            Elements::I64(values) => parts(values, |value| value.to_le_bytes(), to),
        }
    }
}

/// The name of a weight that is stored as 16-bit floats; its own name is the converted value.
pub fn half_name(name: &str) -> String {
    format!("{name}/half")
}

/// Writes values as little-endian bytes, without a second copy of all of them in memory.
fn parts<T, const N: usize>(values: &[T], bytes: impl Fn(&T) -> [u8; N], to: &mut impl Write) -> io::Result<()> {
    let mut part = Vec::with_capacity(PART.min(values.len()) * N);
    for values in values.chunks(PART) {
        part.clear();
        part.extend(values.iter().flat_map(&bytes));
        to.write_all(&part)?;
    }
    Ok(())
}
