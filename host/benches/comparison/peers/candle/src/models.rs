//! The models of the run files, as a user of candle writes them for a training.

use candle_core::{D, Device, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Embedding, Linear, Module, VarBuilder, conv2d, embedding, linear, ops};
use workload::{Result, Workload};

/// A model that computes the logits of classes, `[rows, classes]`.
pub enum Model {
    Mlp(Mlp),
    Cnn(Cnn),
    Transformer(Transformer),
}

impl Model {
    /// The model of a workload; its weights are those of `weights`.
    pub fn new(workload: &Workload, weights: VarBuilder<'_>) -> Result<Self> {
        let classes = workload.classes;
        match (workload.name.as_str(), workload.input_shape.as_slice()) {
            ("mlp", _) => Ok(Self::Mlp(Mlp::new(classes, weights)?)),
            ("cnn", _) => Ok(Self::Cnn(Cnn::new(classes, weights)?)),
            ("transformer", &[_, context]) => Ok(Self::Transformer(Transformer::new(classes, context, weights)?)),
            (name, _) => Err(format!("there is no model for the workload `{name}`").into()),
        }
    }

    pub fn forward(&self, inputs: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Mlp(model) => model.forward(inputs),
            Self::Cnn(model) => model.forward(inputs),
            Self::Transformer(model) => model.forward(inputs),
        }
    }
}

/// 64-128-classes.
pub struct Mlp {
    hidden: Linear,
    head: Linear,
}

impl Mlp {
    fn new(classes: usize, weights: VarBuilder<'_>) -> candle_core::Result<Self> {
        Ok(Self { hidden: linear(64, 128, weights.pp("hidden"))?, head: linear(128, classes, weights.pp("head"))? })
    }

    fn forward(&self, digits: &Tensor) -> candle_core::Result<Tensor> {
        self.head.forward(&self.hidden.forward(&digits.flatten_from(1)?)?.relu()?)
    }
}

/// Two convolutions and two linear layers.
pub struct Cnn {
    first: Conv2d,
    second: Conv2d,
    hidden: Linear,
    head: Linear,
}

impl Cnn {
    fn new(classes: usize, weights: VarBuilder<'_>) -> candle_core::Result<Self> {
        let padded = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
        Ok(Self {
            first: conv2d(1, 32, 3, padded, weights.pp("first"))?,
            second: conv2d(32, 64, 3, padded, weights.pp("second"))?,
            hidden: linear(64 * 4 * 4, 128, weights.pp("hidden"))?,
            head: linear(128, classes, weights.pp("head"))?,
        })
    }

    fn forward(&self, digits: &Tensor) -> candle_core::Result<Tensor> {
        let maps = self.second.forward(&self.first.forward(digits)?.relu()?)?.relu()?.max_pool2d(2)?;
        self.head.forward(&self.hidden.forward(&maps.flatten_from(1)?)?.relu()?)
    }
}

const WIDTH: usize = 128;
const HEADS: usize = 4;
const BLOCKS: usize = 4;

/// Blocks of causal attention and an MLP on the embeddings of tokens and positions.
pub struct Transformer {
    tokens: Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Transformer {
    fn new(tokens: usize, context: usize, weights: VarBuilder<'_>) -> candle_core::Result<Self> {
        // 0 where a token may look, -∞ at what comes after it.
        let later = |row, column| if column > row { f32::NEG_INFINITY } else { 0.0 };
        let mask = (0..context).flat_map(|row| (0..context).map(move |column| later(row, column))).collect();
        let mask = Tensor::from_vec(mask, (context, context), &Device::Cpu)?;
        let block = |number: usize| Block::new(mask.clone(), weights.pp(format!("block{number}")));
        Ok(Self {
            tokens: embedding(tokens, WIDTH, weights.pp("tokens"))?,
            positions: embedding(context, WIDTH, weights.pp("positions"))?.embeddings().clone(),
            blocks: (0..BLOCKS).map(block).collect::<candle_core::Result<_>>()?,
            norm: LayerNorm::new(weights.pp("norm"))?,
            head: linear(WIDTH, tokens, weights.pp("head"))?,
        })
    }

    fn forward(&self, tokens: &Tensor) -> candle_core::Result<Tensor> {
        let embedded = self.tokens.forward(tokens)?.broadcast_add(&self.positions)?;
        let values = self.blocks.iter().try_fold(embedded, |values, block| block.forward(&values))?;
        self.head.forward(&self.norm.forward(&values)?)?.flatten_to(1)
    }
}

struct Block {
    norms: [LayerNorm; 2],
    projection: Linear,
    out_projection: Linear,
    up: Linear,
    down: Linear,
    mask: Tensor,
}

impl Block {
    fn new(mask: Tensor, weights: VarBuilder<'_>) -> candle_core::Result<Self> {
        Ok(Self {
            norms: [LayerNorm::new(weights.pp("norm1"))?, LayerNorm::new(weights.pp("norm2"))?],
            projection: linear(WIDTH, 3 * WIDTH, weights.pp("projection"))?,
            out_projection: linear(WIDTH, WIDTH, weights.pp("out_projection"))?,
            up: linear(WIDTH, 4 * WIDTH, weights.pp("up"))?,
            down: linear(4 * WIDTH, WIDTH, weights.pp("down"))?,
            mask,
        })
    }

    fn forward(&self, values: &Tensor) -> candle_core::Result<Tensor> {
        let values = (values + self.attend(&self.norms[0].forward(values)?)?)?;
        let hidden = self.up.forward(&self.norms[1].forward(&values)?)?.gelu_erf()?;
        &values + self.down.forward(&hidden)?
    }

    fn attend(&self, values: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, length, width) = values.dims3()?;
        let projected = self.projection.forward(values)?.reshape((batch, length, 3, HEADS, width / HEADS))?;
        // `[batch, heads, length, width of a head]`.
        let part = |number| projected.narrow(2, number, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let scores = (query.matmul(&key.t()?)? / ((width / HEADS) as f64).sqrt())?;
        // Its `softmax_last_dim` has no gradient.
        let shares = ops::softmax(&scores.broadcast_add(&self.mask)?, D::Minus1)?;
        let attended = shares.matmul(&value)?.transpose(1, 2)?.reshape((batch, length, width))?;
        self.out_projection.forward(&attended)
    }
}

/// The layer norm that can be trained: that of candle_nn computes contiguous values by a kernel without a gradient.
struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    fn new(weights: VarBuilder<'_>) -> candle_core::Result<Self> {
        Ok(Self {
            weight: weights.get_with_hints(WIDTH, "weight", candle_nn::init::ONE)?,
            bias: weights.get_with_hints(WIDTH, "bias", candle_nn::init::ZERO)?,
        })
    }

    fn forward(&self, values: &Tensor) -> candle_core::Result<Tensor> {
        ops::layer_norm_slow(values, &self.weight, &self.bias, 1e-5)
    }
}
