//! What each operator becomes. Names of arguments and defaults are those of PyTorch's `native_functions.yaml`.

use super::arguments::Call;
use super::{Known, Lowering, Reason, Value};
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
            "softmax" => {
                let input = self.input(call)?;
                let dim = dimension(call.integer("dim", -1)?, &input.shape)?;
                self.value(call, Op::Softmax { dim }, &[&input])
            }
            // Which values are dropped together matters only in training, which is the program's.
            "dropout" | "feature_dropout" | "alpha_dropout" | "feature_alpha_dropout" => {
                let p = call.double("p", 0.5)?;
                self.activation(call, Op::Dropout { p })
            }
            "add" | "mul" => self.combination(call),
            "cat" => self.concatenation(call),
            "flatten" | "view" | "reshape" | "unflatten" | "unsqueeze" => self.reshape(call),
            // Without dimensions, it would take away a batch of one sample, too.
            "squeeze" if call.has("dim") => self.reshape(call),
            "permute" | "transpose" => self.permute(call),
            "contiguous" | "clone" | "detach" | "alias" | "to" | "lift_fresh_copy" => self.alias(call, call.first()?),
            "slice" if call.is_whole() => self.alias(call, call.first()?),
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
    pub(super) fn input(&self, call: &Call<'d>) -> Result<Known, Reason> {
        self.known(call.first()?)
    }

    /// An operator of one value, without tensors.
    fn activation(&mut self, call: &Call<'d>, op: Op) -> Result<(), Reason> {
        let input = self.input(call)?;
        self.value(call, op, &[&input])
    }

    /// The sum or the product of two values.
    fn combination(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        if self.counts_batches(call) {
            return Ok(());
        }
        let is_sum = call.operator() == "add";
        let left = self.input(call)?;
        let Ok(Some(other)) = call.optional_tensor("other") else {
            return Err(Reason::from("one of its values is a number, which the graph does not have"));
        };
        if is_sum && call.double("alpha", 1.0)? != 1.0 {
            return Err(Reason::from("its second value is scaled"));
        }
        let right = self.known(other)?;
        if left.shape.len() != right.shape.len() {
            return Err(Reason::from(format!(
                "it {} values of the shapes {:?} and {:?}, and the graph's have as many dimensions",
                if is_sum { "adds" } else { "multiplies" },
                left.shape,
                right.shape
            )));
        }
        let op = if is_sum { Op::Add } else { Op::Multiply };
        self.value(call, op, &[&left, &right])
    }

    /// Whether it counts the batches of a batch norm, which is part of that.
    fn counts_batches(&mut self, call: &Call<'d>) -> bool {
        let (Some(counter), Ok(output)) = (call.first_tensor(), call.output()) else { return false };
        let Some(value @ Value::Tensor(name)) = self.values.get(counter) else { return false };
        if !call.is_in_place() || !name.ends_with("num_batches_tracked") {
            return false;
        }
        let value = value.clone();
        self.values.insert(output, value);
        true
    }

    fn concatenation(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let inputs = call.tensors("tensors")?;
        let inputs = inputs.into_iter().map(|name| self.known(name)).collect::<Result<Vec<_>, _>>()?;
        let first = inputs.first().ok_or_else(|| Reason::from("it has no values"))?;
        let dim = dimension(call.integer("dim", 0)?, &first.shape)?;
        self.value(call, Op::Concat { dim }, &inputs.iter().collect::<Vec<_>>())
    }

    /// The same values in the shape that the document says.
    fn reshape(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let shape = self.sample_shape(call.output()?)?;
        if shape == input.shape {
            return self.alias(call, call.first()?);
        }
        let op = if shape.len() == 1 { Op::Flatten } else { Op::Reshape { shape } };
        self.value(call, op, &[&input])
    }

    fn permute(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let mut dims: Vec<usize> = (0..input.shape.len()).collect();
        if call.operator() == "transpose" {
            let place = |name, default| dimension(call.integer(name, default)?, &input.shape);
            dims.swap(place("dim0", 0)?, place("dim1", 1)?);
        } else {
            let given = call.integers("dims")?.ok_or_else(|| Reason::from("it has no `dims`"))?;
            match given.split_first() {
                Some((0, others)) => {
                    dims = others.iter().map(|dim| dimension(*dim, &input.shape)).collect::<Result<_, _>>()?;
                }
                _ => return Err(Reason::from("it moves the batch")),
            }
        }
        if dims.is_sorted() && dims.len() == input.shape.len() {
            return self.alias(call, call.first()?);
        }
        self.value(call, Op::Permute { dims }, &[&input])
    }

    /// The mean over the pixels of images.
    fn mean(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let dims = call.integers("dim")?.unwrap_or_default();
        let mut dims = dims.iter().map(|dim| dimension(*dim, &input.shape)).collect::<Result<Vec<_>, _>>()?;
        dims.sort_unstable();
        if input.shape.len() != 3 || dims != [1, 2] {
            return Err(Reason::from(format!(
                "it is a mean of values of the shape {:?} that is not over images",
                input.shape
            )));
        }
        let pool = Op::AdaptiveAvgPool2d { output_size: [1, 1] };
        if call.flag("keepdim", false)? {
            return self.value(call, pool, &[&input]);
        }
        let output = call.output()?;
        let name = self.unique(&format!("{output}_pool"));
        let shape = self.inner(output, &name, pool, &[&input])?;
        let pooled = Known { name, shape, ..input };
        self.value(call, Op::Flatten, &[&pooled])
    }

    fn pool(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
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
    fn first(&self) -> Result<&'d str, Reason> {
        self.first_tensor().ok_or_else(|| Reason::from("it reads no tensor first"))
    }

    /// Whether a slice takes everything.
    pub(super) fn is_whole(&self) -> bool {
        let is_first = matches!(self.integer("start", 0), Ok(0));
        let is_all = matches!(self.integer("end", i64::MAX), Ok(i64::MAX));
        is_first && is_all && matches!(self.integer("step", 1), Ok(1))
    }
}

/// A dimension of a batch as one of a sample of `shape`.
pub(super) fn dimension(dim: i64, shape: &[i64]) -> Result<usize, Reason> {
    let rank = shape.len() as i64 + 1;
    let dim = if dim < 0 { dim + rank } else { dim };
    match usize::try_from(dim - 1) {
        Ok(place) if place < shape.len() => Ok(place),
        Err(_) if dim == 0 => Err(Reason::from("it is over the batch")),
        _ => Err(Reason::from(format!("it has no dimension {dim}"))),
    }
}
