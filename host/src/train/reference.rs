//! Fifty steps with six nets against PyTorch; `tests/figures/training.py` made the figures.

use std::sync::Arc;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::loss::LossOptions;
use super::optimizer::{Optimizer, OptimizerOptions};
use crate::model::{Dtype, Mode, ModelOptions, Network};
use crate::torch::products::{self, Products};
use crate::torch::{test_support, values};

const FIGURES: &str = include_str!("../../../tests/figures/training.json");
const BATCH: i64 = 12;
const CLASSES: i64 = 4;

/// Name, layers, shape of a sample.
const NETS: [(&str, &str, &[i64]); 6] = [
    (
        "mlp",
        r#"{ type = "linear", out_features = 16 }, { type = "relu" }, { type = "linear", out_features = 4 }"#,
        &[8],
    ),
    (
        "cnn",
        r#"{ type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1 }, { type = "batch_norm" },
           { type = "relu" }, { type = "max_pool2d", kernel_size = 2 }, { type = "flatten" },
           { type = "linear", out_features = 4 }"#,
        &[2, 6, 6],
    ),
    (
        "depthwise",
        r#"{ type = "conv2d", out_channels = 4, kernel_size = 1 },
           { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, groups = 4, bias = false },
           { type = "group_norm", num_groups = 2 }, { type = "silu" },
           { type = "conv2d", out_channels = 8, kernel_size = 1 }, { type = "adaptive_avg_pool2d" },
           { type = "flatten" }, { type = "linear", out_features = 4 }"#,
        &[2, 6, 6],
    ),
    (
        "attention",
        r#"{ type = "residual", layers = [
             { type = "layer_norm" }, { type = "multi_head_attention", num_heads = 2, causal = true }] },
           { type = "residual", layers = [
             { type = "layer_norm" }, { type = "linear", out_features = 16 }, { type = "gelu" },
             { type = "linear", out_features = 8 }] },
           { type = "flatten" }, { type = "linear", out_features = 4 }"#,
        &[5, 8],
    ),
    ("lstm", r#"{ type = "lstm", hidden_size = 6, last_only = true }, { type = "linear", out_features = 4 }"#, &[5, 3]),
    ("gru", r#"{ type = "gru", hidden_size = 6, last_only = true }, { type = "linear", out_features = 4 }"#, &[5, 3]),
];

/// The inputs and targets of a step, as in `training.py`.
fn batch(step: usize, sample_shape: &[i64]) -> (Tensor, Tensor) {
    let shape: Vec<i64> = std::iter::once(BATCH).chain(sample_shape.iter().copied()).collect();
    let numbers: Vec<f32> = (0..shape.iter().product::<i64>())
        .map(|index| index as f64)
        .map(|index| (0.7 * index * index + index + step as f64).sin() as f32)
        .collect();
    let targets: Vec<i64> = (0..BATCH).map(|index| (index * index + step as i64) % CLASSES).collect();
    (Tensor::from_slice(&numbers).reshape(&shape), Tensor::from_slice(&targets))
}

fn network(layers: &str, sample_shape: &[i64]) -> Network {
    let options: ModelOptions = toml::from_str(&format!("layers = [{layers}]")).unwrap();
    Network::new(Arc::new(options.lower(sample_shape, Dtype::F32).unwrap()), 7, Device::Cpu).unwrap()
}

/// `max|a − b| ≤ 1e-5 × max(1, max|b|)`.
#[track_caller]
fn assert_close(what: &str, found: &[f64], expected: &Value) {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1.0, |largest: f64, number| largest.max(number.abs()));
    let difference = found.iter().zip(&expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
    assert!(difference <= 1e-5 * largest, "{what}: off by {difference}");
}

#[test]
fn fifty_steps_are_those_of_pytorch() {
    let _generator = test_support::default_generator();
    let figures: Value = serde_json::from_str(FIGURES).unwrap();
    let optimizer: OptimizerOptions =
        toml::from_str("type = 'sgd'\nlearning_rate = 0.05\nmomentum = 0.9\nweight_decay = 1e-3\ndecay = 'all'")
            .unwrap();
    let loss: LossOptions = toml::from_str("type = 'cross_entropy'").unwrap();
    let backends = [Products::Libtorch, Products::Gemm];
    for (products, (name, layers, sample_shape)) in
        backends.into_iter().flat_map(|products| NETS.map(|net| (products, net)))
    {
        let _products = products::enter(products).unwrap();
        let network = network(layers, sample_shape);
        let mut optimizer = Optimizer::new(&optimizer, network.parameters()).unwrap();
        let mut losses = Vec::new();
        for step in 0..figures["nets"][name]["losses"].as_array().unwrap().len() {
            let (inputs, targets) = batch(step, sample_shape);
            optimizer.clear_gradients().unwrap();
            let value = loss.compute(&network.forward(&inputs, Mode::Train).unwrap(), &targets).unwrap();
            value.backward();
            optimizer.step().unwrap();
            losses.push(values::scalar(&value).unwrap());
        }
        assert_close(&format!("{name}, {products:?}: losses"), &losses, &figures["nets"][name]["losses"]);
        let tensors = network.parameters().iter().chain(network.buffers());
        for (named, expected) in tensors.zip(figures["nets"][name]["state"].as_array().unwrap()) {
            let found: Vec<f64> = Vec::try_from(named.tensor.detach().to_kind(Kind::Double).reshape([-1])).unwrap();
            assert_close(&format!("{name}, {products:?}: {}", named.name), &found, expected);
        }
    }
}
