use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use plugin_api::protocol::requests::Freeze;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::model::{Dtype, Graph, Mode, ModelOptions};
use crate::report::Report;
use crate::torch::{manual_seed, random::generator_state, test_support};

const LAYERS: &str = r#"
    layers = [
      { type = "conv2d", out_channels = 4, kernel_size = 3, groups = 1 },
      { type = "conv2d", out_channels = 4, kernel_size = 3, groups = 2, padding = 1 },
      { type = "batch_norm" },
      { type = "reshape", shape = [6, 24] },
      { type = "multi_head_attention", name = "attn", num_heads = 2 },
      { type = "flatten" },
      { type = "linear", out_features = 5 },
      { type = "linear", name = "head", out_features = 3 },
    ]
"#;

fn graph() -> Arc<Graph> {
    let options: ModelOptions = toml::from_str(LAYERS).unwrap();
    Arc::new(options.lower(&[1, 8, 8], Dtype::F32).unwrap())
}

/// A network by the name of its program; `layers` for one of layers.
fn network(name: &str) -> Network {
    match name {
        "layers" => Network::new(graph(), 3, Device::Cpu).unwrap(),
        name => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures/exported");
            Network::exported(&folder.join(format!("{name}.pt2")), None, None, Device::Cpu).unwrap()
        }
    }
}

fn sample(name: &str) -> Tensor {
    match name {
        "gpt2" | "bert" => (Tensor::arange(4 * 12, (Kind::Int64, Device::Cpu)) * 7).remainder(50).reshape([4, 12]),
        _ => (Tensor::arange(4 * 64, (Kind::Float, Device::Cpu)) * 0.37).sin().reshape([4, 1, 8, 8]),
    }
}

fn options(targets: &[&str], train: &[&str]) -> LoraOptions {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    LoraOptions { rank: 3.try_into().unwrap(), alpha: 5.0, targets: texts(targets), train: texts(train) }
}

fn adapted(name: &str, targets: &[&str]) -> Network {
    let mut network = network(name);
    network.adapt(&options(targets, &[]), false, 7).unwrap();
    network
}

/// Gives each `B` values that are not zeros.
fn train_a_little(network: &mut Network) {
    let names: Vec<String> = network.trained().iter().map(|named| named.name.clone()).collect();
    for name in names.iter().filter(|name| name.ends_with("lora_B.weight")) {
        let shape = network.tensor(name).unwrap().size();
        let count = shape.iter().product::<i64>();
        let values = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 1.7).cos() * 0.1;
        network.write(name, &values.reshape(shape)).unwrap();
    }
}

fn named(network: &Network) -> Vec<(String, Tensor)> {
    network.tensors().map(|named| (named.name.clone(), named.tensor.detach())).collect()
}

const ALL: [(&str, &[&str], Layout); 5] = [
    ("layers", &["conv1", "attn", "fc1.weight"], Layout::Linear),
    ("vit", &["*.qkv", "*.patch_embed.proj"], Layout::Linear),
    ("bert", &["*.query", "*.value.weight"], Layout::Linear),
    ("gpt2", &["*.c_attn"], Layout::Transposed),
    ("cnn", &["conv", "head"], Layout::Convolution),
];

#[test]
fn the_first_forward_pass_has_the_bits_of_the_base_and_only_adapters_learn() {
    let _generator = test_support::default_generator();
    for (name, targets, _) in ALL {
        let (mut base, mut adapted) = (network(name), adapted(name, targets));
        // Batch norm in training has another output than in evaluation, and the base's stays.
        let all = Freeze { patterns: vec!["bn*".to_owned()], frozen: true, moving_statistics: false };
        if let Ok(frozen) = base.frozen_after(&all, true) {
            base.set_frozen(frozen).unwrap();
        }
        for mode in [Mode::Evaluate, Mode::Train] {
            let [expected, found] = [&mut base, &mut adapted].map(|network| {
                manual_seed(5);
                network.forward(&sample(name), mode).unwrap()
            });
            assert_eq!(found, expected, "{name} {mode:?}");
        }
        adapted.forward(&sample(name), Mode::Train).unwrap().square().sum(Kind::Float).backward();
        let has_gradient = |named: &&NamedTensor| named.tensor.grad().defined();
        let learning: Vec<&str> =
            adapted.parameters().iter().filter(has_gradient).map(|named| named.name.as_str()).collect();
        let trained = adapted.trained();
        let mut trained: Vec<&str> = trained.iter().map(|named| named.name.as_str()).collect();
        trained.sort_by_key(|name| adapted.parameters().iter().position(|named| named.name == *name));
        assert!(!learning.is_empty());
        assert_eq!(learning, trained, "{name}");
    }
}

/// The gradients of `s B A` from that of the weight: `s G Aᵀ` and `s Bᵀ G`.
#[test]
fn gradients_are_those_of_the_product_and_the_merged_weights_compute_the_same() {
    let _generator = test_support::default_generator();
    for (name, targets, layout) in ALL {
        let mut network = adapted(name, targets);
        train_a_little(&mut network);
        let lora = Arc::clone(network.lora().unwrap());
        let mut merged = self::network(name);
        for (name, tensor) in lora.merged(named(&network), &[]).unwrap() {
            merged.write(&name, &tensor).unwrap();
        }
        let outputs = [&network, &merged].map(|network| {
            let output = network.forward(&sample(name), Mode::Evaluate).unwrap();
            output.square().sum(Kind::Float).backward();
            output
        });
        assert_eq!(outputs[0], outputs[1], "{name}");
        assert_ne!(outputs[0], self::network(name).forward(&sample(name), Mode::Evaluate).unwrap(), "{name}");
        for adapter in &lora.adapters {
            let gradient = merged.gradient(&adapter.weight.parameter).unwrap().unwrap().flatten(1, -1);
            let gradient = if adapter.weight.layout == Layout::Transposed { gradient.tr() } else { gradient };
            let [a, b] = [0, 1].map(|matrix| network.tensor(&adapter.names[matrix]).unwrap().detach().flatten(1, -1));
            let scale = 5.0 / 3.0;
            let expected = [b.tr().matmul(&gradient) * scale, gradient.matmul(&a.tr()) * scale];
            for (name, expected) in adapter.names.iter().zip(expected) {
                let found = network.gradient(name).unwrap().unwrap().flatten(1, -1);
                let largest = expected.abs().max().double_value(&[]);
                let difference = (found - expected).abs().max().double_value(&[]);
                assert!(largest > 0.0 && difference <= 1e-5 * largest, "{name}: {difference} of {largest}");
            }
        }
        assert!(lora.adapters.iter().any(|adapter| adapter.weight.layout == layout), "{name}");
    }
}

#[test]
fn finite_differences_agree_with_the_gradients() {
    let mut network = adapted("layers", &["conv1", "attn", "fc1"]);
    train_a_little(&mut network);
    network.convert(Kind::Double);
    let input = sample("layers").to_kind(Kind::Double);
    let loss = |network: &Network| network.forward(&input, Mode::Evaluate).unwrap().square().sum(Kind::Double);
    loss(&network).backward();
    for named in network.trained() {
        let gradient = named.tensor.grad().flatten(0, -1).double_value(&[1]);
        let shifted = |by: f64| {
            let _ = tch::no_grad(|| named.tensor.view([-1]).narrow(0, 1, 1).g_add_scalar_(by));
            let loss = tch::no_grad(|| loss(&network)).double_value(&[]);
            let _ = tch::no_grad(|| named.tensor.view([-1]).narrow(0, 1, 1).g_add_scalar_(-by));
            loss
        };
        let difference = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
        assert!(
            (difference - gradient).abs() <= 1e-6 * gradient.abs().max(1.0),
            "{}: {difference} {gradient}",
            named.name
        );
    }
}

#[test]
fn adapters_begin_as_in_peft_and_draw_from_no_other_generator() {
    let _generator = test_support::default_generator();
    let before = generator_state(Device::Cpu).unwrap();
    let [first, again] = [(); 2].map(|()| adapted("layers", &["conv1", "attn", "fc1"]));
    let mut other = network("layers");
    other.adapt(&options(&["conv1", "attn", "fc1"], &[]), false, 8).unwrap();
    assert_eq!(before, generator_state(Device::Cpu).unwrap());
    let shapes = [
        ("conv1.lora_A.weight", vec![3, 1, 3, 3]),
        ("conv1.lora_B.weight", vec![4, 3, 1, 1]),
        ("attn.lora_A.weight", vec![3, 24]),
        ("attn.lora_B.weight", vec![72, 3]),
        ("fc1.lora_A.weight", vec![3, 144]),
        ("fc1.lora_B.weight", vec![5, 3]),
    ];
    for (named, (name, shape)) in first.trained().iter().zip(&shapes) {
        assert_eq!((named.name.as_str(), named.tensor.size()), (*name, shape.clone()));
        assert_eq!(&named.tensor, again.tensor(name).unwrap());
        if name.contains("lora_A") {
            assert_ne!(&named.tensor, other.tensor(name).unwrap());
            let bound = 1.0 / (shape[1..].iter().product::<i64>() as f64).sqrt();
            let largest = named.tensor.abs().max().double_value(&[]);
            assert!((bound * 0.8..=bound).contains(&largest), "{name}: {largest} {bound}");
        } else {
            assert_eq!(named.tensor.abs().max().double_value(&[]), 0.0);
        }
    }
    assert_eq!(first.trained().len(), shapes.len());
    for named in network("layers").tensors() {
        assert_eq!(&named.tensor, first.tensor(&named.name).unwrap(), "{}", named.name);
    }
}

#[test]
fn what_is_trained_beside_the_adapters_learns_whatever_the_run_file_freezes() {
    let mut network = network("layers");
    network.adapt(&options(&["attn", "fc1"], &["head.*"]), false, 7).unwrap();
    let request = |patterns: &[&str], frozen| {
        let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Freeze { patterns, frozen, moving_statistics: false }
    };
    let frozen = network.frozen_after(&request(&["attn.*", "head.bias"], true), true).unwrap();
    network.set_frozen(frozen).unwrap();
    network.forward(&sample("layers"), Mode::Train).unwrap().square().sum(Kind::Float).backward();
    let has_gradient = |named: &NamedTensor| named.tensor.grad().defined();
    let learning: Vec<String> = network.trained().into_iter().filter(has_gradient).map(|named| named.name).collect();
    assert_eq!(learning.len(), 5, "{learning:?}");
    assert!(learning.contains(&"attn.lora_A.weight".to_owned()) && learning.contains(&"head.weight".to_owned()));
    let names: Vec<String> = network.trained().into_iter().map(|named| named.name).collect();
    assert_eq!(names.iter().rev().take(2).collect::<Vec<_>>(), ["head.bias", "head.weight"], "in the model's order");

    let refused = network.frozen_after(&request(&["fc1.weight"], false), false).unwrap_err();
    assert!(refused.message.starts_with("`fc1.weight` stays as it is beside the adapters"), "{}", refused.message);
    let frozen = network.frozen_after(&request(&["fc1.lora_*", "head.*"], true), false).unwrap();
    assert!(frozen.contains("fc1.lora_B.weight"), "a callback may freeze an adapter");

    let info = network.lora().unwrap().info();
    assert_eq!((info.rank, info.alpha, info.fan_in_fan_out), (3, 5.0, false));
    assert_eq!(
        (info.target_modules, info.modules_to_save),
        (vec!["attn".to_owned(), "fc1".to_owned()], vec!["head".to_owned()])
    );
    let names = ["attn.lora_A.weight", "attn.lora_B.weight", "fc1.lora_A.weight", "fc1.lora_B.weight"];
    assert_eq!(info.tensors, names);
    let told = network.lora().unwrap().summary(&network);
    assert_eq!(told, "lora: rank 3, 2 weights; 753 of 4002 parameters are trained (18.82 %)");
}

#[test]
fn adapters_are_read_by_their_names_and_missing_ones_change_nothing() {
    let mut network = adapted("layers", &["fc1"]);
    train_a_little(&mut network);
    let lora = network.lora().unwrap();
    let names = |tensors: &[(String, Tensor)]| tensors.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let base: Vec<String> = self::network("layers").tensors().map(|named| named.name.clone()).collect();
    assert_eq!(names(&lora.merged(named(&network), &[]).unwrap()), base);
    let wanted = ["fc1.lora_A.weight".to_owned()];
    let read: BTreeMap<String, Tensor> = lora.merged(named(&network), &wanted).unwrap().into_iter().collect();
    assert_eq!(&read["fc1.lora_A.weight"], network.tensor("fc1.lora_A.weight").unwrap());
    assert!(!read.contains_key("fc1.lora_B.weight"));
    let without: Vec<_> = named(&network).into_iter().filter(|(name, _)| name != "fc1.lora_B.weight").collect();
    let read: BTreeMap<String, Tensor> = lora.merged(without, &[]).unwrap().into_iter().collect();
    assert_eq!(&read["fc1.weight"], network.tensor("fc1.weight").unwrap());
}

#[test]
fn what_cannot_be_adapted_is_named() {
    let refused = |name: &str, targets: &[&str], train: &[&str]| {
        let mut network = network(name);
        let error = network.adapt(&options(targets, train), false, 7).unwrap_err();
        assert!(network.lora().is_none());
        (format!("{}: {error}", error.place()), error.hint().unwrap_or_default())
    };
    let (told, hint) = refused("bert", &["*.query", "query"], &[]);
    insta::assert_snapshot!(told, @"/targets/1: there is no module `query`");
    insta::assert_snapshot!(hint, @"`*.query` fits 2 of the modules; what can be adapted is `bert.bert.encoder.layer.0.attention.self.query`, `bert.bert.encoder.layer.0.attention.self.key`, `bert.bert.encoder.layer.0.attention.self.value`, `bert.bert.encoder.layer.0.attention.output.dense`, `bert.bert.encoder.layer.0.intermediate.dense`, `bert.bert.encoder.layer.0.output.dense`, `bert.bert.encoder.layer.1.attention.self.query`, `bert.bert.encoder.layer.1.attention.self.key` and 6 more; `*` stands for any text");
    insta::assert_snapshot!(refused("layers", &["fc"], &[]).0, @"/targets/0: there is no module `fc`; did you mean `fc1`?");
    insta::assert_snapshot!(refused("layers", &["bn1"], &[]).0, @"/targets/0: LoRA cannot adapt `bn1`: it is `batch_norm`");
    insta::assert_snapshot!(refused("layers", &["conv*"], &[]).0, @"/targets/0: LoRA cannot adapt `conv2`: it is a convolution in 2 groups");
    insta::assert_snapshot!(refused("layers", &["*.out_proj"], &[]).0, @"/targets/0: LoRA cannot adapt `attn.out_proj`: it is the output of a multi-head attention, which PEFT adapts wrongly");
    insta::assert_snapshot!(refused("gpt2", &["*.lm_head"], &[]).0, @"/targets/0: there is no module `*.lm_head`");
    insta::assert_snapshot!(refused("gpt2", &["*.wpe"], &[]).0, @"/targets/0: LoRA cannot adapt `gpt2.transformer.wpe`: its weight is used by `aten::embedding`");
    insta::assert_snapshot!(refused("vit", &["*.norm1"], &[]).0, @"/targets/0: LoRA cannot adapt `vit.blocks.0.norm1`: its weight is used by `aten::layer_norm`");
    insta::assert_snapshot!(refused("lstm", &["cells"], &[]).0, @"/targets/0: LoRA cannot adapt `cells`: its weight is used by `aten::lstm`");
    insta::assert_snapshot!(refused("layers", &["fc1"], &["hed.*"]).0, @"/train/0: there is no parameter `hed.*`; did you mean `head.*`?");
    insta::assert_snapshot!(refused("layers", &["fc1"], &["fc1.bias"]).0, @"/train/0: `fc1.bias` cannot be trained beside the adapters: `fc1` is adapted, and a module is either adapted or trained as a whole");
    insta::assert_snapshot!(refused("vit", &["*.qkv"], &["vit.cls_token"]).0, @"/train/0: `vit.cls_token` cannot be trained beside the adapters: `vit.blocks.0.attn.qkv` is adapted, and a module is either adapted or trained as a whole");
    insta::assert_snapshot!(refused("layers", &[], &[]).0, @"/targets: `targets` names no module");
    let mut network = network("layers");
    let error = network.adapt(&LoraOptions { alpha: f64::NAN, ..options(&["fc1"], &[]) }, false, 7).unwrap_err();
    assert_eq!(
        (error.place(), error.to_string()),
        ("/alpha".to_owned(), "`alpha` is NaN, which is not a number above 0".to_owned())
    );
}
