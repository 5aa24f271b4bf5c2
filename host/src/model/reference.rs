//! Compares each layer with PyTorch (`tests/figures/layers.py` made the figures) and with finite differences.

use std::sync::Arc;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::{Dtype, Mode, ModelOptions, Network, TensorSpec};
use crate::torch::test_support;

const FIGURES: &str = include_str!("../../../tests/figures/layers.json");

const IMAGE: &[i64] = &[2, 4, 6, 6];
const SEQUENCE: &[i64] = &[2, 5, 8];
const STEPS: &[i64] = &[2, 5, 3];

/// The cases of `layers.py`: name, layers, shape of the batch.
const CASES: &[(&str, &str, &[i64])] = &[
    ("linear", r#"{ type = "linear", out_features = 3 }"#, SEQUENCE),
    (
        "conv1d",
        r#"{ type = "conv1d", out_channels = 6, kernel_size = 3, stride = 2, padding = 1, dilation = 2 }"#,
        SEQUENCE,
    ),
    (
        "conv2d",
        r#"{ type = "conv2d", out_channels = 6, kernel_size = [3, 2], stride = [2, 1], padding = [1, 0],
             dilation = [1, 2], groups = 2 }"#,
        IMAGE,
    ),
    (
        "depthwise",
        r#"{ type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, groups = 4, bias = false }"#,
        IMAGE,
    ),
    (
        "conv_transpose2d",
        r#"{ type = "conv_transpose2d", out_channels = 6, kernel_size = 3, stride = 2, padding = 1,
             output_padding = 1, groups = 2 }"#,
        IMAGE,
    ),
    ("batch_norm", r#"{ type = "batch_norm" }"#, IMAGE),
    ("batch_norm_of_vectors", r#"{ type = "batch_norm" }"#, &[6, 4]),
    ("layer_norm", r#"{ type = "layer_norm" }"#, SEQUENCE),
    ("layer_norm_of_images", r#"{ type = "layer_norm", dimensions = 3 }"#, IMAGE),
    ("rms_norm", r#"{ type = "rms_norm" }"#, SEQUENCE),
    ("group_norm", r#"{ type = "group_norm", num_groups = 2 }"#, IMAGE),
    ("max_pool2d", r#"{ type = "max_pool2d", kernel_size = 3, stride = 2, padding = 1 }"#, IMAGE),
    (
        "avg_pool2d",
        r#"{ type = "avg_pool2d", kernel_size = 3, stride = 2, padding = 1, count_include_pad = false }"#,
        IMAGE,
    ),
    ("adaptive_avg_pool2d", r#"{ type = "adaptive_avg_pool2d", output_size = [4, 3] }"#, IMAGE),
    ("relu", r#"{ type = "relu" }"#, SEQUENCE),
    ("leaky_relu", r#"{ type = "leaky_relu", negative_slope = 0.2 }"#, SEQUENCE),
    ("elu", r#"{ type = "elu", alpha = 0.7 }"#, SEQUENCE),
    ("hard_swish", r#"{ type = "hard_swish" }"#, SEQUENCE),
    ("hard_sigmoid", r#"{ type = "hard_sigmoid" }"#, SEQUENCE),
    ("gelu", r#"{ type = "gelu" }"#, SEQUENCE),
    ("gelu_tanh", r#"{ type = "gelu", approximate = "tanh" }"#, SEQUENCE),
    ("silu", r#"{ type = "silu" }"#, SEQUENCE),
    ("tanh", r#"{ type = "tanh" }"#, SEQUENCE),
    ("sigmoid", r#"{ type = "sigmoid" }"#, SEQUENCE),
    ("softmax", r#"{ type = "softmax", dim = 0 }"#, SEQUENCE),
    ("flatten", r#"{ type = "flatten" }"#, IMAGE),
    ("reshape", r#"{ type = "reshape", shape = [2, -1, 6, 6] }"#, IMAGE),
    ("permute", r#"{ type = "permute", dims = [2, 0, 1] }"#, IMAGE),
    ("attention", r#"{ type = "multi_head_attention", num_heads = 2 }"#, SEQUENCE),
    ("causal_attention", r#"{ type = "multi_head_attention", num_heads = 2, causal = true }"#, SEQUENCE),
    ("lstm", r#"{ type = "lstm", hidden_size = 5 }"#, STEPS),
    ("lstm_deep", r#"{ type = "lstm", hidden_size = 5, num_layers = 2, bidirectional = true }"#, STEPS),
    ("gru", r#"{ type = "gru", hidden_size = 5 }"#, STEPS),
    ("gru_last", r#"{ type = "gru", hidden_size = 5, num_layers = 2, last_only = true }"#, STEPS),
    ("upsample", r#"{ type = "upsample", scale_factor = 2 }"#, IMAGE),
    ("upsample_bilinear", r#"{ type = "upsample", scale_factor = [2, 3], mode = "bilinear" }"#, IMAGE),
    (
        "residual",
        r#"{ type = "residual", layers = [
             { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, bias = false }, { type = "batch_norm" },
             { type = "relu" },
             { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, bias = false }, { type = "batch_norm" },
           ] }"#,
        IMAGE,
    ),
    (
        "concat",
        r#"{ type = "concat", branches = [[{ type = "conv2d", out_channels = 2, kernel_size = 1 }], []] }"#,
        IMAGE,
    ),
    (
        "parallel",
        r#"{ type = "parallel", combine = "multiply", branches = [
             [{ type = "linear", out_features = 8 }],
             [{ type = "linear", out_features = 8 }, { type = "sigmoid" }],
           ] }"#,
        SEQUENCE,
    ),
    (
        "squeeze_excite",
        r#"{ type = "parallel", combine = "multiply", branches = [
             [],
             [
               { type = "adaptive_avg_pool2d" }, { type = "conv2d", out_channels = 4, kernel_size = 1 },
               { type = "hard_sigmoid" },
             ],
           ] }"#,
        IMAGE,
    ),
    (
        "sum_with_channels",
        r#"{ type = "parallel", branches = [[{ type = "adaptive_avg_pool2d" }], [{ type = "tanh" }]] }"#,
        IMAGE,
    ),
];

fn network(layers: &str, shape: &[i64], dtype: Dtype) -> Network {
    let options: ModelOptions = toml::from_str(&format!("layers = [{layers}]")).unwrap();
    Network::new(Arc::new(options.lower(&shape[1..], dtype).unwrap()), 7, Device::Cpu).unwrap()
}

/// Numbers without a pattern that an error could share: those of `layers.py`.
fn weights(shape: &[i64], kind: Kind) -> Tensor {
    let numbers: Vec<f32> = (0..shape.iter().product::<i64>())
        .map(|index| index as f64)
        .map(|index| (0.7 * index * index + index).sin() as f32)
        .collect();
    Tensor::from_slice(&numbers).to_kind(kind).reshape(shape)
}

fn weighted_sum(tensor: &Tensor) -> f64 {
    let tensor = tensor.detach().to_kind(Kind::Double);
    (&tensor * weights(&tensor.size(), Kind::Float).to_kind(Kind::Double)).sum(Kind::Double).double_value(&[])
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{what}: {found}, PyTorch has {expected}");
}

fn assert_as_pytorch(name: &str, network: &Network, input: &Tensor) {
    let figures: Value = serde_json::from_str(FIGURES).unwrap();
    let case = &figures["cases"][name];
    let numbers = |key: &str| case[key].as_array().unwrap_or_else(|| panic!("{name} has {key}")).clone();
    let last = |name: &str| name.rsplit('.').next().unwrap().to_owned();

    assert_eq!(network.parameters().len(), numbers("initial").len(), "{name}");
    let names: Vec<String> =
        numbers("names").iter().map(|name| last(name.as_str().unwrap())).filter(|name| !name.is_empty()).collect();
    for tensor in network.parameters().iter().chain(network.buffers()) {
        assert!(names.contains(&last(&tensor.name)), "{name}: PyTorch has no {} in {names:?}", tensor.name);
    }
    for (parameter, expected) in network.parameters().iter().zip(numbers("initial")) {
        assert_close(&format!("{name}: {} at first", parameter.name), weighted_sum(&parameter.tensor), &expected);
    }
    let _generator = test_support::default_generator();
    let output = network.forward(input, Mode::Train).unwrap();
    let shape: Vec<Value> = output.size()[1..].iter().map(|&length| length.into()).collect();
    assert_eq!((shape, network.output_shape()), (numbers("shape"), Some(&output.size()[1..])), "{name}");
    assert_close(&format!("{name}: output"), weighted_sum(&output), &case["output"]);
    (&output * weights(&output.size(), Kind::Float)).sum(Kind::Float).backward();
    for (parameter, expected) in network.parameters().iter().zip(numbers("gradients")) {
        let what = format!("{name}: gradient of {}", parameter.name);
        assert_close(&what, weighted_sum(&parameter.tensor.grad()), &expected);
    }
    if input.requires_grad() {
        assert_close(&format!("{name}: gradient of the input"), weighted_sum(&input.grad()), &case["input_gradient"]);
    }
    for (buffer, expected) in network.buffers().iter().zip(numbers("buffers")) {
        assert_close(&format!("{name}: {} afterward", buffer.name), weighted_sum(&buffer.tensor), &expected);
    }
}

#[test]
fn every_layer_is_that_of_pytorch() {
    for (name, layers, shape) in CASES {
        let input = (weights(shape, Kind::Float) * 2.0).set_requires_grad(true);
        assert_as_pytorch(name, &network(layers, shape, Dtype::F32), &input);
    }
    let tokens = Tensor::from_slice2(&[[3i64, 1, 4], [1, 5, 10]]);
    let layers = r#"{ type = "embedding", num_embeddings = 11, embedding_dim = 4 }"#;
    assert_as_pytorch("embedding", &network(layers, &[2, 3], Dtype::I64), &tokens);
}

/// Plugins look for the tensors of a node by these names.
#[test]
fn tensors_have_the_names_that_the_sdk_says() {
    for (name, layers, shape) in CASES {
        let network = network(layers, shape, Dtype::F32);
        for node in network.graph().unwrap().nodes() {
            let whole = |names: Vec<String>| names.iter().map(|own| format!("{}.{own}", node.name)).collect::<Vec<_>>();
            let listed = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
            assert_eq!(listed(&node.parameters), whole(node.op.parameter_names()), "{name}");
            assert_eq!(listed(&node.buffers), whole(node.op.buffer_names()), "{name}");
        }
    }
}

#[test]
fn every_case_of_the_figures_is_one_here() {
    let figures: Value = serde_json::from_str(FIGURES).unwrap();
    let mut here: Vec<&str> = CASES.iter().map(|(name, ..)| *name).chain(["embedding"]).collect();
    here.sort_unstable();
    let mut there: Vec<&str> = figures["cases"].as_object().unwrap().keys().map(String::as_str).collect();
    there.sort_unstable();
    assert_eq!(here, there);
}

/// The largest difference between autograd and central differences over some elements of `tensor`, relative to the
/// larger magnitude, or to 1 if that is more.
fn difference(tensor: &Tensor, gradient: &Tensor, loss: impl Fn() -> f64) -> f64 {
    const STEP: f64 = 1e-6;
    let (flat, gradient) = (tensor.detach().view(-1), gradient.reshape(-1));
    let count = flat.size()[0];
    (0..count)
        .step_by((count / 24).max(1) as usize)
        .map(|index| {
            let mut element = flat.get(index);
            let before = element.double_value(&[]);
            let mut at = |value: f64| {
                let _ = element.fill_(value);
                loss()
            };
            let numeric = (at(before + STEP) - at(before - STEP)) / (2.0 * STEP);
            at(before);
            let analytic = gradient.double_value(&[index]);
            (numeric - analytic).abs() / numeric.abs().max(analytic.abs()).max(1.0)
        })
        .fold(0.0, f64::max)
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let _generator = test_support::default_generator();
    for (name, layers, shape) in CASES {
        let mut network = network(layers, shape, Dtype::F32);
        network.convert(Kind::Double);
        let input = (weights(shape, Kind::Double) * 2.0).set_requires_grad(true);
        let loss = || {
            let output = network.forward(&input, Mode::Train).unwrap();
            (&output * weights(&output.size(), Kind::Double)).sum(Kind::Double)
        };
        loss().backward();
        let value = || tch::no_grad(|| loss().double_value(&[]));
        let found = difference(&input, &input.grad(), value);
        assert!(found < 1e-6, "{name}: the input's gradient is off by {found}");
        for parameter in network.parameters() {
            let found = difference(&parameter.tensor, &parameter.tensor.grad(), value);
            assert!(found < 1e-6, "{name}: the gradient of {} is off by {found}", parameter.name);
        }
    }
}
