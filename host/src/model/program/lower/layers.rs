//! Operators that read tensors of the model: the nodes that own these.

use tch::{Kind, Tensor};

use super::arguments::Call;
use super::layout::Layout;
use super::{Known, Lowering, Reason, Value};
use crate::model::Op;

impl<'d> Lowering<'d> {
    /// The tensors of a layer, which must have a weight and may have a bias.
    fn weight_and_bias(&self, call: &Call<'d>) -> Result<Vec<&'d str>, Reason> {
        let mut tensors = vec![call.tensor("weight")?];
        if let Some(bias) = call.optional_tensor("bias")? {
            tensors.push(bias);
        }
        Ok(tensors)
    }

    /// Those of a norm, which the graph has only with all of `names`.
    fn scale(&self, call: &Call<'d>, names: &[&'static str]) -> Result<Vec<&'d str>, Reason> {
        let tensor = |name: &&'static str| {
            let given = call.optional_tensor(name)?;
            let given =
                given.ok_or_else(|| Reason::from(format!("it has no `{name}`, and a layer of the graph has")))?;
            Ok(given)
        };
        names.iter().map(tensor).collect()
    }

    /// The shape of the first of these, the weight.
    fn weight_shape(&self, tensors: &[&'d str]) -> Result<&'d [i64], Reason> {
        let weight = tensors.first().ok_or_else(|| Reason::from("it has no weight"))?;
        Ok(self.tensor_shape(self.tensor(weight)?))
    }

    /// The value that a node reads first, whose last `count` dimensions must be those of samples.
    fn input_of_features(&mut self, call: &Call<'d>, count: usize) -> Result<Known, Reason> {
        let input = self.input(call)?;
        if !input.layout.ends_with_sample(input.shape.len(), count) {
            return Err(Reason::from("it works along the batch"));
        }
        Ok(input)
    }

    pub(super) fn linear(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input_of_features(call, 1)?;
        let tensors = self.weight_and_bias(call)?;
        let [out_features, in_features] = *self.weight_shape(&tensors)? else {
            return Err(Reason::from("its weight is no matrix"));
        };
        let op = Op::Linear { in_features, out_features, bias: tensors.len() > 1, transposed: false };
        self.layer(call, op, &input, &tensors)
    }

    /// The product with a matrix of the model, to which a vector may be added (`aten.addmm`).
    pub(super) fn transposed_linear(
        &mut self,
        call: &Call<'d>,
        input: &'d str,
        weight: &'d str,
        bias: Option<&'d str>,
    ) -> Result<(), Reason> {
        let input = self.read(input)?;
        if !input.layout.ends_with_sample(input.shape.len(), 1) {
            return Err(Reason::from("it works along the batch"));
        }
        let tensors: Vec<&str> = std::iter::once(weight).chain(bias).collect();
        let [in_features, out_features] = *self.weight_shape(&tensors)? else {
            return Err(Reason::from("its weight is no matrix"));
        };
        let op = Op::Linear { in_features, out_features, bias: bias.is_some(), transposed: true };
        self.layer(call, op, &input, &tensors)
    }

    pub(super) fn convolution(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.plain_input(call)?;
        let tensors = self.weight_and_bias(call)?;
        let bias = tensors.len() > 1;
        let groups = call.integer("groups", 1)?;
        let op = match *self.weight_shape(&tensors)? {
            [out_channels, channels, kernel_size] => {
                let [stride, dilation] = [call.sized::<1>("stride", 1)?[0], call.sized::<1>("dilation", 1)?[0]];
                let [padding] = padding(call, [kernel_size], [dilation])?;
                let in_channels = channels.saturating_mul(groups);
                Op::Conv1d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias }
            }
            [out_channels, channels, height, width] => {
                let kernel_size = [height, width];
                let [stride, dilation] = [call.sized("stride", 1)?, call.sized("dilation", 1)?];
                let padding = padding(call, kernel_size, dilation)?;
                let in_channels = channels.saturating_mul(groups);
                Op::Conv2d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias }
            }
            _ => return Err(Reason::from("its weight is no kernel of one or two dimensions")),
        };
        self.layer(call, op, &input, &tensors)
    }

    pub(super) fn transposed_convolution(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.plain_input(call)?;
        let tensors = self.weight_and_bias(call)?;
        let [in_channels, channels, height, width] = *self.weight_shape(&tensors)? else {
            return Err(Reason::from("its weight is no kernel of two dimensions"));
        };
        let groups = call.integer("groups", 1)?;
        let op = Op::ConvTranspose2d {
            in_channels,
            out_channels: channels.saturating_mul(groups),
            kernel_size: [height, width],
            stride: call.sized("stride", 1)?,
            padding: call.sized("padding", 0)?,
            output_padding: call.sized("output_padding", 0)?,
            dilation: call.sized("dilation", 1)?,
            groups,
            bias: tensors.len() > 1,
        };
        self.layer(call, op, &input, &tensors)
    }

    pub(super) fn batch_norm(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.plain_input(call)?;
        let mut tensors = self.scale(call, &["weight", "bias", "running_mean", "running_var"])?;
        // The counter is read by nothing: it is known by the name of the others.
        let module = self.tensor(tensors[0])?.strip_suffix("weight").unwrap_or_default();
        let counter = format!("{module}num_batches_tracked");
        let counter = self.tensors.names.iter().find(|(_, saved)| **saved == counter).map(|(name, _)| name.as_str());
        tensors.push(counter.ok_or_else(|| Reason::from("it counts no batches"))?);
        let [num_features] = *self.weight_shape(&tensors)? else {
            return Err(Reason::from("its weight is no vector"));
        };
        let op =
            Op::BatchNorm { num_features, eps: call.double("eps", 1e-5)?, momentum: call.double("momentum", 0.1)? };
        self.layer(call, op, &input, &tensors)
    }

    /// A layer or RMS norm.
    pub(super) fn layer_norm(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let is_rms = call.operator() == "rms_norm";
        let tensors = self.scale(call, if is_rms { &["weight"] } else { &["weight", "bias"] })?;
        let normalized_shape = self.weight_shape(&tensors)?.to_vec();
        let input = self.input_of_features(call, normalized_shape.len())?;
        let op = if is_rms {
            // Without one, it is the dtype's.
            let eps = call.double("eps", f64::from(f32::EPSILON))?;
            Op::RmsNorm { normalized_shape, eps }
        } else {
            Op::LayerNorm { normalized_shape, eps: call.double("eps", 1e-5)? }
        };
        self.layer(call, op, &input, &tensors)
    }

    pub(super) fn group_norm(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.plain_input(call)?;
        let tensors = self.scale(call, &["weight", "bias"])?;
        let [num_channels] = *self.weight_shape(&tensors)? else {
            return Err(Reason::from("its weight is no vector"));
        };
        let op =
            Op::GroupNorm { num_groups: call.integer("num_groups", 1)?, num_channels, eps: call.double("eps", 1e-5)? };
        self.layer(call, op, &input, &tensors)
    }

    pub(super) fn embedding(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let tensors = vec![call.tensor("weight")?];
        let [num_embeddings, embedding_dim] = *self.weight_shape(&tensors)? else {
            return Err(Reason::from("its weight is no matrix"));
        };
        let indices = call.tensor("indices")?;
        let indices = match self.values.get(indices) {
            Some(Value::Constant(value)) => {
                let value = value.shallow_clone();
                self.positions(indices, &value)?
            }
            _ => self.known(indices)?,
        };
        self.layer(call, Op::Embedding { num_embeddings, embedding_dim }, &indices, &tensors)
    }

    /// A node of whole numbers that depend on sizes alone.
    fn positions(&mut self, name: &'d str, value: &Tensor) -> Result<Known, Reason> {
        /// Of a graph, which is written as text.
        const MOST: usize = 1 << 16;
        let wrong = || Reason::from(format!("it reads the constant `{name}`, which is no list of whole numbers"));
        if value.kind() != Kind::Int64 || value.numel() > MOST {
            return Err(wrong());
        }
        let values = value.f_reshape([-1]).and_then(Vec::<i64>::try_from).map_err(|_| wrong())?;
        // Where it has a batch in the document, it is the same for each sample.
        let (layout, _) = Layout::of(&self.extents(name)?)?;
        let op = Op::Constant { shape: value.size(), values };
        let unique = self.unique(name);
        let shape = self.inner((name, layout), &unique, op, &[], &[])?;
        Ok(Known { name: unique, shape, layout, memory: self.new_memory(), version: 0 })
    }
}

/// The zeros on each side of a convolution, in numbers or as `valid` or `same`.
fn padding<const N: usize>(call: &Call<'_>, kernel: [i64; N], dilation: [i64; N]) -> Result<[i64; N], Reason> {
    match call.text("padding") {
        None => call.sized("padding", 0),
        Some("valid") => Ok([0; N]),
        Some("same") => {
            let mut padding = [0; N];
            for (axis, padding) in padding.iter_mut().enumerate() {
                let both = dilation[axis].saturating_mul(kernel[axis].saturating_sub(1));
                if both % 2 != 0 {
                    return Err(Reason::from("its padding is not the same on both sides"));
                }
                *padding = both / 2;
            }
            Ok(padding)
        }
        Some(other) => Err(Reason::from(format!("its padding is `{other}`"))),
    }
}
