//! The file: a flatbuffer of small tables, and after it the constants, which are streamed.
//!
//! Tables are numbered as in the format's schema. A constant is an ordinary vector of its buffer's table, whose offset
//! is set once the length of the tables is known. If the file is too long for such offsets, the table contains the
//! constant's position in the file.

use std::borrow::Cow;
use std::io::{self, Write};

use export::{Precision, Weights};
use flatbuffers::{FlatBufferBuilder, TableFinishedWIPOffset, UnionWIPOffset, VOffsetT, WIPOffset};
use half::f16;
use plugin_api::{Error, Result};

use crate::builtin::{Scalar, first_runtime, version};
use crate::program::{Content, Element, Operator, Program, Tensor};

/// Readers map constants and expect them aligned.
const ALIGNMENT: u64 = 16;

/// Offsets of the encoding have 32 bits, and its checkers reject more than half of that.
const LARGEST_WITHIN: u64 = (1 << 31) - (1 << 20);

/// The number of elements that are encoded at a time.
const CHUNK: usize = 16 * 1024;

type Table = WIPOffset<TableFinishedWIPOffset>;

/// The description of the model, in addition to its program.
pub(crate) struct Description<'a> {
    pub(crate) text: &'a str,
    /// Names for callers: of the inputs, in order, and of the output.
    pub(crate) inputs: Vec<&'a str>,
    pub(crate) output: &'a str,
    /// Metadata of the run: name and bytes.
    pub(crate) metadata: Vec<(&'a str, Vec<u8>)>,
}

/// The slot of the field at `index`, counted from 0 in the schema.
fn slot(index: u16) -> VOffsetT {
    4 + 2 * index
}

/// The content of a buffer.
enum Buffer<'p> {
    Constant(&'p Tensor, &'p Content),
    Bytes(&'p [u8]),
}

impl Buffer<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Buffer::Constant(tensor, _) => tensor.elements() * tensor.element.bytes(),
            Buffer::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// Writes the program.
///
/// # Errors
///
/// A weight that is missing or does not have the size of the graph; the disk.
pub(crate) fn write(
    program: &Program,
    description: &Description<'_>,
    weights: &Weights<'_>,
    writer: &mut impl Write,
) -> Result<()> {
    write_within(program, description, weights, writer, LARGEST_WITHIN)
}

fn write_within(
    program: &Program,
    description: &Description<'_>,
    weights: &Weights<'_>,
    writer: &mut impl Write,
    largest_within: u64,
) -> Result<()> {
    // The first buffer is for tensors without constants, and stays empty.
    let mut buffers: Vec<Buffer<'_>> = Vec::new();
    let mut buffer_of = Vec::with_capacity(program.tensors.len());
    for tensor in &program.tensors {
        buffer_of.push(tensor.content.as_ref().map_or(0, |content| {
            buffers.push(Buffer::Constant(tensor, content));
            buffers.len() as u32
        }));
    }
    buffers.extend(description.metadata.iter().map(|(_, bytes)| Buffer::Bytes(bytes)));
    let total: u64 = buffers.iter().map(|buffer| buffer.bytes() + 2 * ALIGNMENT).sum();
    let is_within = total < largest_within;
    let mut head = head(program, description, &buffer_of, &buffers, is_within);
    let mut end = head.len() as u64;
    let tables = buffer_tables(&head).ok_or_else(|| Error::new("the tables of the model cannot be read back"))?;
    let mut starts = Vec::with_capacity(buffers.len());
    for (buffer, table) in buffers.iter().zip(tables.into_iter().skip(1)) {
        let start = (end + 4).next_multiple_of(ALIGNMENT);
        let filled = if is_within {
            field(&head, table, 0)
                .map(|place| put(&mut head, place, &((start - 4 - place as u64) as u32).to_le_bytes()))
        } else {
            field(&head, table, 1).map(|place| put(&mut head, place, &start.to_le_bytes()))
        };
        filled.ok_or_else(|| Error::new("the tables of the model cannot be read back"))?;
        starts.push(start);
        end = start + buffer.bytes();
    }
    writer.write_all(&head)?;
    let mut position = head.len() as u64;
    for (buffer, start) in buffers.iter().zip(starts) {
        let gap = vec![0; (start - 4 - position) as usize];
        writer.write_all(&gap)?;
        writer.write_all(&(if is_within { buffer.bytes() as u32 } else { 0 }).to_le_bytes())?;
        write_buffer(buffer, weights, writer)?;
        position = start + buffer.bytes();
    }
    // The last vector ends on a boundary of four bytes.
    writer.write_all(&vec![0; (position.next_multiple_of(4) - position) as usize])?;
    Ok(())
}

fn write_buffer(buffer: &Buffer<'_>, weights: &Weights<'_>, writer: &mut impl Write) -> Result<()> {
    let (tensor, content) = match buffer {
        Buffer::Bytes(bytes) => return Ok(writer.write_all(bytes)?),
        Buffer::Constant(tensor, content) => (tensor, content),
    };
    let numbers = match content {
        Content::I8(values) => return Ok(encoded(values, |value| value.to_le_bytes(), writer)?),
        Content::I32(values) => return Ok(encoded(values, |value| value.to_le_bytes(), writer)?),
        Content::F32(values) => Cow::Borrowed(values.as_slice()),
        Content::Weight(recipe) => recipe(weights)?,
    };
    if numbers.len() as u64 != tensor.elements() {
        let (found, expected) = (numbers.len(), &tensor.shape);
        return Err(Error::new(format!("the weights of `{}` have {found} numbers, not {expected:?}", tensor.name)));
    }
    if let Content::Weight(_) = content {
        let precision = if tensor.element == Element::F16 { Precision::Half } else { Precision::Full };
        weights.check(tensor.weight_name(), &numbers, precision)?;
    }
    match tensor.element {
        Element::F16 => encoded(&numbers, |value| f16::from_f32(value).to_le_bytes(), writer)?,
        _ => export::write_numbers(&numbers, writer)?,
    }
    Ok(())
}

fn encoded<T: Copy, const N: usize>(
    values: &[T],
    encode: impl Fn(T) -> [u8; N],
    writer: &mut impl Write,
) -> io::Result<()> {
    let mut bytes = vec![[0; N]; CHUNK.min(values.len())];
    for values in values.chunks(CHUNK) {
        for (bytes, value) in bytes.iter_mut().zip(values) {
            *bytes = encode(*value);
        }
        writer.write_all(bytes[..values.len()].as_flattened())?;
    }
    Ok(())
}

fn head(
    program: &Program,
    description: &Description<'_>,
    buffer_of: &[u32],
    buffers: &[Buffer<'_>],
    is_within: bool,
) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::with_capacity(64 * 1024);
    let mut codes: Vec<(crate::builtin::Builtin, i32)> = Vec::new();
    let mut operators = Vec::with_capacity(program.operators.len());
    for operator in program.all() {
        let key = (operator.builtin, version(operator, &program.tensors));
        let code = codes.iter().position(|code| *code == key).unwrap_or_else(|| {
            codes.push(key);
            codes.len() - 1
        });
        operators.push(operator_table(&mut builder, operator, code as u32));
    }
    let tensors: Vec<Table> = program
        .tensors
        .iter()
        .zip(buffer_of)
        .map(|(tensor, buffer)| tensor_table(&mut builder, tensor, *buffer))
        .collect();
    let subgraph = {
        let tensors = builder.create_vector(&tensors);
        let inputs: Vec<i32> = program.inputs.iter().map(|input| *input as i32).collect();
        let inputs = builder.create_vector(&inputs);
        let outputs = builder.create_vector(&[program.output as i32]);
        let operators = builder.create_vector(&operators);
        let name = builder.create_string("main");
        let table = builder.start_table();
        builder.push_slot_always(slot(0), tensors);
        builder.push_slot_always(slot(1), inputs);
        builder.push_slot_always(slot(2), outputs);
        builder.push_slot_always(slot(3), operators);
        builder.push_slot_always(slot(4), name);
        builder.end_table(table)
    };
    let subgraphs = builder.create_vector(&[subgraph]);
    let first = codes.iter().map(|(builtin, version)| first_runtime(*builtin, *version)).max().unwrap_or([1, 5, 0]);
    let codes: Vec<Table> = codes
        .into_iter()
        .map(|(builtin, version)| {
            let table = builder.start_table();
            builder.push_slot_always(slot(0), i8::try_from(builtin.code()).unwrap_or(i8::MAX));
            builder.push_slot_always(slot(2), version);
            builder.push_slot_always(slot(3), builtin.code());
            builder.end_table(table)
        })
        .collect();
    let codes = builder.create_vector(&codes);
    let signature = signature(&mut builder, program, description);
    let signatures = builder.create_vector(&[signature]);
    // The runtime's own key: the version as text, padded to 16 bytes.
    let [major, minor, patch] = first;
    let mut runtime = format!("{major}.{minor}.{patch}").into_bytes();
    runtime.resize(16, 0);
    let runtime = builder.create_vector(&runtime);
    let mut tables = Vec::with_capacity(buffers.len() + 2);
    for index in 0..=buffers.len() {
        let table = builder.start_table();
        if let Some(buffer) = index.checked_sub(1).and_then(|index| buffers.get(index)) {
            if is_within {
                // Placeholder for an offset, which is set later.
                builder.push_slot_always(slot(0), u32::MAX);
            } else {
                builder.push_slot_always(slot(1), u64::MAX);
                builder.push_slot_always(slot(2), buffer.bytes());
            }
        }
        tables.push(builder.end_table(table));
    }
    let table = builder.start_table();
    builder.push_slot_always(slot(0), runtime);
    tables.push(builder.end_table(table));
    let runtime_buffer = tables.len() as u32 - 1;
    let first_metadata = 1 + buffers.len() - description.metadata.len();
    let named =
        description.metadata.iter().enumerate().map(|(place, (name, _))| (*name, (first_metadata + place) as u32));
    let metadata: Vec<Table> = std::iter::once(("min_runtime_version", runtime_buffer))
        .chain(named)
        .map(|(name, buffer)| {
            let name = builder.create_string(name);
            let table = builder.start_table();
            builder.push_slot_always(slot(0), name);
            builder.push_slot_always(slot(1), buffer);
            builder.end_table(table)
        })
        .collect();
    let metadata = builder.create_vector(&metadata);
    let tables = builder.create_vector(&tables);
    let text = builder.create_string(description.text);
    let model = builder.start_table();
    builder.push_slot_always(slot(0), 3u32);
    builder.push_slot_always(slot(1), codes);
    builder.push_slot_always(slot(2), subgraphs);
    builder.push_slot_always(slot(3), text);
    builder.push_slot_always(slot(4), tables);
    builder.push_slot_always(slot(6), metadata);
    builder.push_slot_always(slot(7), signatures);
    let model = builder.end_table(model);
    builder.finish(model, Some("TFL3"));
    builder.finished_data().to_vec()
}

fn operator_table(builder: &mut FlatBufferBuilder<'_>, operator: &Operator, code: u32) -> Table {
    let inputs: Vec<i32> = operator.inputs.iter().map(|input| input.map_or(-1, |input| input as i32)).collect();
    let inputs = builder.create_vector(&inputs);
    let outputs: Vec<i32> = operator.outputs.iter().map(|output| *output as i32).collect();
    let outputs = builder.create_vector(&outputs);
    let union = operator.builtin.options_table();
    let options = (union != 0).then(|| {
        let table = builder.start_table();
        for (index, value) in &operator.options {
            match *value {
                Scalar::I8(value) => builder.push_slot_always(slot(*index), value),
                Scalar::I32(value) => builder.push_slot_always(slot(*index), value),
                Scalar::F32(value) => builder.push_slot_always(slot(*index), value),
                Scalar::Bool(value) => builder.push_slot_always(slot(*index), value),
            }
        }
        if let Some(index) = operator.builtin.activation_slot() {
            builder.push_slot_always(slot(index), operator.activation.code());
        }
        builder.end_table(table)
    });
    let table = builder.start_table();
    builder.push_slot_always(slot(0), code);
    builder.push_slot_always(slot(1), inputs);
    builder.push_slot_always(slot(2), outputs);
    if let Some(options) = options {
        builder.push_slot_always(slot(3), union);
        builder.push_slot_always(slot(4), WIPOffset::<UnionWIPOffset>::new(options.value()));
    }
    builder.end_table(table)
}

fn tensor_table(builder: &mut FlatBufferBuilder<'_>, tensor: &Tensor, buffer: u32) -> Table {
    let name = builder.create_string(&tensor.name);
    let shape = builder.create_vector(&tensor.shape);
    let signature = tensor.is_batched.then(|| {
        let signature: Vec<i32> = std::iter::once(-1).chain(tensor.shape.iter().skip(1).copied()).collect();
        builder.create_vector(&signature)
    });
    let quantization = tensor.quantization.as_ref().map(|quantization| {
        let scales = builder.create_vector(&quantization.scales);
        let zero_points = vec![i64::from(quantization.zero_point); quantization.scales.len()];
        let zero_points = builder.create_vector(&zero_points);
        let table = builder.start_table();
        builder.push_slot_always(slot(2), scales);
        builder.push_slot_always(slot(3), zero_points);
        builder.push_slot_always(slot(6), quantization.axis as i32);
        builder.end_table(table)
    });
    let table = builder.start_table();
    builder.push_slot_always(slot(0), shape);
    builder.push_slot_always(slot(1), tensor.element.code());
    builder.push_slot_always(slot(2), buffer);
    builder.push_slot_always(slot(3), name);
    if let Some(quantization) = quantization {
        builder.push_slot_always(slot(4), quantization);
    }
    if let Some(signature) = signature {
        builder.push_slot_always(slot(7), signature);
    }
    builder.push_slot_always(slot(8), true);
    builder.end_table(table)
}

fn signature(builder: &mut FlatBufferBuilder<'_>, program: &Program, description: &Description<'_>) -> Table {
    let mut map = |name: &str, tensor: usize| {
        let name = builder.create_string(name);
        let table = builder.start_table();
        builder.push_slot_always(slot(0), name);
        builder.push_slot_always(slot(1), tensor as u32);
        builder.end_table(table)
    };
    let inputs: Vec<Table> =
        description.inputs.iter().zip(&program.inputs).map(|(name, input)| map(name, *input)).collect();
    let output = map(description.output, program.output);
    let inputs = builder.create_vector(&inputs);
    let outputs = builder.create_vector(&[output]);
    let key = builder.create_string("serving_default");
    let table = builder.start_table();
    builder.push_slot_always(slot(0), inputs);
    builder.push_slot_always(slot(1), outputs);
    builder.push_slot_always(slot(2), key);
    builder.push_slot_always(slot(4), 0u32);
    builder.end_table(table)
}

/// The positions of the buffers' tables in the head.
fn buffer_tables(head: &[u8]) -> Option<Vec<usize>> {
    let model = word(head, 0)?;
    let vector = follow(head, field(head, model, 4)?)?;
    (0..word(head, vector)?).map(|index| follow(head, vector + 4 + 4 * index)).collect()
}

/// The position of the field at `index` of the table at `table`.
fn field(head: &[u8], table: usize, index: u16) -> Option<usize> {
    let back = i32::from_le_bytes(head.get(table..table + 4)?.try_into().ok()?);
    let entry = usize::try_from(table as i64 - i64::from(back)).ok()? + usize::from(slot(index));
    let offset = u16::from_le_bytes(head.get(entry..entry + 2)?.try_into().ok()?);
    (offset != 0).then(|| table + usize::from(offset))
}

fn follow(head: &[u8], place: usize) -> Option<usize> {
    Some(place + word(head, place)?)
}

fn word(head: &[u8], place: usize) -> Option<usize> {
    let bytes = head.get(place..place + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

fn put(head: &mut [u8], place: usize, bytes: &[u8]) {
    if let Some(field) = head.get_mut(place..place + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}
