//! The operators of a graph: a closed set, each with its shape, its parameters and its cost.
//!
//! Shapes are those of one sample, without the batch dimension; images are `[channels, height, width]`.

use serde::{Deserialize, Serialize};

/// The dtype of a value or a tensor of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// 64-bit signed integer.
    I64,
}

/// An operator and its attributes. The names and meanings are PyTorch's (`torch.nn`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// `y = x Wᵀ + b` over the last dimension (`torch.nn.Linear`); `weight` is `[out_features, in_features]`.
    Linear {
        /// Length of the last dimension of the input.
        in_features: i64,
        /// Length of the last dimension of the output.
        out_features: i64,
        /// Whether there is a `bias` of `[out_features]`.
        bias: bool,
    },
    /// Cross-correlation over images (`torch.nn.Conv2d`); `weight` is `[out_channels, in_channels / groups, h, w]`.
    Conv2d {
        /// Channels of the input.
        in_channels: i64,
        /// Channels of the output.
        out_channels: i64,
        /// Height and width of the kernel.
        kernel_size: [i64; 2],
        /// Step in height and width.
        stride: [i64; 2],
        /// Zeros on each side in height and width.
        padding: [i64; 2],
        /// Distance between the kernel's elements in height and width.
        dilation: [i64; 2],
        /// Channel groups; each sees `in_channels / groups` channels.
        groups: i64,
        /// Whether there is a `bias` of `[out_channels]`.
        bias: bool,
    },
    /// Normalisation over the batch, by channel (`torch.nn.BatchNorm1d` and `BatchNorm2d`; Ioffe and Szegedy 2015).
    /// The parameters `weight` and `bias` and the buffers `running_mean` and `running_var` are `[num_features]`;
    /// `num_batches_tracked` is a single i64.
    BatchNorm {
        /// Length of the first dimension of a sample.
        num_features: i64,
        /// Added to the variance.
        eps: f64,
        /// Share of the newest batch in the running statistics.
        momentum: f64,
    },
    /// The largest value in a window (`torch.nn.MaxPool2d`).
    MaxPool2d {
        /// Height and width of the window.
        kernel_size: [i64; 2],
        /// Step in height and width.
        stride: [i64; 2],
        /// Implicit −∞ on each side, at most half the window.
        padding: [i64; 2],
    },
    /// `max(x, 0)` (`torch.nn.ReLU`).
    Relu,
    /// All dimensions of a sample as one (`torch.nn.Flatten`).
    Flatten,
    /// In training, zeroes each value with probability `p` and scales the rest by `1 / (1 - p)`; the identity
    /// otherwise (`torch.nn.Dropout`).
    Dropout {
        /// Probability.
        p: f64,
    },
    /// The sum of two values of one shape: the end of a residual block.
    Add,
}

/// A parameter or buffer of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// `<node>.<tensor>`, with PyTorch's name for the tensor: `conv1.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its dtype.
    pub dtype: Dtype,
}

/// How a tensor of an operator starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialisation {
    /// Uniform on `[-bound, bound)`.
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// One value everywhere.
    Constant(f64),
}

/// A tensor that an operator owns: its name within the node, shape, dtype and start.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OwnedTensor {
    pub(super) name: &'static str,
    pub(super) shape: Vec<i64>,
    pub(super) dtype: Dtype,
    pub(super) initialisation: Initialisation,
}

/// Why an operator cannot be applied; the caller knows where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Misfit {
    Shape { expected: String, found: Vec<i64> },
    Option { option: &'static str, value: String, expected: &'static str },
}

impl Op {
    /// The operator's name, as it is written in a graph.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Linear { .. } => "linear",
            Op::Conv2d { .. } => "conv2d",
            Op::BatchNorm { .. } => "batch_norm",
            Op::MaxPool2d { .. } => "max_pool2d",
            Op::Relu => "relu",
            Op::Flatten => "flatten",
            Op::Dropout { .. } => "dropout",
            Op::Add => "add",
        }
    }

    /// How many values it takes.
    pub fn input_count(&self) -> usize {
        match self {
            Op::Add => 2,
            _ => 1,
        }
    }

    /// The shape that it gives for `inputs`, of which there are [`Op::input_count`].
    pub(super) fn output_shape(&self, inputs: &[&[i64]]) -> Result<Vec<i64>, Misfit> {
        let input = inputs.first().copied().unwrap_or_default();
        match self {
            Op::Linear { in_features, out_features, .. } => {
                positive("out_features", *out_features)?;
                let mut shape = input.to_vec();
                match shape.last_mut() {
                    Some(last) if *last == *in_features => *last = *out_features,
                    _ => {
                        return misfit(format!("{in_features} features in the last dimension"), input);
                    }
                }
                Ok(shape)
            }
            Op::Conv2d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, .. } => {
                positive("out_channels", *out_channels)?;
                positive("groups", *groups)?;
                let [channels, height, width] = image(input)?;
                if channels != *in_channels {
                    return misfit(format!("{in_channels} channels"), input);
                }
                if channels % groups != 0 || out_channels % groups != 0 {
                    return Err(Misfit::Option {
                        option: "groups",
                        value: groups.to_string(),
                        expected: "a divisor of the channels of input and output",
                    });
                }
                let window =
                    Window { kernel_size: *kernel_size, stride: *stride, padding: *padding, dilation: *dilation };
                let [height, width] = window.output_size([height, width], input)?;
                Ok(vec![*out_channels, height, width])
            }
            Op::BatchNorm { num_features, eps, momentum } => {
                if !(*eps > 0.0 && eps.is_finite()) {
                    return Err(Misfit::Option { option: "eps", value: eps.to_string(), expected: "above 0" });
                }
                probability("momentum", *momentum, 1.0)?;
                match input {
                    [features] | [features, _, _] if features == num_features => Ok(input.to_vec()),
                    _ => misfit(
                        format!("a vector of {num_features} values or an image of {num_features} channels"),
                        input,
                    ),
                }
            }
            Op::MaxPool2d { kernel_size, stride, padding } => {
                let [channels, height, width] = image(input)?;
                if padding.iter().zip(kernel_size).any(|(padding, kernel)| *padding > kernel / 2) {
                    return Err(Misfit::Option {
                        option: "padding",
                        value: format!("{padding:?}"),
                        expected: "at most half of `kernel_size`",
                    });
                }
                let window = Window { kernel_size: *kernel_size, stride: *stride, padding: *padding, dilation: [1, 1] };
                let [height, width] = window.output_size([height, width], input)?;
                Ok(vec![channels, height, width])
            }
            Op::Relu => Ok(input.to_vec()),
            Op::Flatten => Ok(vec![i64::try_from(element_count(input)).unwrap_or(i64::MAX)]),
            Op::Dropout { p } => {
                probability("p", *p, 1.0)?;
                Ok(input.to_vec())
            }
            Op::Add => match inputs {
                [left, right] if left == right => Ok(left.to_vec()),
                [left, right] => misfit(format!("two values of one shape, the first {left:?}"), right),
                _ => misfit("two values".to_owned(), input),
            },
        }
    }

    /// The tensors that training changes, in PyTorch's order.
    ///
    /// They start as the `reset_parameters` of PyTorch's modules start them: `Linear` and `_ConvNd` draw weights from
    /// `kaiming_uniform_(a=√5)` (He et al. 2015) and biases from a uniform distribution with the bound `1 / √fan_in`;
    /// `_NormBase` starts at one and zero.
    pub(super) fn parameters(&self) -> Vec<OwnedTensor> {
        let weight_and_bias = |shape: Vec<i64>, bias: bool| {
            let fan_in = (element_count(shape.get(1..).unwrap_or_default()).max(1) as f64).sqrt();
            let outputs = shape.first().copied().unwrap_or(0);
            // Equal to `1 / √fan_in` but for rounding, which follows `torch.nn.init` step by step.
            let gain = (2.0 / (1.0 + 5.0_f64.sqrt().powi(2))).sqrt();
            let bound = 3.0_f64.sqrt() * (gain / fan_in);
            let mut tensors = vec![float("weight", shape, Initialisation::Uniform { bound })];
            if bias {
                let bound = 1.0 / fan_in;
                tensors.push(float("bias", vec![outputs], Initialisation::Uniform { bound }));
            }
            tensors
        };
        match self {
            Op::Linear { in_features, out_features, bias } => weight_and_bias(vec![*out_features, *in_features], *bias),
            Op::Conv2d { in_channels, out_channels, kernel_size: [height, width], groups, bias, .. } => {
                weight_and_bias(vec![*out_channels, in_channels / (*groups).max(1), *height, *width], *bias)
            }
            Op::BatchNorm { num_features, .. } => vec![
                float("weight", vec![*num_features], Initialisation::Constant(1.0)),
                float("bias", vec![*num_features], Initialisation::Constant(0.0)),
            ],
            Op::MaxPool2d { .. } | Op::Relu | Op::Flatten | Op::Dropout { .. } | Op::Add => Vec::new(),
        }
    }

    /// The tensors that are part of the model's state and have no gradient, in PyTorch's order.
    pub(super) fn buffers(&self) -> Vec<OwnedTensor> {
        match self {
            Op::BatchNorm { num_features, .. } => vec![
                float("running_mean", vec![*num_features], Initialisation::Constant(0.0)),
                float("running_var", vec![*num_features], Initialisation::Constant(1.0)),
                OwnedTensor {
                    name: "num_batches_tracked",
                    shape: Vec::new(),
                    dtype: Dtype::I64,
                    initialisation: Initialisation::Constant(0.0),
                },
            ],
            _ => Vec::new(),
        }
    }

    /// Floating-point operations of one forward pass over one sample; a multiplication and an addition count as two,
    /// and moving or comparing a value as one.
    pub(super) fn flops(&self, output: &[i64]) -> u64 {
        let outputs = element_count(output);
        let per_output = match self {
            Op::Linear { in_features, bias, .. } => {
                magnitude(*in_features).saturating_mul(2).saturating_add(u64::from(*bias))
            }
            Op::Conv2d { in_channels, kernel_size, groups, bias, .. } => element_count(kernel_size)
                .saturating_mul(magnitude(in_channels / (*groups).max(1)))
                .saturating_mul(2)
                .saturating_add(u64::from(*bias)),
            Op::BatchNorm { .. } => 4,
            Op::MaxPool2d { kernel_size, .. } => element_count(kernel_size),
            Op::Relu | Op::Add => 1,
            Op::Dropout { .. } => 2,
            Op::Flatten => 0,
        };
        outputs.saturating_mul(per_output)
    }
}

/// The number of elements of a shape.
pub(super) fn element_count(shape: &[i64]) -> u64 {
    shape.iter().fold(1, |count: u64, length| count.saturating_mul(magnitude(*length)))
}

fn magnitude(length: i64) -> u64 {
    u64::try_from(length).unwrap_or(0)
}

fn float(name: &'static str, shape: Vec<i64>, initialisation: Initialisation) -> OwnedTensor {
    OwnedTensor { name, shape, dtype: Dtype::F32, initialisation }
}

fn misfit<T>(expected: String, found: &[i64]) -> Result<T, Misfit> {
    Err(Misfit::Shape { expected, found: found.to_vec() })
}

fn image(shape: &[i64]) -> Result<[i64; 3], Misfit> {
    match shape {
        [channels, height, width] => Ok([*channels, *height, *width]),
        _ => misfit("an image of shape [channels, height, width]".to_owned(), shape),
    }
}

fn positive(option: &'static str, value: i64) -> Result<(), Misfit> {
    // Larger sizes do not fit any memory, and sums and products of sizes must not overflow.
    if (1..=i64::from(u32::MAX)).contains(&value) {
        return Ok(());
    }
    Err(Misfit::Option { option, value: value.to_string(), expected: "a positive number of 32 bits" })
}

/// `p = 1` is allowed, as in PyTorch.
fn probability(option: &'static str, value: f64, maximum: f64) -> Result<(), Misfit> {
    if (0.0..=maximum).contains(&value) {
        return Ok(());
    }
    Err(Misfit::Option { option, value: value.to_string(), expected: "between 0 and 1" })
}

/// A window that slides over an image.
struct Window {
    kernel_size: [i64; 2],
    stride: [i64; 2],
    padding: [i64; 2],
    dilation: [i64; 2],
}

impl Window {
    /// `floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`, as `torch.nn.Conv2d` documents it.
    fn output_size(&self, size: [i64; 2], input: &[i64]) -> Result<[i64; 2], Misfit> {
        let mut output = [0; 2];
        for (axis, output) in output.iter_mut().enumerate() {
            positive("kernel_size", self.kernel_size[axis])?;
            positive("stride", self.stride[axis])?;
            positive("dilation", self.dilation[axis])?;
            if self.padding[axis] != 0 {
                positive("padding", self.padding[axis])?;
            }
            let extent = self.dilation[axis].saturating_mul(self.kernel_size[axis] - 1) + 1;
            let padded = size[axis].saturating_add(2 * self.padding[axis]);
            if extent > padded {
                return misfit(format!("an image of at least {extent} by its kernel, {padded} with padding"), input);
            }
            *output = (padded - extent) / self.stride[axis] + 1;
        }
        Ok(output)
    }
}
