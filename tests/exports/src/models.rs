//! Models to export: one for every operator, a zoo of ten small nets, and random ones.

use proptest::prelude::*;

/// What a model is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The layers of a run file.
    Layers,
    /// Operators of a graph. Each may have a `name`, by its number otherwise, and says what it `reads`: what is before it,
    /// unless it says more.
    Operators,
    /// An exported program, of `tests/figures`.
    Program,
}

/// A model.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name in messages.
    pub name: String,
    /// What it is made of.
    pub source: Source,
    /// The text between the brackets of `layers = […]`, of layers or operators; nothing for a program.
    pub layers: String,
    /// The shape of one sample.
    pub sample_shape: Vec<i64>,
    /// The number of different tokens, where samples are tokens.
    pub tokens: Option<i64>,
    /// What a program takes beside the samples.
    pub others: Vec<Other>,
}

/// An input beside the samples.
#[derive(Clone, Debug)]
pub struct Other {
    /// The argument, and the input's name.
    pub name: String,
    /// The shape of one sample.
    pub sample_shape: Vec<i64>,
    /// What it holds.
    pub values: Values,
}

/// What an input beside the samples holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Numbers.
    Numbers,
    /// A mask: 1 at the first positions, at least one, and 0 at the others.
    Mask,
}

impl Model {
    /// A model of numbers.
    pub fn new(name: &str, layers: &str, sample_shape: &[i64]) -> Self {
        let (name, layers, sample_shape) = (name.to_owned(), layers.to_owned(), sample_shape.to_vec());
        Self { name, source: Source::Layers, layers, sample_shape, tokens: None, others: Vec::new() }
    }

    /// A model of operators that no layer has.
    pub fn of_operators(name: &str, operators: &str, sample_shape: &[i64]) -> Self {
        Self { source: Source::Operators, ..Self::new(name, operators, sample_shape) }
    }

    /// The exported program of this name, of numbers or of so many tokens.
    pub fn program(name: &str, sample_shape: &[i64], tokens: Option<i64>) -> Self {
        Self { source: Source::Program, tokens, ..Self::new(name, "", sample_shape) }
    }

    /// The exported program of this name, of so many tokens, with another input.
    pub fn with_other(name: &str, sample_shape: &[i64], tokens: i64, other: (&str, &[i64], Values)) -> Self {
        let (argument, shape, values) = other;
        let others = vec![Other { name: argument.to_owned(), sample_shape: shape.to_vec(), values }];
        Self { others, ..Self::program(name, sample_shape, Some(tokens)) }
    }

    /// A model of tokens.
    pub fn of_tokens(name: &str, layers: &str, sample_shape: &[i64], tokens: i64) -> Self {
        Self { tokens: Some(tokens), ..Self::new(name, layers, sample_shape) }
    }
}

const IMAGE: &[i64] = &[4, 7, 9];
const SEQUENCE: &[i64] = &[5, 8];

/// One model for every operator, with odd sizes, strides, paddings, groups and dilations.
pub fn operators() -> Vec<Model> {
    let mut models: Vec<Model> = [
        ("linear", r#"{ type = "linear", out_features = 3 }"#, &[8][..]),
        ("linear_of_sequences", r#"{ type = "linear", out_features = 3 }"#, SEQUENCE),
        ("linear_of_images", r#"{ type = "linear", out_features = 3, bias = false }"#, IMAGE),
        ("conv1d", r#"{ type = "conv1d", out_channels = 6, kernel_size = 3, stride = 2, padding = 2, dilation = 2 }"#, &[4, 11]),
        ("conv1d_grouped", r#"{ type = "conv1d", out_channels = 6, kernel_size = 4, groups = 2, bias = false }"#, &[4, 11]),
        ("conv2d", r#"{ type = "conv2d", out_channels = 6, kernel_size = [3, 2], stride = [2, 1], padding = [1, 0], dilation = [1, 2] }"#, IMAGE),
        ("conv2d_valid", r#"{ type = "conv2d", out_channels = 5, kernel_size = 3, bias = false }"#, IMAGE),
        ("conv2d_same", r#"{ type = "conv2d", out_channels = 5, kernel_size = 3, padding = 1 }"#, IMAGE),
        ("conv2d_stride_odd", r#"{ type = "conv2d", out_channels = 5, kernel_size = 3, padding = 1, stride = 2 }"#, &[4, 9, 9]),
        ("conv2d_stride_even", r#"{ type = "conv2d", out_channels = 5, kernel_size = 3, padding = 1, stride = 2 }"#, &[4, 8, 8]),
        ("conv2d_grouped", r#"{ type = "conv2d", out_channels = 6, kernel_size = 3, padding = 1, groups = 2 }"#, IMAGE),
        ("depthwise", r#"{ type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, groups = 4 }"#, IMAGE),
        ("depthwise_multiplied", r#"{ type = "conv2d", out_channels = 8, kernel_size = 3, stride = 2, groups = 4, bias = false }"#, IMAGE),
        ("conv_transpose2d", r#"{ type = "conv_transpose2d", out_channels = 6, kernel_size = 3, stride = 2, padding = 1, output_padding = 1 }"#, IMAGE),
        ("conv_transpose2d_plain", r#"{ type = "conv_transpose2d", out_channels = 3, kernel_size = 2, stride = 2 }"#, IMAGE),
        ("conv_transpose2d_grouped", r#"{ type = "conv_transpose2d", out_channels = 6, kernel_size = 3, groups = 2, bias = false }"#, IMAGE),
        ("conv_transpose2d_widely_padded", r#"{ type = "conv_transpose2d", out_channels = 5, kernel_size = 3, dilation = 2, padding = 1, output_padding = 1 }"#, IMAGE),
        ("conv_transpose2d_padded_beyond", r#"{ type = "conv_transpose2d", out_channels = 5, kernel_size = 3, stride = 2, dilation = 3, padding = [0, 1], output_padding = 2 }"#, IMAGE),
        ("batch_norm", r#"{ type = "batch_norm" }"#, IMAGE),
        ("batch_norm_of_one", r#"{ type = "batch_norm" }"#, &[1, 7, 9]),
        ("batch_norm_of_vectors", r#"{ type = "batch_norm" }"#, &[6]),
        ("conv_batch_norm", r#"{ type = "conv2d", out_channels = 6, kernel_size = 3 }, { type = "batch_norm" }, { type = "relu" }"#, IMAGE),
        ("layer_norm", r#"{ type = "layer_norm" }"#, SEQUENCE),
        ("layer_norm_of_images", r#"{ type = "layer_norm", dimensions = 3 }"#, IMAGE),
        ("rms_norm", r#"{ type = "rms_norm" }"#, SEQUENCE),
        ("group_norm", r#"{ type = "group_norm", num_groups = 2 }"#, IMAGE),
        ("max_pool2d", r#"{ type = "max_pool2d", kernel_size = 3, stride = 2, padding = 1 }"#, IMAGE),
        ("max_pool2d_plain", r#"{ type = "max_pool2d", kernel_size = 2 }"#, IMAGE),
        ("avg_pool2d", r#"{ type = "avg_pool2d", kernel_size = 3, stride = 2, padding = 1, count_include_pad = false }"#, IMAGE),
        ("avg_pool2d_padded", r#"{ type = "avg_pool2d", kernel_size = [3, 2], stride = 2, padding = 1 }"#, IMAGE),
        ("adaptive_avg_pool2d", r#"{ type = "adaptive_avg_pool2d" }"#, IMAGE),
        ("adaptive_avg_pool2d_uneven", r#"{ type = "adaptive_avg_pool2d", output_size = [3, 2] }"#, IMAGE),
        ("adaptive_avg_pool2d_divided", r#"{ type = "adaptive_avg_pool2d", output_size = [7, 3] }"#, IMAGE),
        ("relu", r#"{ type = "relu" }"#, SEQUENCE),
        ("leaky_relu", r#"{ type = "leaky_relu", negative_slope = 0.2 }"#, SEQUENCE),
        ("elu", r#"{ type = "elu", alpha = 0.7 }"#, SEQUENCE),
        ("elu_of_one", r#"{ type = "elu" }"#, SEQUENCE),
        ("hard_swish", r#"{ type = "hard_swish" }"#, SEQUENCE),
        ("hard_sigmoid", r#"{ type = "hard_sigmoid" }"#, SEQUENCE),
        ("gelu", r#"{ type = "gelu" }"#, SEQUENCE),
        ("gelu_tanh", r#"{ type = "gelu", approximate = "tanh" }"#, SEQUENCE),
        ("silu", r#"{ type = "silu" }"#, SEQUENCE),
        ("tanh", r#"{ type = "tanh" }"#, SEQUENCE),
        ("sigmoid", r#"{ type = "sigmoid" }"#, SEQUENCE),
        ("softmax", r#"{ type = "softmax" }"#, SEQUENCE),
        ("softmax_first", r#"{ type = "softmax", dim = 0 }"#, SEQUENCE),
        ("flatten", r#"{ type = "flatten" }"#, IMAGE),
        ("flatten_of_convolution", r#"{ type = "conv2d", out_channels = 3, kernel_size = 3 }, { type = "flatten" }, { type = "linear", out_features = 4 }"#, IMAGE),
        ("reshape", r#"{ type = "reshape", shape = [2, -1, 9] }"#, IMAGE),
        ("permute", r#"{ type = "permute", dims = [2, 0, 1] }"#, IMAGE),
        ("dropout", r#"{ type = "dropout", p = 0.5 }, { type = "relu" }"#, SEQUENCE),
        ("positional_embedding", r#"{ type = "positional_embedding", max_length = 9 }"#, SEQUENCE),
        ("attention", r#"{ type = "multi_head_attention", num_heads = 2 }"#, SEQUENCE),
        ("causal_attention", r#"{ type = "multi_head_attention", num_heads = 4, causal = true, bias = false }"#, SEQUENCE),
        ("lstm", r#"{ type = "lstm", hidden_size = 5 }"#, SEQUENCE),
        ("lstm_deep", r#"{ type = "lstm", hidden_size = 5, num_layers = 2, bidirectional = true }"#, SEQUENCE),
        ("lstm_last", r#"{ type = "lstm", hidden_size = 5, bidirectional = true, last_only = true }"#, SEQUENCE),
        ("gru", r#"{ type = "gru", hidden_size = 5 }"#, SEQUENCE),
        ("gru_deep", r#"{ type = "gru", hidden_size = 5, num_layers = 2, bidirectional = true, last_only = true }"#, SEQUENCE),
        ("upsample", r#"{ type = "upsample", scale_factor = [2, 3] }"#, IMAGE),
        ("upsample_bilinear", r#"{ type = "upsample", scale_factor = [2, 3], mode = "bilinear" }"#, IMAGE),
        ("add", r#"{ type = "residual", layers = [{ type = "tanh" }] }"#, IMAGE),
        ("multiply", r#"{ type = "parallel", combine = "multiply", branches = [[{ type = "tanh" }], [{ type = "sigmoid" }]] }"#, IMAGE),
        ("multiply_channels", r#"{ type = "parallel", combine = "multiply", branches = [[], [{ type = "adaptive_avg_pool2d" }, { type = "sigmoid" }]] }"#, IMAGE),
        ("add_channels", r#"{ type = "parallel", branches = [[{ type = "adaptive_avg_pool2d" }], [{ type = "tanh" }]] }"#, IMAGE),
        ("concat", r#"{ type = "concat", branches = [[{ type = "conv2d", out_channels = 2, kernel_size = 1 }], []] }"#, IMAGE),
        ("concat_of_rows", r#"{ type = "concat", dim = 1, branches = [[{ type = "relu" }], [{ type = "tanh" }], []] }"#, IMAGE),
    ]
    .into_iter()
    .map(|(name, layers, sample_shape)| Model::new(name, layers, sample_shape))
    .collect();
    let embedding = r#"{ type = "embedding", num_embeddings = 11, embedding_dim = 6 }"#;
    models.push(Model::of_tokens("embedding", embedding, &[5], 11));
    models.extend(operators_of_programs());
    models
}

/// The heads of a sequence.
const HEADS: &[i64] = &[2, 5, 4];

/// Operators that only exported programs have.
fn operators_of_programs() -> Vec<Model> {
    let squashed = r#"{ type = "tanh", name = "other" }, { type = "#;
    let attention = r#"{ type = "tanh", name = "key" }, { type = "sigmoid", name = "value", reads = ["inputs"] }, "#;
    [
        ("linear_transposed", r#"{ type = "linear", in_features = 8, out_features = 3, bias = true, transposed = true }"#.to_owned(), &[8][..]),
        ("linear_transposed_of_sequences", r#"{ type = "linear", in_features = 8, out_features = 3, bias = true, transposed = true }"#.to_owned(), SEQUENCE),
        ("subtract", format!(r#"{squashed}"subtract", reads = ["inputs", "other"] }}"#), SEQUENCE),
        ("divide", r#"{ type = "sigmoid", name = "other" }, { type = "divide", reads = ["inputs", "other"] }"#.to_owned(), SEQUENCE),
        ("add_scalar", r#"{ type = "add_scalar", other = -0.75 }"#.to_owned(), SEQUENCE),
        ("multiply_scalar", r#"{ type = "multiply_scalar", other = 1.7 }"#.to_owned(), SEQUENCE),
        ("pow_square", r#"{ type = "pow", exponent = 2.0 }"#.to_owned(), SEQUENCE),
        ("pow_cube", r#"{ type = "pow", exponent = 3.0 }"#.to_owned(), SEQUENCE),
        ("pow_of_root", r#"{ type = "sigmoid" }, { type = "pow", exponent = -0.5 }, { type = "pow", exponent = 0.5 }, { type = "pow", exponent = -1.0 }, { type = "pow", exponent = 1.3 }"#.to_owned(), SEQUENCE),
        ("clamp", r#"{ type = "clamp", min = -0.5, max = 0.8 }"#.to_owned(), SEQUENCE),
        ("clamp_to_six", r#"{ type = "clamp", min = 0.0, max = 6.0 }"#.to_owned(), SEQUENCE),
        ("clamp_above", r#"{ type = "clamp", max = 0.8 }"#.to_owned(), SEQUENCE),
        ("mean", r#"{ type = "mean", dims = [1], keepdim = false }"#.to_owned(), IMAGE),
        ("mean_kept", r#"{ type = "mean", dims = [0, 2], keepdim = true }"#.to_owned(), IMAGE),
        ("slice", r#"{ type = "slice", dim = 1, start = 1, end = 4, step = 1 }"#.to_owned(), IMAGE),
        ("slice_by_steps", r#"{ type = "slice", dim = 2, start = 1, end = 8, step = 3 }"#.to_owned(), IMAGE),
        ("slice_of_channels", r#"{ type = "max_pool2d", kernel_size = [2, 2], stride = [2, 2], padding = [0, 0] }, { type = "slice", dim = 0, start = 1, end = 3, step = 1 }"#.to_owned(), IMAGE),
        ("select", r#"{ type = "select", dim = 1, index = 4 }"#.to_owned(), IMAGE),
        ("select_channel", r#"{ type = "max_pool2d", kernel_size = [2, 2], stride = [2, 2], padding = [0, 0] }, { type = "select", dim = 0, index = 2 }"#.to_owned(), IMAGE),
        ("matmul", r#"{ type = "permute", name = "other", dims = [0, 2, 1] }, { type = "matmul", reads = ["inputs", "other"] }"#.to_owned(), HEADS),
        ("scaled_dot_product_attention", format!(r#"{attention}{{ type = "scaled_dot_product_attention", is_causal = false, scale = 0.4, dropout = 0.1, reads = ["inputs", "key", "value"] }}"#), HEADS),
        ("causal_scaled_dot_product_attention", format!(r#"{attention}{{ type = "scaled_dot_product_attention", is_causal = true, scale = 0.5, dropout = 0.0, reads = ["inputs", "key", "value"] }}"#), HEADS),
        ("masked_scaled_dot_product_attention", format!(r#"{attention}{{ type = "parameter", name = "mask", shape = [5, 5] }}, {{ type = "scaled_dot_product_attention", is_causal = false, scale = 0.5, dropout = 0.0, reads = ["inputs", "key", "value", "mask"] }}"#), HEADS),
        ("parameter_before", r#"{ type = "parameter", name = "first", shape = [1, 1, 8] }, { type = "concat", dim = 0, reads = ["first", "inputs", "first"] }"#.to_owned(), SEQUENCE),
        ("parameter_added", r#"{ type = "parameter", name = "places", shape = [1, 5, 8] }, { type = "add", reads = ["inputs", "places"] }"#.to_owned(), SEQUENCE),
        ("parameter_scales", r#"{ type = "parameter", name = "scale", shape = [8], is_buffer = true }, { type = "multiply", reads = ["scale", "inputs"] }"#.to_owned(), SEQUENCE),
        ("broadcast", r#"{ type = "mean", dims = [0], keepdim = false }, { type = "subtract", reads = ["inputs", "0"] }"#.to_owned(), SEQUENCE),
        ("constant", r#"{ type = "constant", name = "places", shape = [5], values = [3, 0, 2, 2, 6] }, { type = "embedding", name = "rows", num_embeddings = 7, embedding_dim = 8 }, { type = "add", reads = ["inputs", "rows"] }"#.to_owned(), SEQUENCE),
    ]
    .into_iter()
    .map(|(name, operators, sample_shape)| Model::of_operators(name, &operators, sample_shape))
    .collect()
}

/// Operators that make masks of what a batch holds, and attention that reads one: not every format has them.
pub fn masks() -> Vec<Model> {
    const SQUARE: &[i64] = &[5, 5];
    let places = r#"{ type = "constant", name = "places", shape = [5], values = [3, 0, 2, 2, 6] }, { type = "to_float", name = "numbers" }"#;
    // What is compared lies far from the number: eight bits move values.
    let compared = |comparisons: &[(&str, f64)]| {
        let compare = |(comparison, other): &(&str, f64)| {
            format!(r#", {{ type = "compare", comparison = "{comparison}", other = {other:?} }}"#)
        };
        let all: String = comparisons.iter().map(compare).collect();
        // An operator without a name has its number as its name.
        let last = 1 + comparisons.len();
        format!(r#"{places}{all}, {{ type = "multiply", reads = ["inputs", "{last}"] }}"#)
    };
    let attention = r#"{ type = "tanh", name = "key" }, { type = "sigmoid", name = "value", reads = ["inputs"] }, "#;
    [
        ("compare_less", compared(&[("less", 2.5)]), SQUARE),
        ("compare_greater_equal", compared(&[("greater_equal", 2.0)]), SQUARE),
        ("compare_not_equal", compared(&[("not_equal", 2.0), ("equal", 0.0), ("greater", 0.5), ("less_equal", 0.5)]), SQUARE),
        ("to_float", r#"{ type = "constant", name = "places", shape = [5], values = [3, 0, 2, 2, 6] }, { type = "to_float", name = "numbers" }, { type = "add", reads = ["inputs", "numbers"] }"#.to_owned(), SQUARE),
        ("boolean_scaled_dot_product_attention", format!(r#"{attention}{{ type = "constant", name = "seen", shape = [1, 1, 5], values = [1, 1, 0, 1, 0] }}, {{ type = "to_float", name = "mask" }}, {{ type = "scaled_dot_product_attention", is_causal = false, scale = 0.5, dropout = 0.0, is_boolean = true, reads = ["inputs", "key", "value", "mask"] }}"#), HEADS),
    ]
    .into_iter()
    .map(|(name, operators, sample_shape)| Model::of_operators(name, &operators, sample_shape))
    .collect()
}

/// Models at which a format may end: operators with attributes that one of them does not have.
pub fn limits() -> Vec<Model> {
    vec![
        Model::new(
            "conv_transpose2d_uneven",
            r#"{ type = "conv_transpose2d", out_channels = 3, kernel_size = 3, stride = [2, 1] }"#,
            IMAGE,
        ),
        Model::new("gru_long", r#"{ type = "gru", hidden_size = 1 }"#, &[2049, 1]),
    ]
}

/// Ten small nets of common kinds, and three transformers as exported programs.
pub fn zoo() -> Vec<Model> {
    let block = |channels: i64, stride: i64| {
        let shortcut = format!(
            r#"shortcut = [{{ type = "conv2d", out_channels = {channels}, kernel_size = 1, stride = {stride}, bias = false }}, {{ type = "batch_norm" }}]"#
        );
        format!(
            r#"{{ type = "residual", layers = [
                 {{ type = "conv2d", out_channels = {channels}, kernel_size = 3, stride = {stride}, padding = 1, bias = false }},
                 {{ type = "batch_norm" }}, {{ type = "relu" }},
                 {{ type = "conv2d", out_channels = {channels}, kernel_size = 3, padding = 1, bias = false }},
                 {{ type = "batch_norm" }} ], {shortcut} }}, {{ type = "relu" }}"#
        )
    };
    let separable = |channels: i64, out: i64, stride: i64| {
        format!(
            r#"{{ type = "conv2d", out_channels = {channels}, kernel_size = 3, stride = {stride}, padding = 1, groups = {channels}, bias = false }},
               {{ type = "batch_norm" }}, {{ type = "hard_swish" }},
               {{ type = "conv2d", out_channels = {out}, kernel_size = 1, bias = false }}, {{ type = "batch_norm" }}, {{ type = "hard_swish" }}"#
        )
    };
    let transformer = r#"
        { type = "residual", layers = [{ type = "layer_norm" }, { type = "multi_head_attention", num_heads = 4, causal = true }] },
        { type = "residual", layers = [{ type = "layer_norm" }, { type = "linear", out_features = 32 }, { type = "gelu" },
          { type = "linear", out_features = 16 }] }"#;
    let unet = r#"
        { type = "conv2d", out_channels = 6, kernel_size = 3, padding = 1 }, { type = "relu" },
        { type = "concat", branches = [[], [
          { type = "max_pool2d", kernel_size = 2 },
          { type = "conv2d", out_channels = 8, kernel_size = 3, padding = 1 }, { type = "relu" },
          { type = "conv_transpose2d", out_channels = 6, kernel_size = 2, stride = 2 },
        ]] },
        { type = "conv2d", out_channels = 2, kernel_size = 1 }, { type = "sigmoid" }"#;
    let lenet = r#"
        { type = "conv2d", out_channels = 6, kernel_size = 5, padding = 2 }, { type = "tanh" }, { type = "avg_pool2d", kernel_size = 2 },
        { type = "conv2d", out_channels = 16, kernel_size = 5 }, { type = "tanh" }, { type = "avg_pool2d", kernel_size = 2 },
        { type = "flatten" }, { type = "linear", out_features = 30 }, { type = "tanh" }, { type = "linear", out_features = 10 }"#;
    vec![
        Model::new(
            "mlp",
            r#"{ type = "linear", out_features = 32 }, { type = "relu" }, { type = "dropout" }, { type = "linear", out_features = 10 }"#,
            &[64],
        ),
        Model::new("lenet", lenet, &[1, 20, 20]),
        Model::new(
            "resnet",
            &format!(
                r#"{{ type = "conv2d", out_channels = 8, kernel_size = 3, padding = 1, bias = false }}, {{ type = "batch_norm" }}, {{ type = "relu" }},
                   {}, {}, {{ type = "adaptive_avg_pool2d" }}, {{ type = "flatten" }}, {{ type = "linear", out_features = 10 }}"#,
                block(8, 1),
                block(12, 2)
            ),
            &[3, 12, 12],
        ),
        Model::new(
            "separable",
            &format!(
                r#"{{ type = "conv2d", out_channels = 8, kernel_size = 3, stride = 2, padding = 1, bias = false }}, {{ type = "batch_norm" }}, {{ type = "hard_swish" }},
                   {}, {}, {{ type = "adaptive_avg_pool2d" }}, {{ type = "flatten" }}, {{ type = "linear", out_features = 5 }}"#,
                separable(8, 12, 1),
                separable(12, 16, 2)
            ),
            &[3, 16, 16],
        ),
        Model::new("unet", unet, &[2, 8, 12]),
        Model::of_tokens(
            "transformer",
            &format!(
                r#"{{ type = "embedding", num_embeddings = 17, embedding_dim = 16 }}, {{ type = "positional_embedding", max_length = 12 }},
                   {transformer}, {transformer}, {{ type = "layer_norm" }}, {{ type = "linear", out_features = 17 }}"#
            ),
            &[9],
            17,
        ),
        Model::of_tokens(
            "lstm",
            r#"{ type = "embedding", num_embeddings = 13, embedding_dim = 6 }, { type = "lstm", hidden_size = 10, num_layers = 2 }, { type = "linear", out_features = 13 }"#,
            &[7],
            13,
        ),
        Model::new(
            "gru",
            r#"{ type = "gru", hidden_size = 9, bidirectional = true, last_only = true }, { type = "linear", out_features = 4 }"#,
            &[6, 5],
        ),
        Model::new(
            "group_norm",
            r#"{ type = "conv2d", out_channels = 8, kernel_size = 3, padding = 1 }, { type = "group_norm", num_groups = 4 }, { type = "silu" },
               { type = "conv2d", out_channels = 8, kernel_size = 3, stride = 2, padding = 1, groups = 2 }, { type = "group_norm", num_groups = 2 },
               { type = "elu" }, { type = "flatten" }, { type = "linear", out_features = 6 }"#,
            &[3, 9, 9],
        ),
        Model::of_tokens(
            "embedding_classifier",
            r#"{ type = "embedding", num_embeddings = 23, embedding_dim = 8 }, { type = "flatten" }, { type = "linear", out_features = 12 },
               { type = "leaky_relu" }, { type = "linear", out_features = 3 }, { type = "softmax" }"#,
            &[6],
            23,
        ),
        Model::program("vit", &[1, 8, 8], None),
        Model::program("gpt2", &[12], Some(50)),
        Model::program("bert", &[12], Some(50)),
        Model::program("functions", &[1, 8, 8], None),
    ]
}

/// Exported programs with several inputs: a transformer with a mask of its tokens, and a net of categories and an image.
pub fn of_several_inputs() -> Vec<Model> {
    vec![
        Model::with_other("masked_bert", &[12], 50, ("attention_mask", &[12], Values::Mask)),
        Model::with_other("two_towers", &[3], 7, ("image", &[1, 8, 8], Values::Numbers)),
    ]
}

/// A model of more than two gibibytes, the limit of offsets in both formats: three matrices of 0.8.
pub fn large() -> Model {
    Model::new(
        "large",
        r#"{ type = "repeat", times = 3, layers = [{ type = "linear", out_features = 14654 }] }"#,
        &[14654],
    )
}

/// Whether to export [`large`]: only among the long tests, which need 12 GiB of memory, and if the temporary folder has
/// room.
pub fn has_room_for_large() -> bool {
    const BYTES: u64 = 6 << 30;
    if std::env::var_os("HOST_TEST_LONG").is_none() {
        eprintln!("skipped: a long test; `cargo xtask test --long` runs it");
        return false;
    }
    let output = std::process::Command::new("df").arg("-Pk").arg(std::env::temp_dir()).output();
    let told = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let free = told.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    let has_room = free.is_some_and(|kibibytes| kibibytes * 1024 > BYTES);
    if !has_room {
        eprintln!("skipped: the temporary folder is too small");
    }
    has_room
}

/// A random model: up to six matching layers, on an image, a sequence or a vector.
pub fn random_model() -> impl Strategy<Value = Model> {
    let choices = prop::collection::vec(any::<u16>(), 7);
    (0usize..3, choices, 1i64..5, 3i64..10, 3i64..10).prop_map(|(kind, choices, channels, height, width)| {
        let shape = match kind {
            0 => vec![2 * channels, height, width],
            1 => vec![height, 4 * channels],
            _ => vec![4 * channels + 1],
        };
        let mut layers = Vec::new();
        let mut current = shape.clone();
        for choice in &choices[1..] {
            let (layer, next) = random_layer(*choice, &current);
            layers.push(layer);
            current = next;
        }
        Model::new("random", &layers.join(", "), &shape)
    })
}

/// A layer for values of `shape`, and its output shape. Norms have a large `eps`: with a small one, nearly equal values
/// would amplify rounding errors in every runtime.
fn random_layer(choice: u16, shape: &[i64]) -> (String, Vec<i64>) {
    let (which, detail) = (choice % 16, i64::from(choice / 16));
    let same = |layer: String| (layer, shape.to_vec());
    let activation =
        ["relu", "tanh", "sigmoid", "silu", "gelu", "elu", "hard_swish", "hard_sigmoid", "leaky_relu", "softmax"];
    match (shape, which) {
        ([channels, height, width], 0..=3) => {
            let kernel = 1 + detail % 3.min(*height).min(*width);
            let (stride, padding) = (1 + detail / 3 % 2, detail / 6 % kernel.max(1));
            let dilation = if detail / 12 % 2 == 1 && 2 * (kernel - 1) < *height.min(width) { 2 } else { 1 };
            let groups = if detail / 24 % 2 == 1 && channels % 2 == 0 { 2 } else { 1 };
            let out = groups * (1 + detail / 48 % 4);
            let size = |length: i64| (length + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
            let layer = format!(
                r#"{{ type = "conv2d", out_channels = {out}, kernel_size = {kernel}, stride = {stride}, padding = {padding}, dilation = {dilation}, groups = {groups} }}"#
            );
            (layer, vec![out, size(*height), size(*width)])
        }
        ([_, _, _], 4) => same(r#"{ type = "batch_norm" }"#.to_owned()),
        ([channels, height, width], 5 | 6) if *height > 1 && *width > 1 => {
            let (kind, padding) = (if which == 5 { "max_pool2d" } else { "avg_pool2d" }, detail % 2);
            let size = |length: i64| (length + 2 * padding - 2) / 2 + 1;
            let layer = format!(r#"{{ type = "{kind}", kernel_size = 2, stride = 2, padding = {padding} }}"#);
            (layer, vec![*channels, size(*height), size(*width)])
        }
        ([channels, _, _], 7) => {
            let groups = if channels % 2 == 0 { 2 } else { 1 };
            same(format!(r#"{{ type = "group_norm", num_groups = {groups}, eps = 0.1 }}"#))
        }
        ([_, _, _], 8) => (r#"{ type = "flatten" }"#.to_owned(), vec![shape.iter().product()]),
        ([channels, height, width], 9) if height * width <= 100 => {
            let layer = r#"{ type = "upsample", scale_factor = 2 }"#.to_owned();
            (layer, vec![*channels, 2 * height, 2 * width])
        }
        ([_, _], 0 | 1) => same(r#"{ type = "layer_norm", eps = 0.1 }"#.to_owned()),
        ([_, width], 2) if width % 2 == 0 => {
            let causal = detail % 2 == 1;
            same(format!(r#"{{ type = "multi_head_attention", num_heads = 2, causal = {causal} }}"#))
        }
        ([length, _], 3 | 4) => {
            let (kind, hidden) = (if which == 3 { "lstm" } else { "gru" }, 2 + 2 * (detail % 3));
            (format!(r#"{{ type = "{kind}", hidden_size = {hidden} }}"#), vec![*length, hidden])
        }
        ([length, width], 5) => (r#"{ type = "permute", dims = [1, 0] }"#.to_owned(), vec![*width, *length]),
        ([_, _], 6) => same(r#"{ type = "rms_norm", eps = 0.1 }"#.to_owned()),
        ([_, _], 7) => (r#"{ type = "flatten" }"#.to_owned(), vec![shape.iter().product()]),
        (_, 10) => same(r#"{ type = "residual", layers = [{ type = "tanh" }] }"#.to_owned()),
        (_, 11 | 12) => {
            let out = 2 * (1 + detail % 5);
            let mut next = shape.to_vec();
            if let Some(last) = next.last_mut() {
                *last = out;
            }
            (format!(r#"{{ type = "linear", out_features = {out} }}"#), next)
        }
        _ => same(format!(r#"{{ type = "{}" }}"#, activation[detail as usize % activation.len()])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Subject;

    #[test]
    fn every_operator_of_the_graph_is_there() {
        let found: std::collections::BTreeSet<&str> = operators()
            .into_iter()
            .flat_map(|model| Subject::new(model).graph().nodes)
            .map(|node| node.op.name())
            .collect();
        // `plugin_api::graph::Op` has so many; a new one needs a model here.
        assert_eq!(found.len(), 47, "{found:?}");
    }

    #[test]
    fn the_models_run_and_outputs_depend_on_inputs() {
        for model in operators().into_iter().chain(zoo()) {
            let subject = Subject::new(model);
            let outputs = subject.outputs(&subject.inputs(3));
            assert!(bool::try_from(outputs.isfinite().all()).unwrap_or(false), "{}", subject.model.name);
            assert_ne!(outputs.get(0), outputs.get(1), "{}", subject.model.name);
        }
    }

    proptest! {
        #[test]
        fn random_models_run(model in random_model()) {
            let subject = Subject::new(model);
            prop_assert_eq!(subject.outputs(&subject.inputs(2)).size()[0], 2);
        }
    }
}
