//! The cost of an operator.

use super::Op;

/// The cost of an operator.
pub(in crate::model) trait Cost {
    /// Floating-point operations of one forward pass over one sample; a multiplication and an addition count as two,
    /// and moving or comparing a value, or a function such as the exponential, as one.
    fn flops(&self, input: &[i64], output: &[i64]) -> u64;
}

impl Cost for Op {
    fn flops(&self, input: &[i64], output: &[i64]) -> u64 {
        let outputs = element_count(output);
        let window = |kernel_size: &[i64], channels: i64, groups: i64, bias: bool| {
            element_count(kernel_size)
                .saturating_mul(magnitude(channels / groups.max(1)))
                .saturating_mul(2)
                .saturating_add(u64::from(bias))
        };
        let per_output = match self {
            Op::Linear { in_features, bias, .. } => {
                magnitude(*in_features).saturating_mul(2).saturating_add(u64::from(*bias))
            }
            Op::Conv1d { in_channels, kernel_size, groups, bias, .. } => {
                window(&[*kernel_size], *in_channels, *groups, *bias)
            }
            Op::Conv2d { in_channels, kernel_size, groups, bias, .. } => {
                window(kernel_size, *in_channels, *groups, *bias)
            }
            Op::ConvTranspose2d { out_channels, kernel_size, groups, bias, .. } => {
                // Every value of the input contributes to a whole window of the output.
                let spread = window(kernel_size, *out_channels, *groups, false);
                let bias = if *bias { outputs } else { 0 };
                return element_count(input).saturating_mul(spread).saturating_add(bias);
            }
            Op::BatchNorm { .. } => 4,
            Op::LayerNorm { .. } | Op::GroupNorm { .. } => 8,
            Op::RmsNorm { .. } => 4,
            Op::MaxPool2d { kernel_size, .. } | Op::AvgPool2d { kernel_size, .. } => element_count(kernel_size),
            Op::AdaptiveAvgPool2d { .. } => return element_count(input),
            Op::Relu | Op::LeakyRelu { .. } | Op::Tanh | Op::Sigmoid => 1,
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::AddScalar { .. } | Op::MultiplyScalar { .. } => 1,
            Op::PositionalEmbedding { .. } | Op::Pow { .. } | Op::ToFloat | Op::Compare { .. } => 1,
            Op::Clamp { .. } => 2,
            Op::Mean { .. } => return element_count(input),
            Op::Matmul => magnitude(input.last().copied().unwrap_or(0)).saturating_mul(2),
            Op::ScaledDotProductAttention { .. } => {
                // As in the layer, for queries and keys of one length: a product for the weight of each pair of positions, and
                // one for its value.
                let [length, width] =
                    [2, 1].map(|back| input.len().checked_sub(back).map_or(0, |at| magnitude(input[at])));
                let features = magnitude(output.last().copied().unwrap_or(0));
                let pairs = element_count(output).checked_div(features).unwrap_or(0).saturating_mul(length);
                return pairs.saturating_mul(width.saturating_add(features).saturating_mul(2).saturating_add(3));
            }
            Op::Dropout { .. } | Op::Elu { .. } | Op::Silu => 2,
            Op::Softmax { .. } => 3,
            Op::HardSwish | Op::HardSigmoid | Op::Gelu { .. } => 4,
            Op::MultiHeadAttention { embed_dim, num_heads, .. } => {
                let length = magnitude(input.first().copied().unwrap_or(0));
                let width = magnitude(*embed_dim);
                // Four projections, and for each pair of positions a product for its weight and one for its value.
                let projections = length.saturating_mul(width).saturating_mul(width).saturating_mul(8);
                let pairs = length.saturating_mul(length);
                let weights = pairs.saturating_mul(width.saturating_mul(4).saturating_add(3 * magnitude(*num_heads)));
                return projections.saturating_add(weights);
            }
            Op::Lstm(recurrent) | Op::Gru(recurrent) => {
                let gates = if matches!(self, Op::Lstm(_)) { 4 } else { 3 };
                let length = magnitude(input.first().copied().unwrap_or(0));
                let hidden = magnitude(recurrent.hidden_size);
                let directions = magnitude(recurrent.directions());
                let layer = |size: u64| {
                    let products = hidden.saturating_mul(size.saturating_add(hidden)).saturating_mul(2 * gates);
                    products.saturating_add(hidden.saturating_mul(3 * gates)).saturating_mul(length * directions)
                };
                let later =
                    layer(hidden.saturating_mul(directions)).saturating_mul(magnitude(recurrent.num_layers - 1));
                return layer(magnitude(recurrent.input_size)).saturating_add(later);
            }
            Op::Upsample { mode, .. } => match mode {
                super::UpsampleMode::Nearest => 1,
                super::UpsampleMode::Bilinear => 8,
            },
            Op::Flatten | Op::Reshape { .. } | Op::Parameter { .. } | Op::Constant { .. } => 0,
            Op::Permute { .. } | Op::Embedding { .. } | Op::Concat { .. } | Op::Slice { .. } | Op::Select { .. } => 1,
        };
        outputs.saturating_mul(per_output)
    }
}

/// The number of elements of a shape.
pub(in crate::model) fn element_count(shape: &[i64]) -> u64 {
    shape.iter().fold(1, |count: u64, length| count.saturating_mul(magnitude(*length)))
}

fn magnitude(length: i64) -> u64 {
    u64::try_from(length).unwrap_or(0)
}
