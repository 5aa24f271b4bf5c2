//! The models of the run files, as a user of Burn writes them.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{
    Embedding, EmbeddingConfig, Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d, Relu,
};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Int, Tensor};

/// 64-128-classes.
#[derive(Module, Debug)]
pub struct Mlp {
    hidden: Linear,
    activation: Relu,
    head: Linear,
}

impl Mlp {
    pub fn new(classes: usize, device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(64, 128).init(device),
            activation: Relu::new(),
            head: LinearConfig::new(128, classes).init(device),
        }
    }

    /// From `[batch, 1, 8, 8]` to `[batch, classes]`.
    pub fn forward(&self, digits: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.activation.forward(self.hidden.forward(digits.flatten(1, 3))))
    }
}

/// Two convolutions and two linear layers.
#[derive(Module, Debug)]
pub struct Cnn {
    first: Conv2d,
    second: Conv2d,
    pool: MaxPool2d,
    activation: Relu,
    hidden: Linear,
    head: Linear,
}

impl Cnn {
    pub fn new(classes: usize, device: &Device) -> Self {
        let convolution = |channels| {
            Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device)
        };
        Self {
            first: convolution([1, 32]),
            second: convolution([32, 64]),
            pool: MaxPool2dConfig::new([2, 2]).init(),
            activation: Relu::new(),
            hidden: LinearConfig::new(64 * 4 * 4, 128).init(device),
            head: LinearConfig::new(128, classes).init(device),
        }
    }

    /// From `[batch, 1, 8, 8]` to `[batch, classes]`.
    pub fn forward(&self, digits: Tensor<4>) -> Tensor<2> {
        let maps = self.activation.forward(self.first.forward(digits));
        let maps = self.pool.forward(self.activation.forward(self.second.forward(maps)));
        self.head.forward(self.activation.forward(self.hidden.forward(maps.flatten(1, 3))))
    }
}

const WIDTH: usize = 128;
const HEADS: usize = 4;
const BLOCKS: usize = 4;

/// Blocks of causal attention and an MLP on the embeddings of tokens and positions.
#[derive(Module, Debug)]
pub struct Transformer {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Transformer {
    pub fn new(tokens: usize, context: usize, device: &Device) -> Self {
        Self {
            tokens: EmbeddingConfig::new(tokens, WIDTH).init(device),
            positions: EmbeddingConfig::new(context, WIDTH).init(device),
            blocks: (0..BLOCKS).map(|_| Block::new(device)).collect(),
            norm: LayerNormConfig::new(WIDTH).init(device),
            head: LinearConfig::new(WIDTH, tokens).init(device),
        }
    }

    /// From `[batch, context]` to `[batch * context, tokens]`.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let embedded = self.tokens.forward(tokens) + self.positions.weight.val().unsqueeze();
        let values = self.blocks.iter().fold(embedded, |values, block| block.forward(values));
        self.head.forward(self.norm.forward(values)).flatten(0, 1)
    }
}

#[derive(Module, Debug)]
pub struct Block {
    attention_norm: LayerNorm,
    mlp_norm: LayerNorm,
    projection: Linear,
    out_projection: Linear,
    up: Linear,
    activation: Gelu,
    down: Linear,
}

impl Block {
    fn new(device: &Device) -> Self {
        Self {
            attention_norm: LayerNormConfig::new(WIDTH).init(device),
            mlp_norm: LayerNormConfig::new(WIDTH).init(device),
            projection: LinearConfig::new(WIDTH, 3 * WIDTH).init(device),
            out_projection: LinearConfig::new(WIDTH, WIDTH).init(device),
            up: LinearConfig::new(WIDTH, 4 * WIDTH).init(device),
            activation: Gelu::new(),
            down: LinearConfig::new(4 * WIDTH, WIDTH).init(device),
        }
    }

    fn forward(&self, values: Tensor<3>) -> Tensor<3> {
        let values = values.clone() + self.attend(self.attention_norm.forward(values));
        let hidden = self.activation.forward(self.up.forward(self.mlp_norm.forward(values.clone())));
        values + self.down.forward(hidden)
    }

    fn attend(&self, values: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = values.dims();
        // `[batch, heads, length, width of a head]`.
        let of_heads = |part: Tensor<3>| part.reshape([batch, length, HEADS, width / HEADS]).swap_dims(1, 2);
        let projected = self.projection.forward(values);
        let part = |number| of_heads(projected.clone().narrow(2, number * width, width));
        let options = AttentionModuleOptions { is_causal: true, ..Default::default() };
        let attended = attention(part(0), part(1), part(2), None, None, options);
        self.out_projection.forward(attended.swap_dims(1, 2).reshape([batch, length, width]))
    }
}
