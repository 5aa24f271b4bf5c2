//! A program of integers: activations of eight bits with one scale each, weights of eight bits with a scale for each
//! output channel, biases of 32 bits (TensorFlow's "TFLite 8-bit quantization specification").
//!
//! Scales of activations come from the values of the model's nodes in a calibration. Operators that only move values
//! keep the scale; some have a scale of the specification. The values inside a node's decomposition cannot be
//! calibrated, so such a node is rejected before training starts.

use std::borrow::Cow;
use std::collections::HashMap;

use export::{Affine, Precision, Range, Ranges, Weights, symmetric_code, symmetric_scale};
use plugin_api::{Error, Result};

use crate::builtin::{Activation, Builtin};
use crate::program::{Content, Element, Operator, Program, Quantization, Tensor, TensorId};

/// The source of the scale of an operator's output.
enum Scale {
    /// The specification.
    Fixed(Affine),
    /// The input of this index.
    Kept(usize),
    /// A calibration.
    Measured,
}

impl Builtin {
    /// `None`: the runtime has no such operator for eight bits.
    fn scale(self) -> Option<Scale> {
        Some(match self {
            Builtin::Logistic | Builtin::Softmax => Scale::Fixed(Affine { scale: 1.0 / 256.0, zero_point: -128 }),
            Builtin::Tanh => Scale::Fixed(Affine { scale: 1.0 / 128.0, zero_point: 0 }),
            Builtin::AveragePool2d
            | Builtin::DepthToSpace
            | Builtin::Gather
            | Builtin::MaxPool2d
            | Builtin::Pad
            | Builtin::PadV2
            | Builtin::Reshape
            | Builtin::ResizeBilinear
            | Builtin::ResizeNearestNeighbor
            | Builtin::Slice
            | Builtin::StridedSlice
            | Builtin::Transpose => Scale::Kept(0),
            Builtin::Add
            | Builtin::Concatenation
            | Builtin::Conv2d
            | Builtin::DepthwiseConv2d
            | Builtin::Elu
            | Builtin::FullyConnected
            | Builtin::Gelu
            | Builtin::HardSwish
            | Builtin::LeakyRelu
            | Builtin::Mul
            | Builtin::Relu
            | Builtin::Relu6 => Scale::Measured,
            _ => return None,
        })
    }
}

/// Whether every value of a program has a scale once the model's nodes are calibrated.
///
/// # Errors
///
/// The first node that cannot be quantized.
pub(crate) fn check(program: &Program) -> Result<()> {
    let any = Affine { scale: 1.0, zero_point: 0 };
    scales(program, any, |_| Some(any), |_| Ok(any)).map(drop)
}

/// The nodes of the graph whose values need a calibration.
pub(crate) fn nodes(program: &Program) -> Vec<&str> {
    let mut nodes: Vec<&str> =
        program.tensors.iter().filter_map(|tensor| Some(tensor.origin.as_ref()?.node.as_str())).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// The program with integers in place of floats. If `is_integer_outside`, inputs and outputs are integers too.
///
/// # Errors
///
/// A node without a range, or a missing weight.
pub(crate) fn quantize(
    program: &Program,
    ranges: &Ranges,
    weights: &Weights<'_>,
    is_integer_outside: bool,
) -> Result<Program> {
    let program = &unshared(program);
    let scales = scales(
        program,
        ranges.input.affine(),
        |node| ranges.node(node).map(Range::affine),
        |constant| Ok(Range::of(&numbers(constant, weights)?).affine()),
    )?;
    let mut made = Quantizing { program: program.clone(), scales, weights, requantized: HashMap::new() };
    made.run(is_integer_outside)?;
    Ok(made.program)
}

/// The program with a copy of each weight for each operator that reads it: their scales differ.
fn unshared(program: &Program) -> Program {
    let mut program = program.clone();
    let mut is_read = vec![false; program.tensors.len()];
    for operator in &mut program.operators {
        for input in operator.inputs.iter_mut().flatten() {
            let Some(is_read) = is_read.get_mut(*input) else { continue };
            if *is_read && matches!(program.tensors[*input].content, Some(Content::Weight(_))) {
                program.tensors.push(program.tensors[*input].clone());
                *input = program.tensors.len() - 1;
            }
            *is_read = true;
        }
    }
    program
}

/// The scale of every float tensor that is an activation, or a constant operand next to one.
fn scales(
    program: &Program,
    input: Affine,
    measured: impl Fn(&str) -> Option<Affine>,
    constant: impl Fn(&Tensor) -> Result<Affine>,
) -> Result<Vec<Option<Affine>>> {
    let mut scales: Vec<Option<Affine>> = vec![None; program.tensors.len()];
    let is_number = |tensor: TensorId| program.tensors[tensor].element == Element::F32;
    if is_number(program.taken) {
        scales[program.taken] = Some(input);
    }
    let of_origin = |tensor: TensorId| measured(&program.tensors[tensor].origin.as_ref()?.node);
    for operator in &program.operators {
        let Some(rule) = operator.builtin.scale() else {
            let name = operator.builtin.name();
            return Err(refused(operator, &format!("needs the operator `{name}` for floats")));
        };
        for place in plain_constants(operator) {
            let Some(tensor) = operator.inputs.get(place).copied().flatten() else { continue };
            if program.tensors[tensor].content.is_some() && is_number(tensor) {
                scales[tensor] = Some(constant(&program.tensors[tensor])?);
            }
        }
        for output in operator.outputs.iter().copied().filter(|output| is_number(*output)) {
            scales[output] = match rule {
                Scale::Fixed(affine) => Some(affine),
                Scale::Kept(place) => operator.inputs[place].and_then(|input| scales[input]).or(of_origin(output)),
                // What is limited to 0 and 6 is no node's value.
                Scale::Measured if operator.activation == Activation::Relu6 => {
                    Some(Affine { scale: 6.0 / 255.0, zero_point: -128 })
                }
                Scale::Measured => of_origin(output),
            };
        }
    }
    // An operator before one that keeps the scale may have no scale of its own.
    for operator in program.operators.iter().rev() {
        if let (Some(Scale::Kept(place)), [output]) = (operator.builtin.scale(), operator.outputs.as_slice())
            && let Some(input) = operator.inputs.get(place).copied().flatten()
            && scales[input].is_none()
        {
            scales[input] = scales[*output];
        }
    }
    for operator in &program.operators {
        let all = operator.outputs.iter().copied().filter(|output| is_number(*output));
        if all.into_iter().any(|output| scales[output].is_none()) {
            return Err(refused(operator, "is computed in several steps whose values cannot be calibrated"));
        }
    }
    Ok(scales)
}

fn refused(operator: &Operator, reason: &str) -> Error {
    Error::new(format!("node `{}` cannot be quantized to eight bits: it {reason}", operator.node))
}

/// The indices of inputs that, if they are constants, have a scale like activations.
fn plain_constants(operator: &Operator) -> std::ops::Range<usize> {
    match operator.builtin {
        Builtin::Conv2d | Builtin::DepthwiseConv2d | Builtin::FullyConnected | Builtin::PadV2 => 0..0,
        _ => 0..operator.inputs.len(),
    }
}

fn numbers<'c>(tensor: &'c Tensor, weights: &Weights<'c>) -> Result<Cow<'c, [f32]>> {
    match &tensor.content {
        Some(Content::F32(values)) => Ok(Cow::Borrowed(values)),
        Some(Content::Weight(recipe)) => {
            let values = recipe(weights)?;
            weights.check(tensor.weight_name(), &values, Precision::Full)?;
            Ok(values)
        }
        _ => Err(Error::new(format!("the tensor `{}` does not have floats", tensor.name))),
    }
}

struct Quantizing<'a> {
    program: Program,
    scales: Vec<Option<Affine>>,
    weights: &'a Weights<'a>,
    /// Copies of activations at the scale of another tensor.
    requantized: HashMap<(TensorId, TensorId), TensorId>,
}

impl Quantizing<'_> {
    fn run(&mut self, is_integer_outside: bool) -> Result<()> {
        let float_input = self.program.tensors[self.program.taken].clone();
        let float_output = self.program.tensors[self.program.given].clone();
        let operators = std::mem::take(&mut self.program.operators);
        for operator in &operators {
            self.weights_of(operator)?;
        }
        for tensor in 0..self.scales.len() {
            self.activation(tensor)?;
        }
        let mut made = Vec::with_capacity(operators.len() + 2);
        for mut operator in operators {
            if operator.builtin == Builtin::Concatenation {
                self.at_one_scale(&mut operator, &mut made);
            }
            made.push(operator);
        }
        self.program.operators = made;
        if !is_integer_outside {
            if float_input.element == Element::F32 {
                self.float_input(float_input);
            }
            self.float_output(float_output);
        }
        Ok(())
    }

    /// Quantizes weights and bias of an operator that has them.
    fn weights_of(&mut self, operator: &Operator) -> Result<()> {
        let place = |place: usize| operator.inputs.get(place).copied().flatten();
        let axis = match operator.builtin {
            Builtin::Conv2d | Builtin::FullyConnected => 0,
            Builtin::DepthwiseConv2d => 3,
            Builtin::PadV2 => return self.border(operator),
            _ => return Ok(()),
        };
        let (Some(input), Some(weight)) = (place(0), place(1)) else { return Ok(()) };
        if self.program.tensors[weight].content.is_none() {
            return Err(refused(operator, "multiplies two activations"));
        }
        let input = self.scales[input].ok_or_else(|| refused(operator, "reads a value without a scale"))?;
        let least = self.least_scales(place(2), input.scale)?;
        let channels = self.weight(weight, axis, &least)?;
        if let Some(bias) = place(2) {
            let scales: Vec<f32> = channels.iter().map(|scale| scale * input.scale).collect();
            let codes = {
                let numbers = numbers(&self.program.tensors[bias], self.weights)?;
                numbers.iter().zip(&scales).map(|(value, scale)| (value / scale).round() as i32).collect()
            };
            self.constant(bias, Element::I32, Content::I32(codes), scales, 0, 0);
        }
        Ok(())
    }

    /// For each channel, the least scale of its weights with which its bias fits 32 bits: the scale of a bias is that of
    /// the weights times that of the input.
    fn least_scales(&self, bias: Option<TensorId>, input: f32) -> Result<Vec<f32>> {
        /// Far enough from the end that rounding does not reach it.
        const LARGEST_CODE: f64 = (1u32 << 30) as f64;
        let Some(bias) = bias else { return Ok(Vec::new()) };
        let numbers = numbers(&self.program.tensors[bias], self.weights)?;
        let least = |value: &f32| (f64::from(value.abs()) / LARGEST_CODE / f64::from(input)) as f32;
        Ok(numbers.iter().map(least).collect())
    }

    /// Quantizes a weight, with a scale for each index along `axis`, the first or the last, which is at least that in
    /// `least`; returns the scales.
    fn weight(&mut self, tensor: TensorId, axis: usize, least: &[f32]) -> Result<Vec<f32>> {
        let (codes, scales) = {
            let constant = &self.program.tensors[tensor];
            let numbers = numbers(constant, self.weights)?;
            let channels = constant.shape.get(axis).map_or(1, |length| *length as usize).max(1);
            let channel = |place: usize| {
                if axis == 0 { place / (numbers.len() / channels).max(1) } else { place % channels }
            };
            let mut largest = vec![Range::default(); channels];
            for (place, value) in numbers.iter().enumerate() {
                let range = &mut largest[channel(place)];
                range.most = range.most.max(value.abs());
            }
            let least = least.iter().copied().chain(std::iter::repeat(0.0));
            let scale = |(range, least): (&Range, f32)| symmetric_scale(std::iter::once(range.most)).max(least);
            let scales: Vec<f32> = largest.iter().zip(least).map(scale).collect();
            let code = |(place, value): (usize, &f32)| symmetric_code(*value, scales[channel(place)]);
            let codes: Vec<i8> = numbers.iter().enumerate().map(code).collect();
            (codes, scales)
        };
        self.constant(tensor, Element::I8, Content::I8(codes), scales.clone(), 0, axis);
        Ok(scales)
    }

    /// The padding value of a maximum: the smallest integer.
    fn border(&mut self, operator: &Operator) -> Result<()> {
        let [Some(image), _, Some(value)] = operator.inputs[..] else { return Ok(()) };
        let affine = self.scales[image].ok_or_else(|| refused(operator, "reads a value without a scale"))?;
        self.constant(value, Element::I8, Content::I8(vec![i8::MIN]), vec![affine.scale], affine.zero_point, 0);
        Ok(())
    }

    fn constant(
        &mut self,
        tensor: TensorId,
        element: Element,
        content: Content,
        scales: Vec<f32>,
        zero_point: i32,
        axis: usize,
    ) {
        let constant = &mut self.program.tensors[tensor];
        constant.element = element;
        constant.content = Some(content);
        constant.quantization = Some(Quantization { scales, zero_point, axis });
    }

    /// A tensor with one scale.
    fn activation(&mut self, tensor: TensorId) -> Result<()> {
        let Some(affine) = self.scales[tensor] else { return Ok(()) };
        let quantization = Quantization { scales: vec![affine.scale], zero_point: affine.zero_point, axis: 0 };
        let codes = match &self.program.tensors[tensor].content {
            Some(_) => {
                let numbers = numbers(&self.program.tensors[tensor], self.weights)?;
                Some(Content::I8(numbers.iter().map(|value| affine.code(*value)).collect()))
            }
            None => None,
        };
        let tensor = &mut self.program.tensors[tensor];
        tensor.element = Element::I8;
        tensor.quantization = Some(quantization);
        if codes.is_some() {
            tensor.content = codes;
        }
        Ok(())
    }

    /// Gives concatenated values the scale of the result.
    fn at_one_scale(&mut self, operator: &mut Operator, made: &mut Vec<Operator>) {
        let Some(output) = operator.outputs.first().copied() else { return };
        for input in operator.inputs.iter_mut().flatten() {
            if self.scales[*input] == self.scales[output] {
                continue;
            }
            let source = *input;
            *input = match self.requantized.get(&(source, output)) {
                Some(known) => *known,
                None => {
                    let mut copy = self.program.tensors[source].clone();
                    copy.name = format!("{}/rescaled/{output}", copy.name);
                    (copy.quantization, copy.origin) = (self.program.tensors[output].quantization.clone(), None);
                    let copy = self.add(copy);
                    made.push(converter(Builtin::Quantize, source, copy, &operator.node));
                    self.requantized.insert((source, output), copy);
                    copy
                }
            };
        }
    }

    fn add(&mut self, tensor: Tensor) -> TensorId {
        self.program.tensors.push(tensor);
        self.program.tensors.len() - 1
    }

    /// The model gets floats: its first operator quantizes them.
    fn float_input(&mut self, float: Tensor) {
        let input = self.program.taken;
        let mut integers = self.program.tensors[input].clone();
        integers.name.push_str("/quantized");
        let integers = self.add(integers);
        for operator in &mut self.program.operators {
            operator.inputs.iter_mut().flatten().filter(|read| **read == input).for_each(|read| *read = integers);
        }
        if self.program.given == input {
            self.program.given = integers;
        }
        self.program.tensors[input] = float;
        self.program.operators.insert(0, converter(Builtin::Quantize, input, integers, ""));
    }

    /// The model gives floats: its last operator dequantizes them.
    fn float_output(&mut self, float: Tensor) {
        let output = self.program.given;
        self.program.tensors[output].name.push_str("/quantized");
        let floats = self.add(Tensor { origin: None, ..float });
        self.program.operators.push(converter(Builtin::Dequantize, output, floats, ""));
        self.program.given = floats;
        for operator in &mut self.program.ending {
            operator.inputs.iter_mut().flatten().filter(|read| **read == output).for_each(|read| *read = floats);
        }
        if self.program.ending.is_empty() {
            self.program.output = floats;
        }
    }
}

fn converter(builtin: Builtin, input: TensorId, output: TensorId, node: &str) -> Operator {
    Operator {
        builtin,
        options: Vec::new(),
        activation: Activation::None,
        inputs: vec![Some(input)],
        outputs: vec![output],
        node: node.to_owned(),
    }
}
