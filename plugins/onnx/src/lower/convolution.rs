//! Convolutions, and the batch norms that become part of them.

use std::collections::HashMap;

use plugin_api::Result;
use plugin_api::graph::{Graph, Node, Op};

use super::{Lowering, tensor_name};
use crate::proto::Attribute;

/// The batch norms whose only input is a convolution that nothing else reads, by the convolution's name.
pub fn foldable(graph: &Graph) -> HashMap<&str, &Node> {
    let mut readers: HashMap<&str, usize> = HashMap::from([(graph.output.as_str(), 1)]);
    for input in graph.nodes.iter().flat_map(|node| &node.inputs) {
        *readers.entry(input).or_default() += 1;
    }
    let convolutions: HashMap<&str, &Node> = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::Conv1d { .. } | Op::Conv2d { .. }))
        .map(|node| (node.name.as_str(), node))
        .collect();
    graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::BatchNorm { .. }))
        .filter_map(|norm| {
            let input = norm.inputs.first()?;
            (convolutions.contains_key(input.as_str()) && readers.get(input.as_str()) == Some(&1))
                .then_some((input.as_str(), norm))
        })
        .collect()
}

/// A convolution's attributes, for one or two dimensions.
struct Attributes {
    kernel: Vec<i64>,
    stride: Vec<i64>,
    padding: Vec<i64>,
    dilation: Vec<i64>,
    groups: i64,
    output_padding: Option<Vec<i64>>,
    bias: bool,
}

impl Attributes {
    /// Whether the output padding of a transposed convolution reaches its stride, which dilation allows and runtimes
    /// refuse.
    fn is_widely_padded(&self) -> bool {
        let more = self.output_padding.iter().flatten();
        more.zip(&self.stride).any(|(more, stride)| more >= stride)
    }

    /// What a transposed convolution removes at each end once its output padding is deducted.
    fn ends(&self) -> impl Iterator<Item = i64> {
        let more = self.output_padding.iter().flatten();
        self.padding.iter().zip(more).map(|(padding, more)| padding - more)
    }

    /// Whether its output goes on where no window ends.
    fn pads_beyond(&self) -> bool {
        self.is_widely_padded() && self.ends().any(|end| end < 0)
    }

    /// Those of the format for a window that removes its padding at the start and `ends` at the end.
    fn window(&self, ends: &[i64]) -> Vec<Attribute> {
        vec![
            Attribute::ints("kernel_shape", self.kernel.iter().copied()),
            Attribute::ints("strides", self.stride.iter().copied()),
            Attribute::ints("dilations", self.dilation.iter().copied()),
            Attribute::int("group", self.groups),
            // First all starts, then all ends.
            Attribute::ints("pads", self.padding.iter().chain(ends).copied()),
        ]
    }
}

fn attributes(op: &Op) -> Option<Attributes> {
    Some(match op {
        Op::Conv1d { kernel_size, stride, padding, dilation, groups, bias, .. } => Attributes {
            kernel: vec![*kernel_size],
            stride: vec![*stride],
            padding: vec![*padding],
            dilation: vec![*dilation],
            groups: *groups,
            output_padding: None,
            bias: *bias,
        },
        Op::Conv2d { kernel_size, stride, padding, dilation, groups, bias, .. } => Attributes {
            kernel: kernel_size.to_vec(),
            stride: stride.to_vec(),
            padding: padding.to_vec(),
            dilation: dilation.to_vec(),
            groups: *groups,
            output_padding: None,
            bias: *bias,
        },
        Op::ConvTranspose2d { kernel_size, stride, padding, output_padding, dilation, groups, bias, .. } => {
            Attributes {
                kernel: kernel_size.to_vec(),
                stride: stride.to_vec(),
                padding: padding.to_vec(),
                dilation: dilation.to_vec(),
                groups: *groups,
                output_padding: Some(output_padding.to_vec()),
                bias: *bias,
            }
        }
        _ => return None,
    })
}

impl<'a> Lowering<'a, '_> {
    pub(super) fn convolution(&mut self, node: &'a Node) -> Result<String> {
        let Some(of) = attributes(&node.op) else { return self.input(node) };
        let mut inputs = vec![self.input(node)?];
        match self.folded.get(node.name.as_str()).copied() {
            Some(norm) => inputs.extend(self.fold(node, norm, of.bias)?),
            None => {
                inputs.push(self.weight(node, "weight", None)?);
                if of.bias && !of.pads_beyond() {
                    inputs.push(self.weight(node, "bias", None)?);
                }
            }
        }
        if of.is_widely_padded() {
            return self.widely_padded(node, &of, &inputs);
        }
        let mut attributes = of.window(&of.padding);
        let operator = match of.output_padding {
            Some(output_padding) => {
                attributes.push(Attribute::ints("output_padding", output_padding));
                "ConvTranspose"
            }
            None => "Conv",
        };
        Ok(self.builder.node(operator, &node.name, &inputs, attributes))
    }

    /// A widely padded transposed convolution: it removes less at the end, and where that is not enough, zeros follow, and
    /// then the bias.
    fn widely_padded(&mut self, node: &Node, of: &Attributes, inputs: &[String]) -> Result<String> {
        let part = |part: &str| format!("{}/{part}", node.name);
        let (ends, beyond): (Vec<i64>, Vec<i64>) = of.ends().map(|end| (end.max(0), (-end).max(0))).unzip();
        if !of.pads_beyond() {
            return Ok(self.builder.node("ConvTranspose", &node.name, inputs, of.window(&ends)));
        }
        let computed = self.builder.node("ConvTranspose", &part("computed"), inputs, of.window(&ends));
        // Batch and channels first; first all starts, then all ends.
        let zeros: Vec<i64> = std::iter::repeat_n(0, 4 + beyond.len()).chain(beyond).collect();
        let zeros = self.builder.integers(&part("zeros"), &zeros);
        if !of.bias {
            return Ok(self.builder.node("Pad", &node.name, &[computed, zeros], Vec::new()));
        }
        let padded = self.builder.node("Pad", &part("padded"), &[computed, zeros], Vec::new());
        let mut channels = vec![1; node.shape.len()];
        channels[0] = node.shape.first().copied().unwrap_or(1);
        let bias = self.weight(node, "bias", Some(&channels))?;
        Ok(self.builder.node("Add", &node.name, &[padded, bias], Vec::new()))
    }

    /// Weight and bias of a convolution that includes the batch norm after it. Computed in f64, so that the result is
    /// as precise as f32 can be.
    fn fold(&mut self, node: &Node, norm: &Node, bias: bool) -> Result<[String; 2]> {
        let Op::BatchNorm { eps, .. } = norm.op else {
            return Err(plugin_api::Error::new(format!("`{}` is not a batch norm", norm.name)));
        };
        let of_norm = |tensor: &str| self.weights.f32(tensor_name(norm, tensor)?);
        let (scale, shift) = (of_norm("weight")?, of_norm("bias")?);
        let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
        let weight = self.weights.get(tensor_name(node, "weight")?)?;
        let values = self.weights.f32(weight.name)?;
        let own_bias = if bias { self.weights.f32(tensor_name(node, "bias")?)? } else { &[] };
        let factors: Vec<f64> = scale
            .iter()
            .zip(variance)
            .map(|(scale, variance)| f64::from(*scale) / (f64::from(*variance) + eps).sqrt())
            .collect();
        let row = values.len() / factors.len().max(1);
        let folded: Vec<f32> = values
            .chunks_exact(row.max(1))
            .zip(&factors)
            .flat_map(|(values, factor)| values.iter().map(move |value| (f64::from(*value) * factor) as f32))
            .collect();
        let shifted: Vec<f32> = (0..factors.len())
            .map(|channel| {
                let own = own_bias.get(channel).copied().map_or(0.0, f64::from);
                ((own - f64::from(mean[channel])) * factors[channel] + f64::from(shift[channel])) as f32
            })
            .collect();
        // The names show that they are no longer the state dict's.
        let (name, channels) = (format!("{}.weight/folded", node.name), [factors.len() as i64]);
        let weight = self.builder.weight(&name, weight.shape, folded);
        let bias = self.builder.weight(&format!("{}.bias/folded", node.name), &channels, shifted);
        Ok([weight, bias])
    }

    /// Whether a convolution includes this batch norm.
    pub(super) fn is_folded(&self, norm: &Node) -> bool {
        self.folded.values().any(|folded| folded.name == norm.name)
    }
}
