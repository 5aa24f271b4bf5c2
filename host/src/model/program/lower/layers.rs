//! Operators that read tensors of the model: the nodes that own these.

use super::arguments::Call;
use super::{Lowering, Reason};
use crate::model::Op;

/// The name in a layer, and in the state dict, of each of its tensors.
type Tensors<'a> = Vec<(&'static str, &'a str)>;

impl<'d> Lowering<'d> {
    /// The tensors of a layer, which must have a weight and may have a bias.
    fn weight_and_bias(&self, call: &Call<'d>) -> Result<Tensors<'d>, Reason> {
        let mut tensors = vec![("weight", self.tensor(call.tensor("weight")?)?)];
        if let Some(bias) = call.optional_tensor("bias")? {
            tensors.push(("bias", self.tensor(bias)?));
        }
        Ok(tensors)
    }

    /// Those of a norm, which the graph has only with all of `names`.
    fn scale(&self, call: &Call<'d>, names: &[&'static str]) -> Result<Tensors<'d>, Reason> {
        let tensor = |name: &&'static str| {
            let given = call.optional_tensor(name)?;
            let given =
                given.ok_or_else(|| Reason::from(format!("it has no `{name}`, and a layer of the graph has")))?;
            Ok((*name, self.tensor(given)?))
        };
        names.iter().map(tensor).collect()
    }

    pub(super) fn linear(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let tensors = self.weight_and_bias(call)?;
        let [out_features, in_features] = *self.tensor_shape(tensors[0].1) else {
            return Err(Reason::from("its weight is no matrix"));
        };
        let op = Op::Linear { in_features, out_features, bias: tensors.len() > 1 };
        let owner = self.owner(&tensors)?;
        self.add(call, owner, op, &[&input])
    }

    pub(super) fn convolution(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let tensors = self.weight_and_bias(call)?;
        let bias = tensors.len() > 1;
        let groups = call.integer("groups", 1)?;
        let op = match *self.tensor_shape(tensors[0].1) {
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
        let owner = self.owner(&tensors)?;
        self.add(call, owner, op, &[&input])
    }

    pub(super) fn transposed_convolution(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let tensors = self.weight_and_bias(call)?;
        let [in_channels, channels, height, width] = *self.tensor_shape(tensors[0].1) else {
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
        let owner = self.owner(&tensors)?;
        self.add(call, owner, op, &[&input])
    }

    pub(super) fn batch_norm(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let mut tensors = self.scale(call, &["weight", "bias", "running_mean", "running_var"])?;
        // The counter is read by nothing: it is known by the name of the others.
        let module = tensors[0].1.strip_suffix("weight").unwrap_or_default();
        let counter = format!("{module}num_batches_tracked");
        let counter = self.tensors.saved.get_key_value(counter.as_str()).map(|(name, _)| *name);
        tensors.push(("num_batches_tracked", counter.ok_or_else(|| Reason::from("it counts no batches"))?));
        let [num_features] = *self.tensor_shape(tensors[0].1) else {
            return Err(Reason::from("its weight is no vector"));
        };
        let op =
            Op::BatchNorm { num_features, eps: call.double("eps", 1e-5)?, momentum: call.double("momentum", 0.1)? };
        let owner = self.owner(&tensors)?;
        self.add(call, owner, op, &[&input])
    }

    /// A layer or RMS norm.
    pub(super) fn layer_norm(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let is_rms = call.operator() == "rms_norm";
        let tensors = self.scale(call, if is_rms { &["weight"] } else { &["weight", "bias"] })?;
        let normalized_shape = self.tensor_shape(tensors[0].1).to_vec();
        let op = if is_rms {
            // Without one, it is the dtype's.
            let eps = call.double("eps", f64::from(f32::EPSILON))?;
            Op::RmsNorm { normalized_shape, eps }
        } else {
            Op::LayerNorm { normalized_shape, eps: call.double("eps", 1e-5)? }
        };
        let owner = self.owner(&tensors)?;
        self.add(call, owner, op, &[&input])
    }

    pub(super) fn group_norm(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let input = self.input(call)?;
        let tensors = self.scale(call, &["weight", "bias"])?;
        let [num_channels] = *self.tensor_shape(tensors[0].1) else {
            return Err(Reason::from("its weight is no vector"));
        };
        let op =
            Op::GroupNorm { num_groups: call.integer("num_groups", 1)?, num_channels, eps: call.double("eps", 1e-5)? };
        let owner = self.owner(&tensors)?;
        self.add(call, owner, op, &[&input])
    }

    pub(super) fn embedding(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let indices = self.known(call.tensor("indices")?)?;
        let weight = self.tensor(call.tensor("weight")?)?;
        let [num_embeddings, embedding_dim] = *self.tensor_shape(weight) else {
            return Err(Reason::from("its weight is no matrix"));
        };
        let owner = self.owner(&[("weight", weight)])?;
        self.add(call, owner, Op::Embedding { num_embeddings, embedding_dim }, &[&indices])
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
