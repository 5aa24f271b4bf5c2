//! The output shape of an operator, and the inputs that it rejects.

use super::{Op, Recurrent, cost::element_count};

/// Why an operator cannot be applied; the caller knows its place.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::model) enum Misfit {
    Shape { expected: String, found: Vec<i64> },
    Option { option: &'static str, value: String, expected: &'static str },
}

type Shape = Result<Vec<i64>, Misfit>;

/// The shapes of an operator.
pub(in crate::model) trait OutputShape {
    /// The output shape for `inputs`; there must be as many as it takes.
    fn output_shape(&self, inputs: &[&[i64]]) -> Shape;
}

impl OutputShape for Op {
    fn output_shape(&self, inputs: &[&[i64]]) -> Shape {
        let input = inputs.first().copied().unwrap_or_default();
        match self {
            Op::Linear { in_features, out_features, .. } => {
                positive("out_features", *out_features)?;
                let mut shape = input.to_vec();
                match shape.last_mut() {
                    Some(last) if *last == *in_features => *last = *out_features,
                    _ => return misfit(format!("{in_features} features in the last dimension"), input),
                }
                Ok(shape)
            }
            Op::Conv1d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, .. } => {
                let [channels, length] = sequence_of_channels(input)?;
                check_channels([*in_channels, *out_channels], channels, *groups, input)?;
                let axis = Axis { kernel_size: *kernel_size, stride: *stride, padding: *padding, dilation: *dilation };
                Ok(vec![*out_channels, axis.output_size(length, input)?])
            }
            Op::Conv2d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, .. } => {
                let [channels, height, width] = image(input)?;
                check_channels([*in_channels, *out_channels], channels, *groups, input)?;
                let [height, width] = slide([height, width], *kernel_size, *stride, *padding, *dilation, input)?;
                Ok(vec![*out_channels, height, width])
            }
            Op::ConvTranspose2d {
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                output_padding,
                dilation,
                groups,
                ..
            } => {
                let [channels, height, width] = image(input)?;
                check_channels([*in_channels, *out_channels], channels, *groups, input)?;
                let mut shape = vec![*out_channels];
                for (axis, size) in [height, width].into_iter().enumerate() {
                    let window = Axis {
                        kernel_size: kernel_size[axis],
                        stride: stride[axis],
                        padding: padding[axis],
                        dilation: dilation[axis],
                    };
                    shape.push(window.transposed_size(size, output_padding[axis], input)?);
                }
                Ok(shape)
            }
            Op::BatchNorm { num_features, eps, momentum } => {
                positive_number("eps", *eps)?;
                probability("momentum", *momentum)?;
                match input {
                    [features] | [features, _] | [features, _, _] if features == num_features => Ok(input.to_vec()),
                    _ => misfit(
                        format!("a vector of {num_features} values, or {num_features} channels of a sequence or image"),
                        input,
                    ),
                }
            }
            Op::LayerNorm { normalized_shape, eps } | Op::RmsNorm { normalized_shape, eps } => {
                positive_number("eps", *eps)?;
                if normalized_shape.is_empty() || !input.ends_with(normalized_shape) {
                    return misfit(format!("{normalized_shape:?} as its last dimensions"), input);
                }
                Ok(input.to_vec())
            }
            Op::GroupNorm { num_groups, num_channels, eps } => {
                positive_number("eps", *eps)?;
                positive("num_groups", *num_groups)?;
                if num_channels % num_groups != 0 {
                    return refuse("num_groups", num_groups, "a divisor of the channels");
                }
                match input {
                    [channels, ..] if channels == num_channels => Ok(input.to_vec()),
                    _ => misfit(format!("{num_channels} channels"), input),
                }
            }
            Op::MaxPool2d { kernel_size, stride, padding } | Op::AvgPool2d { kernel_size, stride, padding, .. } => {
                let [channels, height, width] = image(input)?;
                if padding.iter().zip(kernel_size).any(|(padding, kernel)| *padding > kernel / 2) {
                    return refuse("padding", format!("{padding:?}"), "at most half of `kernel_size`");
                }
                let [height, width] = slide([height, width], *kernel_size, *stride, *padding, [1, 1], input)?;
                Ok(vec![channels, height, width])
            }
            Op::AdaptiveAvgPool2d { output_size } => {
                let [channels, ..] = image(input)?;
                for length in output_size {
                    positive("output_size", *length)?;
                }
                Ok(vec![channels, output_size[0], output_size[1]])
            }
            Op::LeakyRelu { negative_slope: value } | Op::Elu { alpha: value } => {
                let option = if matches!(self, Op::Elu { .. }) { "alpha" } else { "negative_slope" };
                if !(*value >= 0.0 && value.is_finite()) {
                    return refuse(option, value, "at least 0 and finite");
                }
                Ok(input.to_vec())
            }
            Op::Relu | Op::HardSwish | Op::HardSigmoid | Op::Gelu { .. } | Op::Silu | Op::Tanh | Op::Sigmoid => {
                Ok(input.to_vec())
            }
            Op::AddScalar { other: value } | Op::MultiplyScalar { other: value } | Op::Pow { exponent: value } => {
                finite(if matches!(self, Op::Pow { .. }) { "exponent" } else { "other" }, *value)?;
                Ok(input.to_vec())
            }
            Op::ToFloat => Ok(input.to_vec()),
            Op::Compare { other, .. } => {
                finite("other", *other)?;
                Ok(input.to_vec())
            }
            Op::Clamp { min, max } => {
                min.map_or(Ok(()), |min| finite("min", min))?;
                max.map_or(Ok(()), |max| finite("max", max))?;
                if min.zip(*max).is_some_and(|(min, max)| min > max) {
                    return refuse("min", min.unwrap_or_default(), "at most `max`");
                }
                Ok(input.to_vec())
            }
            Op::Softmax { dim } => {
                if *dim >= input.len() {
                    return misfit(format!("more than {dim} dimensions"), input);
                }
                Ok(input.to_vec())
            }
            Op::Flatten => Ok(vec![i64::try_from(element_count(input)).unwrap_or(i64::MAX)]),
            Op::Reshape { shape } => {
                for length in shape {
                    positive("shape", *length)?;
                }
                if element_count(shape) != element_count(input) {
                    return misfit(format!("{} values, like {shape:?}", element_count(shape)), input);
                }
                Ok(shape.clone())
            }
            Op::Permute { dims } => {
                let mut sorted = dims.clone();
                sorted.sort_unstable();
                if sorted.iter().copied().ne(0..input.len()) {
                    return misfit(format!("{} dimensions, each of them once in {dims:?}", dims.len()), input);
                }
                Ok(dims.iter().map(|dim| input[*dim]).collect())
            }
            Op::Dropout { p } => {
                probability("p", *p)?;
                Ok(input.to_vec())
            }
            Op::Embedding { num_embeddings, embedding_dim } => {
                positive("num_embeddings", *num_embeddings)?;
                positive("embedding_dim", *embedding_dim)?;
                Ok(input.iter().copied().chain([*embedding_dim]).collect())
            }
            Op::PositionalEmbedding { max_length, embedding_dim } => {
                positive("max_length", *max_length)?;
                let [length, features] = sequence(input)?;
                if features != *embedding_dim || length > *max_length {
                    return misfit(format!("a sequence of at most {max_length} positions"), input);
                }
                Ok(input.to_vec())
            }
            Op::MultiHeadAttention { embed_dim, num_heads, dropout, .. } => {
                positive("num_heads", *num_heads)?;
                probability("dropout", *dropout)?;
                let [_, features] = sequence(input)?;
                if embed_dim % num_heads != 0 {
                    return refuse("num_heads", num_heads, "a divisor of the features");
                }
                if features != *embed_dim {
                    return misfit(format!("{embed_dim} features in the last dimension"), input);
                }
                Ok(input.to_vec())
            }
            Op::Lstm(recurrent) | Op::Gru(recurrent) => recurrent_shape(recurrent, input),
            Op::Upsample { scale_factor, .. } => {
                let [channels, height, width] = image(input)?;
                for factor in scale_factor {
                    positive("scale_factor", *factor)?;
                }
                Ok(vec![channels, height.saturating_mul(scale_factor[0]), width.saturating_mul(scale_factor[1])])
            }
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide => match inputs {
                [left, right] => broadcast(left, right),
                _ => misfit("two values".to_owned(), input),
            },
            Op::Concat { dim } => concatenated(inputs, *dim),
            Op::Mean { dims, keepdim } => mean_shape(input, dims, *keepdim),
            Op::Slice { dim, start, end, step } => {
                let length = length_of(input, *dim)?;
                positive("step", *step)?;
                if *start < 0 || *start >= *end || *end > length {
                    return refuse("start", start, "below `end`, which is at most the length");
                }
                let mut shape = input.to_vec();
                shape[*dim] = (end - start - 1) / step + 1;
                Ok(shape)
            }
            Op::Select { dim, index } => {
                if !(0..length_of(input, *dim)?).contains(index) {
                    return refuse("index", index, "an index of the dimension");
                }
                let mut shape = input.to_vec();
                shape.remove(*dim);
                Ok(shape)
            }
            Op::Matmul => match inputs {
                [left, right] => product(left, right),
                _ => misfit("two values".to_owned(), input),
            },
            Op::ScaledDotProductAttention { is_causal, scale, dropout, is_boolean: _ } => {
                finite("scale", *scale)?;
                probability("dropout", *dropout)?;
                attention_shape(inputs, *is_causal)
            }
            Op::Parameter { shape, .. } => {
                for length in shape {
                    positive("shape", *length)?;
                }
                Ok(without_batch(shape).to_vec())
            }
            Op::Constant { shape, values } => {
                for length in shape {
                    positive("shape", *length)?;
                }
                if element_count(shape) != values.len() as u64 {
                    return refuse("values", values.len(), "as many as the shape says");
                }
                Ok(shape.clone())
            }
        }
    }
}

/// The shape that is left of a tensor that is the same for each sample: a first dimension of 1 is the batch.
fn without_batch(shape: &[i64]) -> &[i64] {
    match shape {
        [1, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    }
}

/// The shape of two values that are combined element by element, aligned at the last dimension (`torch.broadcast_shapes`).
fn broadcast(left: &[i64], right: &[i64]) -> Shape {
    let rank = left.len().max(right.len());
    let at = |shape: &[i64], place: usize| (place + shape.len()).checked_sub(rank).map_or(1, |place| shape[place]);
    (0..rank)
        .map(|place| match (at(left, place), at(right, place)) {
            (one, other) if one == other || other == 1 => Ok(one),
            (1, other) => Ok(other),
            _ => misfit(format!("two values whose shapes can be broadcast, the first {left:?}"), right),
        })
        .collect()
}

/// The length of a dimension.
fn length_of(shape: &[i64], dim: usize) -> Result<i64, Misfit> {
    shape
        .get(dim)
        .copied()
        .ok_or_else(|| Misfit::Shape { expected: format!("more than {dim} dimensions"), found: shape.to_vec() })
}

fn mean_shape(input: &[i64], dims: &[usize], keepdim: bool) -> Shape {
    let is_ascending = dims.windows(2).all(|pair| pair[0] < pair[1]);
    if dims.is_empty() || !is_ascending || dims.iter().any(|dim| *dim >= input.len()) {
        return misfit(format!("the dimensions {dims:?}, in ascending order"), input);
    }
    let length = |(dim, length): (usize, &i64)| match (dims.contains(&dim), keepdim) {
        (true, false) => None,
        (true, true) => Some(1),
        (false, _) => Some(*length),
    };
    Ok(input.iter().enumerate().filter_map(length).collect())
}

/// `[…, n, k]` times `[…, k, m]`.
fn product(left: &[i64], right: &[i64]) -> Shape {
    match (left, right) {
        ([before @ .., rows, inner], [others @ .., other, columns]) if before == others && inner == other => {
            Ok(before.iter().copied().chain([*rows, *columns]).collect())
        }
        _ => misfit(format!("matrices that {left:?} can be multiplied with"), right),
    }
}

fn attention_shape(inputs: &[&[i64]], is_causal: bool) -> Shape {
    let [query, key, value, mask @ ..] = inputs else { return misfit("query, key and value".to_owned(), &[]) };
    let ([heads @ .., length, width], [of_key @ .., keys, of_products], [of_value @ .., values, features]) =
        (*query, *key, *value)
    else {
        return misfit("values of shape [..., length, features]".to_owned(), query);
    };
    if heads != of_key || heads != of_value || width != of_products || keys != values {
        return misfit(format!("a key and a value that fit the query {query:?} and the value {value:?}"), key);
    }
    if is_causal && (length != keys || !mask.is_empty()) {
        return misfit(format!("{length} positions, and no mask, where it is causal"), key);
    }
    if let [mask] = mask {
        let scores: Vec<i64> = heads.iter().copied().chain([*length, *keys]).collect();
        if broadcast(&scores, mask)? != scores {
            return misfit(format!("a mask for {scores:?}"), mask);
        }
    }
    Ok(heads.iter().copied().chain([*length, *features]).collect())
}

fn recurrent_shape(recurrent: &Recurrent, input: &[i64]) -> Shape {
    positive("hidden_size", recurrent.hidden_size)?;
    // Each layer has its own tensors.
    if !(1..=1024).contains(&recurrent.num_layers) {
        return refuse("num_layers", recurrent.num_layers, "from 1 to 1024");
    }
    probability("dropout", recurrent.dropout)?;
    let [length, features] = sequence(input)?;
    if features != recurrent.input_size {
        return misfit(format!("{} features in the last dimension", recurrent.input_size), input);
    }
    let width = recurrent.hidden_size * recurrent.directions();
    Ok(if recurrent.last_only { vec![width] } else { vec![length, width] })
}

fn concatenated(inputs: &[&[i64]], dim: usize) -> Shape {
    let Some((first, others)) = inputs.split_first() else {
        return misfit("at least two values".to_owned(), &[]);
    };
    let mut shape = first.to_vec();
    for other in others {
        let fits = other.len() == first.len()
            && dim < first.len()
            && (0..first.len()).all(|axis| axis == dim || other[axis] == first[axis]);
        if !fits {
            return misfit(format!("a shape that differs from {first:?} only in dimension {dim}"), other);
        }
        shape[dim] = shape[dim].saturating_add(other[dim]);
    }
    Ok(shape)
}

fn misfit<T>(expected: String, found: &[i64]) -> Result<T, Misfit> {
    Err(Misfit::Shape { expected, found: found.to_vec() })
}

fn refuse<T>(option: &'static str, value: impl ToString, expected: &'static str) -> Result<T, Misfit> {
    Err(Misfit::Option { option, value: value.to_string(), expected })
}

fn image(shape: &[i64]) -> Result<[i64; 3], Misfit> {
    match shape {
        [channels, height, width] => Ok([*channels, *height, *width]),
        _ => misfit("an image of shape [channels, height, width]".to_owned(), shape),
    }
}

fn sequence(shape: &[i64]) -> Result<[i64; 2], Misfit> {
    match shape {
        [length, features] => Ok([*length, *features]),
        _ => misfit("a sequence of shape [length, features]".to_owned(), shape),
    }
}

fn sequence_of_channels(shape: &[i64]) -> Result<[i64; 2], Misfit> {
    match shape {
        [channels, length] => Ok([*channels, *length]),
        _ => misfit("a sequence of shape [channels, length]".to_owned(), shape),
    }
}

/// `channels` is the number of channels of `input`.
fn check_channels([inputs, outputs]: [i64; 2], channels: i64, groups: i64, input: &[i64]) -> Result<(), Misfit> {
    positive("out_channels", outputs)?;
    positive("groups", groups)?;
    if channels != inputs {
        return misfit(format!("{inputs} channels"), input);
    }
    if channels % groups != 0 || outputs % groups != 0 {
        return refuse("groups", groups, "a divisor of the channels of input and output");
    }
    Ok(())
}

fn positive(option: &'static str, value: i64) -> Result<(), Misfit> {
    // Larger sizes do not fit any memory, and sums and products of sizes must not overflow.
    if (1..=i64::from(u32::MAX)).contains(&value) {
        return Ok(());
    }
    refuse(option, value, "a positive 32-bit number")
}

fn positive_number(option: &'static str, value: f64) -> Result<(), Misfit> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    refuse(option, value, "above 0")
}

fn finite(option: &'static str, value: f64) -> Result<(), Misfit> {
    if value.is_finite() {
        return Ok(());
    }
    refuse(option, value, "finite")
}

/// 1 is allowed, as in PyTorch.
fn probability(option: &'static str, value: f64) -> Result<(), Misfit> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    refuse(option, value, "between 0 and 1")
}

/// The output size of a window that slides over an image.
fn slide(
    size: [i64; 2],
    kernel_size: [i64; 2],
    stride: [i64; 2],
    padding: [i64; 2],
    dilation: [i64; 2],
    input: &[i64],
) -> Result<[i64; 2], Misfit> {
    let mut output = [0; 2];
    for (axis, output) in output.iter_mut().enumerate() {
        let window = Axis {
            kernel_size: kernel_size[axis],
            stride: stride[axis],
            padding: padding[axis],
            dilation: dilation[axis],
        };
        *output = window.output_size(size[axis], input)?;
    }
    Ok(output)
}

/// A window along one dimension.
struct Axis {
    kernel_size: i64,
    stride: i64,
    padding: i64,
    dilation: i64,
}

impl Axis {
    /// `floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`, as `torch.nn.Conv2d` documents it.
    fn output_size(&self, size: i64, input: &[i64]) -> Result<i64, Misfit> {
        let extent = self.extent()?;
        let padded = size.saturating_add(2 * self.padding);
        if extent > padded {
            return misfit(format!("at least {extent} values along the kernel, {padded} with padding"), input);
        }
        Ok((padded - extent) / self.stride + 1)
    }

    /// `(size - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1`, as `torch.nn.ConvTranspose2d`
    /// documents it.
    fn transposed_size(&self, size: i64, output_padding: i64, input: &[i64]) -> Result<i64, Misfit> {
        let extent = self.extent()?;
        if !(0..self.stride.max(self.dilation)).contains(&output_padding) {
            return refuse("output_padding", output_padding, "at least 0, and below the stride or the dilation");
        }
        let spread = (size - 1).saturating_mul(self.stride).saturating_add(extent).saturating_add(output_padding);
        match spread.saturating_sub(2 * self.padding) {
            size if size > 0 => Ok(size),
            _ => misfit(format!("a size from which {} can be cut on each side", self.padding), input),
        }
    }

    fn extent(&self) -> Result<i64, Misfit> {
        positive("kernel_size", self.kernel_size)?;
        positive("stride", self.stride)?;
        positive("dilation", self.dilation)?;
        if self.padding != 0 {
            positive("padding", self.padding)?;
        }
        Ok(self.dilation.saturating_mul(self.kernel_size - 1) + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::{Device, Kind, Tensor};

    use super::super::Comparison;
    use super::*;

    fn attention(is_causal: bool) -> Op {
        Op::ScaledDotProductAttention { is_causal, scale: 1.0, dropout: 0.0, is_boolean: false }
    }

    #[test]
    fn shapes_of_attention_and_products_follow_their_inputs() {
        let (query, key, value) = (&[2i64, 5, 4][..], &[2i64, 7, 4][..], &[2i64, 7, 3][..]);
        assert_eq!(attention(false).output_shape(&[query, key, value]), Ok(vec![2, 5, 3]));
        assert_eq!(attention(false).output_shape(&[query, key, value, &[5, 7]]), Ok(vec![2, 5, 3]));
        assert_eq!(Op::Matmul.output_shape(&[query, &[2, 4, 6]]), Ok(vec![2, 5, 6]));
        let misfits: [(Op, &[&[i64]]); 6] = [
            (attention(true), &[query, key, value]),
            (attention(false), &[query, &[3, 7, 4], value]),
            (attention(false), &[query, key, &[2, 6, 3]]),
            (attention(false), &[query, key, value, &[3, 7]]),
            (Op::Matmul, &[query, key]),
            (Op::Matmul, &[query, &[4, 6]]),
        ];
        for (op, inputs) in misfits {
            assert!(op.output_shape(inputs).is_err(), "{inputs:?}");
        }
    }

    #[test]
    fn options_that_no_value_has_are_refused() {
        let ops = [
            Op::Slice { dim: 0, start: 2, end: 2, step: 1 },
            Op::Slice { dim: 0, start: 0, end: 9, step: 1 },
            Op::Slice { dim: 0, start: 0, end: 4, step: 0 },
            Op::Slice { dim: 2, start: 0, end: 1, step: 1 },
            Op::Select { dim: 1, index: 5 },
            Op::Select { dim: 0, index: -1 },
            Op::Mean { dims: vec![1, 0], keepdim: false },
            Op::Mean { dims: vec![2], keepdim: false },
            Op::Clamp { min: Some(1.0), max: Some(0.0) },
            Op::Pow { exponent: f64::NAN },
            Op::Compare { comparison: Comparison::Less, other: f64::INFINITY },
            Op::Constant { shape: vec![2], values: vec![1] },
            Op::Parameter { shape: vec![0], is_buffer: false },
        ];
        for op in ops {
            assert!(op.output_shape(&[&[4, 5]]).is_err(), "{op:?}");
        }
    }

    proptest! {
        #[test]
        fn shapes_are_broadcast_as_in_libtorch(
            left in prop::collection::vec(1i64..4, 0..4),
            right in prop::collection::vec(1i64..4, 0..4),
        ) {
            let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
            let expected = zeros(&left).f_add(&zeros(&right)).map(|sum| sum.size());
            prop_assert_eq!(broadcast(&left, &right).ok(), expected.ok());
        }

        #[test]
        fn slices_are_as_long_as_in_libtorch(start in 0i64..6, end in 0i64..8, step in 1i64..4) {
            let found = Op::Slice { dim: 0, start, end, step }.output_shape(&[&[7, 2]]);
            let taken = Tensor::zeros([7, 2], (Kind::Float, Device::Cpu)).slice(0, start, end, step).size();
            prop_assert_eq!(found.ok(), (start < end && end <= 7).then_some(taken));
        }
    }
}
