//! Convolutions, with the batch norm and the padding around them.

use std::borrow::Cow;
use std::sync::Arc;

use plugin_api::graph::{Node, Op};
use plugin_api::{Error, Result};

use super::recipe::{Norm, bias, named, read, reordered};
use super::{Lowering, Value};
use crate::builtin::{Builtin, Padding, Scalar};
use crate::layout::Layout;
use crate::program::{Recipe, TensorId};

/// A window along one dimension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) input: i64,
    pub(super) output: i64,
    pub(super) kernel: i64,
    pub(super) stride: i64,
    pub(super) dilation: i64,
    /// The padding before the input.
    pub(super) before: i64,
}

impl Window {
    /// The number of values after the input that the window covers.
    pub(super) fn after(self) -> i64 {
        let extent = (self.kernel - 1) * self.dilation + 1;
        ((self.output - 1) * self.stride + extent - self.input - self.before).max(0)
    }

    /// Whether the runtime's `SAME` is this padding: it puts the larger half at the end, PyTorch pads both sides
    /// equally.
    fn is_same(self) -> bool {
        let extent = (self.kernel - 1) * self.dilation + 1;
        let output = (self.input + self.stride - 1) / self.stride;
        let total = ((output - 1) * self.stride + extent - self.input).max(0);
        output == self.output && self.before == total / 2 && self.after() == total - total / 2
    }
}

/// The runtime's padding for `windows`; `None` if it has none, so that the input must be padded.
pub(super) fn padding(windows: [Window; 2]) -> Option<Padding> {
    if windows.iter().all(|window| window.before == 0 && window.after() == 0) {
        Some(Padding::Valid)
    } else if windows.iter().all(|window| window.is_same()) {
        Some(Padding::Same)
    } else {
        None
    }
}

/// A convolution over an image, channels last.
struct Kernel {
    windows: [Window; 2],
    channels: [i64; 2],
    groups: i64,
    /// `[outputs, height, width, inputs of a group]`, or `[1, height, width, outputs]` where each group has one
    /// channel.
    weight: Recipe,
    bias: Option<Recipe>,
}

impl<'g> Lowering<'g> {
    pub(super) fn convolution(&mut self, node: &'g Node, input: &Value) -> Result<(TensorId, Layout)> {
        let (channels, kernel, stride, before, dilation, groups, has_bias) = match &node.op {
            Op::Conv1d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias } => (
                [*in_channels, *out_channels],
                [1, *kernel_size],
                [1, *stride],
                [0, *padding],
                [1, *dilation],
                *groups,
                *bias,
            ),
            Op::Conv2d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias } => {
                ([*in_channels, *out_channels], *kernel_size, *stride, *padding, *dilation, *groups, *bias)
            }
            _ => return Err(Error::new("is not a convolution")),
        };
        let [sizes, outputs] = [&input.shape, &node.shape].map(|shape| match shape.as_slice() {
            [_, height, width] => [*height, *width],
            [_, length] => [1, *length],
            _ => [1, 1],
        });
        let windows = [0, 1].map(|axis| Window {
            input: sizes[axis],
            output: outputs[axis],
            kernel: kernel[axis],
            stride: stride[axis],
            dilation: dilation[axis],
            before: before[axis],
        });
        let following = self.following_norm(node, channels[1]);
        let norm = following.as_ref().map(|(_, norm)| norm.clone());
        let shape = vec![channels[1], channels[0] / groups, kernel[0], kernel[1]];
        let order = if is_depthwise(channels, groups) { vec![1, 2, 3, 0] } else { vec![0, 2, 3, 1] };
        let weight = reordered(named(node, "weight"), shape, order, norm.clone());
        let bias = bias(has_bias.then(|| named(node, "bias")), channels[1], norm);
        let image = self.image(input);
        let output = self.convolve(image, &Kernel { windows, channels, groups, weight, bias });
        let (output, layout) = self.imaged(output, &node.shape);
        if let Some((reader, _)) = following {
            self.absorb(reader, output, &layout)?;
        }
        Ok((output, layout))
    }

    fn convolve(&mut self, image: TensorId, kernel: &Kernel) -> TensorId {
        let Kernel { windows, channels: [inputs, outputs], groups, .. } = *kernel;
        let (image, padding) = match padding(windows) {
            Some(padding) => (image, padding),
            None => (self.padded(image, windows, None), Padding::Valid),
        };
        let [height, width] = windows.map(|window| window.kernel as i32);
        let stride = |axis: usize| Scalar::I32(windows[axis].stride as i32);
        let dilation = |axis: usize| Scalar::I32(windows[axis].dilation as i32);
        let shape = [1, windows[0].output as i32, windows[1].output as i32, outputs as i32];
        let bias = match &kernel.bias {
            Some(bias) => self.program.weight(&[outputs as i32], Arc::clone(bias)),
            None => self.program.numbers(&[outputs as i32], vec![0.0; outputs as usize]),
        };
        if is_depthwise([inputs, outputs], groups) {
            let weight = self.program.weight(&[1, height, width, outputs as i32], Arc::clone(&kernel.weight));
            let multiplier = Scalar::I32((outputs / inputs) as i32);
            let options = [
                (0, padding.scalar()),
                (1, stride(1)),
                (2, stride(0)),
                (3, multiplier),
                (5, dilation(1)),
                (6, dilation(0)),
            ];
            self.program.apply(Builtin::DepthwiseConv2d, &options, &[image, weight, bias], &shape)
        } else {
            let weight_shape = [outputs as i32, height, width, (inputs / groups) as i32];
            let weight = self.program.weight(&weight_shape, Arc::clone(&kernel.weight));
            let options = [(0, padding.scalar()), (1, stride(1)), (2, stride(0)), (4, dilation(1)), (5, dilation(0))];
            self.program.apply(Builtin::Conv2d, &options, &[image, weight, bias], &shape)
        }
    }

    /// An image with its padding: zeros, or `value`.
    pub(super) fn padded(&mut self, image: TensorId, windows: [Window; 2], value: Option<f32>) -> TensorId {
        let around = windows.map(|window| [window.before as i32, window.after() as i32]);
        let mut shape = self.program.shape(image).to_vec();
        for (axis, [before, after]) in around.iter().enumerate() {
            shape[axis + 1] += before + after;
        }
        let [[top, bottom], [left, right]] = around;
        let paddings = crate::program::Content::I32(vec![0, 0, top, bottom, left, right, 0, 0]);
        let paddings = self.program.tensor(&[4, 2], crate::program::Element::I32, Some(paddings));
        match value {
            None => self.program.apply(Builtin::Pad, &[], &[image, paddings], &shape),
            Some(value) => {
                let value = self.program.numbers(&[1], vec![value]);
                self.program.apply(Builtin::PadV2, &[], &[image, paddings, value], &shape)
            }
        }
    }

    /// A batch norm that could not become part of an earlier operator: a depthwise convolution of one pixel.
    pub(super) fn batch_norm(&mut self, node: &Node, input: &Value, channels: i64, eps: f64) -> (TensorId, Layout) {
        let norm = Norm::new(node, channels, eps);
        // A flattened image has a channel for each of its values, in memory order.
        let (image, places) = match &input.layout {
            Layout::Flat { shape, order } => {
                let places = crate::layout::element_order(shape, order);
                (self.program.reshape(input.tensor, &[1, 1, 1, channels as i32]), Some(places))
            }
            Layout::Order(_) => (self.image(input), None),
        };
        let placed = move |values: Vec<f32>| match &places {
            Some(places) => places.iter().map(|place| values[*place]).collect(),
            None => values,
        };
        let (scale, scale_placed) = (norm.clone(), placed.clone());
        let weight: Recipe = Arc::new(move |weights| {
            let values = scale.scale(weights)?.into_iter().map(|value| value as f32).collect();
            Ok(Cow::Owned(scale_placed(values)))
        });
        let bias: Recipe = Arc::new(move |weights| Ok(Cow::Owned(placed(norm.shift(weights, None)?))));
        let [_, height, width, _] = self.program.shape(image)[..] else { return (image, input.layout.clone()) };
        let windows = [height, width].map(|size| Window {
            input: i64::from(size),
            output: i64::from(size),
            kernel: 1,
            stride: 1,
            dilation: 1,
            before: 0,
        });
        let kernel = Kernel { windows, channels: [channels; 2], groups: channels, weight, bias: Some(bias) };
        let output = if channels == 1 { self.scaled(image, &kernel) } else { self.convolve(image, &kernel) };
        match &input.layout {
            Layout::Flat { .. } => (self.program.reshape(output, &[1, channels as i32]), input.layout.clone()),
            Layout::Order(_) => self.imaged(output, &input.shape),
        }
    }

    /// One channel: its factor is a weight of one number.
    fn scaled(&mut self, image: TensorId, kernel: &Kernel) -> TensorId {
        let weight = self.program.weight(&[1], Arc::clone(&kernel.weight));
        let scaled = self.program.binary(Builtin::Mul, image, weight);
        match &kernel.bias {
            Some(bias) => {
                let bias = self.program.weight(&[1], Arc::clone(bias));
                self.program.binary(Builtin::Add, scaled, bias)
            }
            None => scaled,
        }
    }

    /// A transposed convolution as a convolution that computes the pixels between two input pixels as channels, which a
    /// depth-to-space then places side by side (Shi et al. 2016). The runtime's own operator needs the batch as a
    /// constant.
    pub(super) fn transposed_convolution(&mut self, node: &'g Node, input: &Value) -> Result<(TensorId, Layout)> {
        let Op::ConvTranspose2d {
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias: has_bias,
            ..
        } = node.op
        else {
            return Err(Error::new("is not a transposed convolution"));
        };
        if stride[0] != stride[1] {
            return Err(Error::new(format!("cannot be exported with different strides {stride:?}")));
        }
        let ([_, height, width], [_, out_height, out_width]) = (as_image(&input.shape)?, as_image(&node.shape)?);
        let (inputs, outputs) = ([height, width], [out_height, out_width]);
        let step = stride[0];
        let phases = [0, 1].map(|axis| Phases::new(kernel_size[axis], dilation[axis], step, padding[axis]));
        let windows = [0, 1].map(|axis| Window {
            input: inputs[axis],
            output: (outputs[axis] + step - 1) / step,
            kernel: phases[axis].taps(),
            stride: 1,
            dilation: 1,
            before: phases[axis].last,
        });
        let following = self.following_norm(node, out_channels);
        let norm = following.as_ref().map(|(_, norm)| norm.clone());
        let spread = Spread { phases, step, channels: [in_channels, out_channels], groups, kernel_size, dilation };
        let weight = spread.weight(named(node, "weight"), norm.clone());
        let bias = bias(has_bias.then(|| named(node, "bias")), out_channels, norm).map(|bias| -> Recipe {
            let copies = (step * step) as usize;
            Arc::new(move |weights| Ok(Cow::Owned(bias(weights)?.repeat(copies))))
        });
        let image = self.image(input);
        let channels = [in_channels, out_channels * step * step];
        let kernel = Kernel { windows, channels, groups: 1, weight, bias };
        let mut output = self.convolve(image, &kernel);
        if step > 1 {
            let [rows, columns] = windows.map(|window| (window.output * step) as i32);
            let options = [(0, Scalar::I32(step as i32))];
            let shape = [1, rows, columns, out_channels as i32];
            output = self.program.apply(Builtin::DepthToSpace, &options, &[output], &shape);
        }
        let wanted = [1, out_height as i32, out_width as i32, out_channels as i32];
        if self.program.shape(output) != wanted {
            let begin = self.program.integers(&[0, 0, 0, 0]);
            let size = self.program.integers(&[-1, wanted[1], wanted[2], wanted[3]]);
            output = self.program.apply(Builtin::Slice, &[], &[output, begin, size], &wanted);
        }
        let layout = Layout::channels_last(3);
        if let Some((reader, _)) = following {
            self.absorb(reader, output, &layout)?;
        }
        Ok((output, layout))
    }
}

/// Whether each input channel has its own outputs. With one input channel, it is an ordinary convolution.
fn is_depthwise([inputs, outputs]: [i64; 2], groups: i64) -> bool {
    groups == inputs && inputs > 1 && outputs % inputs == 0
}

fn as_image(shape: &[i64]) -> Result<[i64; 3]> {
    shape.try_into().map_err(|_| Error::new(format!("needs images, not values of shape {shape:?}")))
}

/// Which inputs reach an output of a transposed convolution along one dimension: output `q · step + r` is the sum over
/// `t` of input `q − t` times element `t · step + r + padding` of the kernel, which dilation has spread.
#[derive(Clone, Copy)]
struct Phases {
    padding: i64,
    first: i64,
    last: i64,
}

impl Phases {
    fn new(kernel: i64, dilation: i64, step: i64, padding: i64) -> Phases {
        let extent = (kernel - 1) * dilation + 1;
        let first = -((padding + step - 1) / step);
        Phases { padding, first, last: (extent - 1 - padding).div_euclid(step).max(0) }
    }

    fn taps(self) -> i64 {
        self.last - self.first + 1
    }
}

/// The kernel of a transposed convolution, distributed over phases.
struct Spread {
    phases: [Phases; 2],
    step: i64,
    channels: [i64; 2],
    groups: i64,
    kernel_size: [i64; 2],
    dilation: [i64; 2],
}

impl Spread {
    /// From `[inputs, outputs of a group, height, width]` to `[phases × outputs, taps, taps, inputs]`; a channel of
    /// another group has zeros.
    fn weight(self, name: String, norm: Option<Norm>) -> Recipe {
        Arc::new(move |weights| {
            let [inputs, outputs] = self.channels;
            let [rows, columns] = self.kernel_size;
            let (of_group, inputs_of_group) = (outputs / self.groups, inputs / self.groups);
            let values = read(weights, &name, (inputs * of_group * rows * columns) as usize)?;
            let scale = norm.as_ref().map(|norm| norm.scale(weights)).transpose()?;
            let mut spread = Vec::new();
            for phase in 0..self.step * self.step {
                for output in 0..outputs {
                    let factor = scale.as_ref().map_or(1.0, |scale| scale[output as usize]);
                    for tap_row in 0..self.phases[0].taps() {
                        for tap_column in 0..self.phases[1].taps() {
                            let row = self.element(0, tap_row, phase / self.step);
                            let column = self.element(1, tap_column, phase % self.step);
                            for input in 0..inputs {
                                let same_group = input / inputs_of_group == output / of_group;
                                spread.push(match (row, column) {
                                    (Some(row), Some(column)) if same_group => {
                                        let plane = input * of_group + output % of_group;
                                        let value = values[((plane * rows + row) * columns + column) as usize];
                                        (f64::from(value) * factor) as f32
                                    }
                                    _ => 0.0,
                                });
                            }
                        }
                    }
                }
            }
            Ok(Cow::Owned(spread))
        })
    }

    /// The element of the kernel for a tap in a phase, if there is one.
    fn element(&self, axis: usize, tap: i64, phase: i64) -> Option<i64> {
        let phases = self.phases[axis];
        // Taps are in the order of the input, the reverse of the kernel's.
        let place = (phases.last - tap) * self.step + phase + phases.padding;
        let element = place.div_euclid(self.dilation[axis]);
        (place >= 0 && place % self.dilation[axis] == 0 && element < self.kernel_size[axis]).then_some(element)
    }
}
