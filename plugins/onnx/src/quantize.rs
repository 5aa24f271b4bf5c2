//! Integers of eight bits between the operators: each weight and each activation passes `QuantizeLinear` and
//! `DequantizeLinear`, which runtimes fuse with the operators around them into integer operators (the "QDQ" form).
//!
//! Weights have a scale for each output channel and the zero point 0; activations have one scale, from the calibration.
//! Biases and the scales of norms stay floats. The output of the model stays unchanged, so that what follows it reads
//! the same numbers as a caller.

use std::collections::{HashMap, HashSet};

use export::{Affine, Range, Ranges, symmetric_code, symmetric_scale};

use crate::lower::{Elements, Initializer, Lowered};
use crate::proto::{Attribute, Node};

/// Quantizes the weights and activations of a model to eight bits.
pub fn quantize(lowered: &mut Lowered<'_>, ranges: &Ranges) {
    let mut front = weights(lowered);
    let activations = activations(lowered, ranges);
    let mut quantizing = Quantizing { nodes: Vec::new(), initializers: Vec::new(), renamed: HashMap::new() };
    quantizing.nodes.append(&mut front);
    if let Some((input, affine)) = lowered.inputs.first().and_then(|input| Some((input, activations.get(&input.name)?)))
    {
        quantizing.pass(&input.name, *affine);
    }
    for mut node in std::mem::take(&mut lowered.builder.nodes) {
        for input in &mut node.input {
            if let Some(renamed) = quantizing.renamed.get(input) {
                input.clone_from(renamed);
            }
        }
        let outputs = node.output.clone();
        quantizing.nodes.push(node);
        for (output, affine) in outputs.iter().filter_map(|output| Some((output, activations.get(output)?))) {
            quantizing.pass(output, *affine);
        }
    }
    lowered.builder.nodes = quantizing.nodes;
    lowered.builder.initializers.append(&mut quantizing.initializers);
}

/// The scales of the quantized values, by name.
fn activations(lowered: &Lowered<'_>, ranges: &Ranges) -> HashMap<String, Affine> {
    let mut readers: HashMap<&str, Vec<&Node>> = HashMap::new();
    for node in &lowered.builder.nodes {
        for input in &node.input {
            readers.entry(input).or_default().push(node);
        }
    }
    // An activation right after an operator becomes part of it, unless something is between them.
    let is_inner =
        |value: &str| matches!(readers.get(value).map(Vec::as_slice), Some([reader]) if reader.op_type == "Relu");
    let measured = lowered.points.iter().filter_map(|point| Some((&point.value, ranges.node(&point.node)?)));
    let mut all: HashMap<String, Affine> = measured
        .filter(|(value, _)| **value != lowered.given && !is_inner(value))
        .map(|(value, range)| (value.clone(), range.affine()))
        .collect();
    if ranges.input != Range::default() {
        all.insert(lowered.taken.clone(), ranges.input.affine());
    }
    all
}

/// Replaces every weight of two dimensions or more by its codes; returns the nodes that dequantize them.
fn weights(lowered: &mut Lowered<'_>) -> Vec<Node> {
    let readers: HashMap<&str, &Node> = lowered
        .builder
        .nodes
        .iter()
        .flat_map(|node| node.input.iter().map(move |input| (input.as_str(), node)))
        .collect();
    let mut axes: HashMap<String, usize> = HashMap::new();
    let mut whole: HashSet<String> = HashSet::new();
    for weight in lowered.builder.initializers.iter().filter(|weight| is_matrix(weight)) {
        let reader = readers.get(weight.name.as_str());
        match reader.map(|reader| reader.op_type.as_str()) {
            Some("ConvTranspose") if reader.is_some_and(|reader| is_grouped(reader)) => {
                whole.insert(weight.name.clone());
            }
            // `[inputs, outputs, …]`, and `[directions, gates, …]`.
            Some("ConvTranspose" | "LSTM" | "GRU" | "MatMul") => {
                axes.insert(weight.name.clone(), 1);
            }
            Some("Gemm") if reader.is_some_and(|reader| !is_transposed(reader)) => {
                axes.insert(weight.name.clone(), 1);
            }
            _ => {
                axes.insert(weight.name.clone(), 0);
            }
        }
    }
    let mut nodes = Vec::new();
    let mut initializers = Vec::new();
    for weight in std::mem::take(&mut lowered.builder.initializers) {
        let axis = axes.get(&weight.name).copied();
        match &weight.elements {
            Elements::F32(values) if axis.is_some() || whole.contains(&weight.name) => {
                let coded = Coded::new(values, &weight.dims, axis);
                nodes.push(coded.node(&weight.name, axis));
                initializers.extend(coded.initializers(&weight.name, weight.dims));
            }
            _ => initializers.push(weight),
        }
    }
    lowered.builder.initializers = initializers;
    nodes
}

/// Whether it is worth quantizing: larger than the vector of a norm or a bias.
fn is_matrix(weight: &Initializer<'_>) -> bool {
    let is_long = weight.dims.iter().filter(|length| **length > 1).count() >= 2;
    weight.is_weight && is_long && matches!(weight.elements, Elements::F32(_))
}

/// Whether a product is with `Wᵀ`, whose first dimension is that of the outputs.
fn is_transposed(node: &Node) -> bool {
    node.attribute.iter().any(|attribute| attribute.name == "transB" && attribute.i == 1)
}

fn is_grouped(node: &Node) -> bool {
    node.attribute.iter().any(|attribute| attribute.name == "group" && attribute.i > 1)
}

/// A quantized weight.
struct Coded {
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl Coded {
    fn new(values: &[f32], dims: &[i64], axis: Option<usize>) -> Self {
        let inner: usize =
            axis.map_or(values.len(), |axis| dims.iter().skip(axis + 1).product::<i64>() as usize).max(1);
        let channels = axis.and_then(|axis| dims.get(axis)).map_or(1, |length| *length as usize).max(1);
        let channel = |place: usize| place / inner % channels;
        let mut largest = vec![0f32; channels];
        for (place, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            largest[channel(place)] = largest[channel(place)].max(value.abs());
        }
        let scales: Vec<f32> = largest.into_iter().map(|largest| symmetric_scale(std::iter::once(largest))).collect();
        let code = |(place, value): (usize, &f32)| symmetric_code(*value, scales[channel(place)]);
        Self { codes: values.iter().enumerate().map(code).collect(), scales }
    }

    fn node(&self, name: &str, axis: Option<usize>) -> Node {
        let axis = axis.map(|axis| Attribute::int("axis", axis as i64));
        Node {
            input: ["int8", "quantized_scale", "quantized_zero_point"].map(|part| format!("{name}/{part}")).to_vec(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: "DequantizeLinear".to_owned(),
            attribute: axis.into_iter().collect(),
        }
    }

    fn initializers<'i>(self, name: &str, dims: Vec<i64>) -> [Initializer<'i>; 3] {
        let channels = if self.scales.len() > 1 { vec![self.scales.len() as i64] } else { Vec::new() };
        let zero_points = Elements::I8(vec![0; self.scales.len()]);
        [
            initializer(format!("{name}/int8"), dims, Elements::I8(self.codes), true),
            initializer(format!("{name}/quantized_scale"), channels.clone(), Elements::F32(self.scales.into()), false),
            initializer(format!("{name}/quantized_zero_point"), channels, zero_points, false),
        ]
    }
}

fn initializer<'i>(name: String, dims: Vec<i64>, elements: Elements<'i>, is_weight: bool) -> Initializer<'i> {
    Initializer { name, dims, elements, is_weight }
}

struct Quantizing<'i> {
    nodes: Vec<Node>,
    initializers: Vec<Initializer<'i>>,
    /// The value that readers use in place of another one.
    renamed: HashMap<String, String>,
}

impl Quantizing<'_> {
    /// Quantizes and dequantizes a value.
    fn pass(&mut self, value: &str, affine: Affine) {
        let part = |part: &str| format!("{value}/{part}");
        let (scale, zero_point) = (part("quantized_scale"), part("quantized_zero_point"));
        let (codes, numbers) = (part("quantized"), part("dequantized"));
        let zero = i8::try_from(affine.zero_point).unwrap_or_default();
        self.initializers.extend([
            initializer(scale.clone(), Vec::new(), Elements::F32(vec![affine.scale].into()), false),
            initializer(zero_point.clone(), Vec::new(), Elements::I8(vec![zero]), false),
        ]);
        for (operator, from, to) in [("QuantizeLinear", value, &codes), ("DequantizeLinear", codes.as_str(), &numbers)]
        {
            self.nodes.push(Node {
                input: vec![from.to_owned(), scale.clone(), zero_point.clone()],
                output: vec![to.clone()],
                name: to.clone(),
                op_type: operator.to_owned(),
                attribute: Vec::new(),
            });
        }
        self.renamed.insert(value.to_owned(), numbers);
    }
}
