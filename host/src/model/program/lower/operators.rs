//! What each operator becomes. Names of arguments and defaults are those of PyTorch's `native_functions.yaml`.

use super::arguments::Call;
use super::layout::{Dim, Layout};
use super::{Known, Lowering, Reason, Value, constants};
use crate::model::{GeluApproximation, Op};

impl<'d> Lowering<'d> {
    /// Lowers one node of the document.
    pub(super) fn operator(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        match call.operator() {
            "conv1d" | "conv2d" => self.convolution(call),
            "conv_transpose2d" => self.transposed_convolution(call),
            "linear" => self.linear(call),
            "batch_norm" => self.batch_norm(call),
            "layer_norm" | "rms_norm" => self.layer_norm(call),
            "group_norm" => self.group_norm(call),
            "embedding" => self.embedding(call),
            "lstm" | "gru" => self.recurrent(call),
            "max_pool2d" | "avg_pool2d" | "adaptive_avg_pool2d" => self.pool(call),
            "mean" => self.mean(call),
            "relu" => self.activation(call, Op::Relu),
            "leaky_relu" => {
                let negative_slope = call.double("negative_slope", 0.01)?;
                self.activation(call, Op::LeakyRelu { negative_slope })
            }
            "elu" => {
                if call.double("scale", 1.0)? != 1.0 || call.double("input_scale", 1.0)? != 1.0 {
                    return Err(Reason::from("it is scaled"));
                }
                let alpha = call.double("alpha", 1.0)?;
                self.activation(call, Op::Elu { alpha })
            }
            "hardswish" => self.activation(call, Op::HardSwish),
            "hardsigmoid" => self.activation(call, Op::HardSigmoid),
            "silu" => self.activation(call, Op::Silu),
            "tanh" => self.activation(call, Op::Tanh),
            "sigmoid" => self.activation(call, Op::Sigmoid),
            "gelu" => {
                let approximate = match call.text("approximate") {
                    None | Some("none") => GeluApproximation::None,
                    Some("tanh") => GeluApproximation::Tanh,
                    Some(other) => return Err(Reason::from(format!("it is approximated by `{other}`"))),
                };
                self.activation(call, Op::Gelu { approximate })
            }
            "softmax" | "_softmax" => {
                let input = self.input(call)?;
                let dim = dimension(call.integer("dim", -1)?, &input)?;
                self.value(call, Op::Softmax { dim }, &[&input])
            }
            "scaled_dot_product_attention" => self.attention(call),
            "matmul" | "mm" | "bmm" => self.matmul(call),
            "addmm" => {
                if call.double("alpha", 1.0)? != 1.0 || call.double("beta", 1.0)? != 1.0 {
                    return Err(Reason::from("it is scaled"));
                }
                self.transposed_linear(call, call.tensor("mat1")?, call.tensor("mat2")?, Some(call.tensor("self")?))
            }
            "pow" => match call.number("exponent")? {
                Some(exponent) => self.activation(call, Op::Pow { exponent }),
                None => Err(Reason::from("its exponent is no number")),
            },
            "square" => self.activation(call, Op::Pow { exponent: 2.0 }),
            "sqrt" => self.activation(call, Op::Pow { exponent: 0.5 }),
            "rsqrt" => self.activation(call, Op::Pow { exponent: -0.5 }),
            "reciprocal" => self.activation(call, Op::Pow { exponent: -1.0 }),
            "neg" => self.activation(call, Op::MultiplyScalar { other: -1.0 }),
            "clamp" | "clamp_min" | "clamp_max" | "hardtanh" | "relu6" => self.clamp(call),
            // Which values are dropped together matters only in training, which is the program's.
            "dropout" | "feature_dropout" | "alpha_dropout" | "feature_alpha_dropout" => {
                let p = call.double("p", 0.5)?;
                self.activation(call, Op::Dropout { p })
            }
            "add" | "sub" | "mul" | "div" => self.combination(call),
            "cat" => self.concatenation(call),
            "flatten" | "view" | "reshape" | "unflatten" | "unsqueeze" | "_unsafe_view" => self.reshape(call),
            // Without dimensions, it would take away a batch of one sample, too.
            "squeeze" if call.has("dim") => self.reshape(call),
            "permute" | "transpose" => self.permute(call),
            "to" | "_to_copy" => self.cast(call),
            "contiguous" | "clone" | "detach" | "alias" | "lift_fresh_copy" => self.alias(call),
            "eq" | "ne" | "lt" | "le" | "gt" | "ge" => self.comparison(call),
            "__and__" | "logical_and" | "bitwise_and" => self.conjunction(call),
            "logical_not" | "bitwise_not" => self.negation(call),
            "index" => self.index(call),
            "slice" => self.slice(call),
            "select" => self.select(call),
            "unbind" => self.unbind(call),
            "split" | "split_with_sizes" | "chunk" | "unsafe_split" | "unsafe_chunk" | "tensor_split" => {
                self.split(call)
            }
            "expand" => self.expand(call),
            "zeros" | "new_zeros" | "zeros_like" => {
                self.values.insert(call.output()?, Value::Zeros);
                Ok(())
            }
            // Sizes and checks: the graph's sizes are fixed.
            "sym_size"
            | "_operator"
            | "_assert_tensor_metadata"
            | "_assert_async"
            | "_assert_scalar"
            | "sym_constrain_range"
            | "sym_constrain_range_for_size"
            | "_functional_assert_async" => {
                for size in call.sizes() {
                    self.values.insert(size, Value::Size);
                }
                Ok(())
            }
            _ => self.unknown(call),
        }
    }

    /// An operator that the graph does not have; the reason is that of the first one on the way to it.
    fn unknown(&self, call: &Call<'d>) -> Result<(), Reason> {
        let missing = call.reads().find_map(|name| match self.values.get(name) {
            Some(Value::Missing(reason)) => Some(reason.clone()),
            _ => None,
        });
        Err(missing.unwrap_or_else(|| Reason::from("the graph has no such operator")))
    }

    /// The value that a node reads first.
    pub(super) fn input(&mut self, call: &Call<'d>) -> Result<Known, Reason> {
        let first = call.first()?;
        if call.is_in_place() && matches!(self.values.get(first), Some(Value::Tensor(_))) {
            return Err(Reason::from(format!("it changes the tensor `{first}` of the model in place")));
        }
        self.read(first)
    }

    /// The value that a node reads first, which must begin with the batch.
    pub(super) fn plain_input(&mut self, call: &Call<'d>) -> Result<Known, Reason> {
        let input = self.input(call)?;
        if !input.layout.is_plain() {
            return Err(Reason::from("what it reads does not begin with the batch"));
        }
        Ok(input)
    }

    /// An operator of one value, without tensors.
    pub(super) fn activation(&mut self, call: &Call<'d>, op: Op) -> Result<(), Reason> {
        let input = self.input(call)?;
        self.value(call, op, &[&input])
    }

    fn clamp(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let (least, most) = match call.operator() {
            "hardtanh" => (Some(call.double("min_val", -1.0)?), Some(call.double("max_val", 1.0)?)),
            "relu6" => (Some(0.0), Some(6.0)),
            _ => (call.number("min")?, call.number("max")?),
        };
        if least.is_none() && most.is_none() {
            return Err(Reason::from("its limits are no numbers"));
        }
        let has_infinite = [least, most].into_iter().flatten().any(|limit| !limit.is_finite());
        if has_infinite {
            return Err(Reason::from("its limits are not finite"));
        }
        self.activation(call, Op::Clamp { min: least, max: most })
    }

    /// The sum, the difference, the product or the quotient of two values, or of one and a number.
    fn combination(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        if self.counts_batches(call) {
            return Ok(());
        }
        if call.double("alpha", 1.0)? != 1.0 {
            return Err(Reason::from("its second value is scaled"));
        }
        if call.has("rounding_mode") {
            return Err(Reason::from("it is rounded"));
        }
        let number = match call.optional_tensor("other") {
            Ok(Some(other)) => match self.values.get(other) {
                Some(Value::Constant(value)) => constants::number(value),
                _ => None,
            },
            _ => call.number("other")?,
        };
        if let Some(number) = number {
            let op = match call.operator() {
                "add" => Op::AddScalar { other: number },
                "sub" => Op::AddScalar { other: -number },
                "mul" => Op::MultiplyScalar { other: number },
                _ => Op::MultiplyScalar { other: number.recip() },
            };
            return self.activation(call, op);
        }
        let op = match call.operator() {
            "add" => Op::Add,
            "sub" => Op::Subtract,
            "mul" => Op::Multiply,
            _ => Op::Divide,
        };
        let left = self.input(call)?;
        let right = self.read(call.tensor("other")?)?;
        let layout = combined([&left, &right])?;
        let layout = match layout {
            Some(layout) => layout,
            None => Layout::of(&self.extents(call.output()?)?)?.0,
        };
        self.value_as(call, call.output()?, op, &[&left, &right], layout)
    }

    /// Whether it counts the batches of a batch norm, which is part of that.
    fn counts_batches(&mut self, call: &Call<'d>) -> bool {
        let (Some(counter), Ok(output)) = (call.first_tensor(), call.output()) else { return false };
        let Some(Value::Tensor(name)) = self.values.get(counter) else { return false };
        if !call.is_in_place() || !name.ends_with("num_batches_tracked") {
            return false;
        }
        let value = Value::Tensor(name.clone());
        self.values.insert(output, value);
        true
    }

    fn concatenation(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let inputs = call.tensors("tensors")?;
        let inputs = inputs.into_iter().map(|name| self.read(name)).collect::<Result<Vec<_>, _>>()?;
        let first = inputs.first().ok_or_else(|| Reason::from("it has no values"))?;
        if inputs.iter().any(|input| input.layout != first.layout) {
            return Err(Reason::from("its values have the batch in other places"));
        }
        let dim = dimension(call.integer("dim", 0)?, first)?;
        self.value(call, Op::Concat { dim }, &inputs.iter().collect::<Vec<_>>())
    }

    /// The product of matrices; one with a matrix of the model is a layer.
    fn matmul(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let left = call.first()?;
        let right = match call.operator() {
            "matmul" => call.tensor("other")?,
            _ => call.tensor("mat2")?,
        };
        if let Some(Value::Tensor(_)) = self.values.get(right)
            && self.tensor_shape(self.tensor(right)?).len() == 2
        {
            return self.transposed_linear(call, left, right, None);
        }
        let (left, right) = (self.read(left)?, self.read(right)?);
        if left.layout != right.layout || !left.layout.ends_with_sample(left.shape.len(), 2) {
            return Err(Reason::from("its values have the batch in other places"));
        }
        self.value(call, Op::Matmul, &[&left, &right])
    }

    /// A mean; that over the pixels of images is a pool.
    fn mean(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let dims = call.integers("dim")?.filter(|dims| !dims.is_empty());
        let dims = dims.ok_or_else(|| Reason::from("it works along the batch"))?;
        let mut dims = dims.iter().map(|dim| dimension(*dim, &input)).collect::<Result<Vec<_>, _>>()?;
        dims.sort_unstable();
        let keepdim = call.flag("keepdim", false)?;
        if input.shape.len() != 3 || dims != [1, 2] || !input.layout.is_plain() {
            if !keepdim && !input.layout.is_plain() {
                return Err(Reason::from("what it reads does not begin with the batch"));
            }
            return self.value(call, Op::Mean { dims, keepdim }, &[&input]);
        }
        let pool = Op::AdaptiveAvgPool2d { output_size: [1, 1] };
        if keepdim {
            return self.value(call, pool, &[&input]);
        }
        let output = call.output()?;
        let name = self.unique(&format!("{output}_pool"));
        let shape = self.inner((output, input.layout), &name, pool, &[&input], &[])?;
        let pooled = Known { name, shape, ..input };
        self.value(call, Op::Flatten, &[&pooled])
    }

    fn pool(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.plain_input(call)?;
        let op = if call.operator() == "adaptive_avg_pool2d" {
            Op::AdaptiveAvgPool2d { output_size: call.sized("output_size", 1)? }
        } else {
            let kernel_size = call.sized("kernel_size", 1)?;
            let stride = match call.integers("stride")?.as_deref() {
                None | Some([]) => kernel_size,
                Some(_) => call.sized("stride", 1)?,
            };
            let padding = call.sized("padding", 0)?;
            if call.sized::<2>("dilation", 1)? != [1, 1] {
                return Err(Reason::from("its window is dilated"));
            }
            if call.has("divisor_override") {
                return Err(Reason::from("its divisor is given"));
            }
            match call.operator() {
                "max_pool2d" => Op::MaxPool2d { kernel_size, stride, padding },
                _ => {
                    let count_include_pad = call.flag("count_include_pad", true)?;
                    Op::AvgPool2d { kernel_size, stride, padding, count_include_pad }
                }
            }
        };
        // `ceil_mode` matters only where it gives another shape, which is told.
        self.value(call, op, &[&input])
    }
}

impl<'d> Call<'d> {
    /// The name of the value that it reads first.
    pub(super) fn first(&self) -> Result<&'d str, Reason> {
        self.first_tensor().ok_or_else(|| Reason::from("it reads no tensor first"))
    }

    /// Whether a slice takes everything.
    pub(super) fn is_whole(&self) -> bool {
        let is_first = matches!(self.integer("start", 0), Ok(0));
        let is_all = matches!(self.integer("end", i64::MAX), Ok(i64::MAX));
        is_first && is_all && matches!(self.integer("step", 1), Ok(1))
    }
}

/// A dimension of a value as one of a sample.
pub(super) fn dimension(dim: i64, value: &Known) -> Result<usize, Reason> {
    let dims = value.layout.dims(value.shape.len());
    let place = if dim < 0 { dim.saturating_add(dims.len() as i64) } else { dim };
    match usize::try_from(place).ok().and_then(|place| dims.get(place)) {
        Some(Dim::Sample(dim)) => Ok(*dim),
        Some(Dim::Batch) => Err(Reason::from("it works along the batch")),
        None => Err(Reason::from(format!("it has no dimension {dim}"))),
    }
}

/// Where the batch is in a value that is made of two, element by element; `None` if both are the same for each sample.
pub(super) fn combined(values: [&Known; 2]) -> Result<Option<Layout>, Reason> {
    let elsewhere = || Reason::from("its values have the batch in other places");
    let [left, right] = values;
    let (batched, other) = match (left.layout.is_batched(), right.layout.is_batched()) {
        (false, false) => return Ok(None),
        (true, true) if left.layout == right.layout && left.shape.len() == right.shape.len() => {
            return Ok(Some(left.layout));
        }
        (true, true) => return Err(elsewhere()),
        (true, false) => (left, right),
        (false, true) => (right, left),
    };
    // Values are aligned at their last dimension: that of 1, or none, must meet the batch.
    let dims = batched.layout.dims(batched.shape.len());
    let behind = dims.iter().rev().take_while(|dim| **dim != Dim::Batch).count();
    let length = other.layout.dims(other.shape.len()).len();
    let meets = length <= behind || (length == behind + 1 && other.layout == Layout::One);
    if meets { Ok(Some(batched.layout)) } else { Err(elsewhere()) }
}
