use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use zip::CompressionMethod;

use crate::model::program::tests::{changed, open, with_document};
use crate::model::{BatchTargets, Dtype, Graph, Interface, Mode, ModelBatch, Network};
use crate::torch::{manual_seed, test_support};

/// A net of `tests/figures/exported.py`, tried on samples as a run does.
fn network(net: &str) -> Network {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/figures/exported/{net}.pt2"));
    let mut network = Network::exported(&path, None, None, Device::Cpu).unwrap();
    let (shape, kind): (&[i64], Kind) =
        if matches!(net, "gpt2" | "bert") { (&[12], Kind::Int64) } else { (&[1, 8, 8], Kind::Float) };
    network.try_on((shape, kind)).unwrap();
    network
}

/// A batch for a net: images, or tokens.
fn samples(net: &str, batch: i64) -> Tensor {
    if matches!(net, "gpt2" | "bert") {
        let tokens = Tensor::arange(batch * 12, (Kind::Int64, Device::Cpu)) * 7;
        return tokens.remainder(50).reshape([batch, 12]);
    }
    (Tensor::arange(batch * 64, (Kind::Float, Device::Cpu)) * 0.37).sin().reshape([batch, 1, 8, 8])
}

/// The graph over copies of the network's tensors.
fn executed(network: &Network, graph: &Arc<Graph>) -> Network {
    Network::over(Arc::clone(graph), network.copy().unwrap(), Device::Cpu).unwrap()
}

fn largest_difference(one: &Tensor, other: &Tensor) -> f64 {
    (one - other).abs().max().double_value(&[])
}

fn described(graph: &Graph) -> String {
    let mut text = String::new();
    for node in graph.nodes() {
        writeln!(text, "{} = {}({}) {:?}", node.name, node.op.name(), node.inputs.join(", "), node.shape).unwrap();
    }
    text
}

/// The nets that are wholly in the graph, and their outputs in evaluation after some steps of training, which move weights and
/// statistics from values that would hide an error.
#[test]
fn a_graph_computes_what_its_program_computes() {
    let _generator = test_support::default_generator();
    for net in ["mlp", "cnn", "lstm", "resnet", "mobilenet", "vit", "gpt2", "bert", "functions"] {
        let network = network(net);
        let graph = Arc::clone(network.graph().unwrap());
        manual_seed(3);
        for _ in 0..4 {
            let targets = Tensor::arange(6, (Kind::Int64, Device::Cpu));
            network.forward(&samples(net, 6), Mode::Train).unwrap().cross_entropy_for_logits(&targets).backward();
            tch::no_grad(|| {
                for parameter in network.parameters() {
                    let (mut tensor, mut gradient) = (parameter.tensor.shallow_clone(), parameter.tensor.grad());
                    let _ = tensor.g_sub_(&(&gradient * 0.1));
                    let _ = gradient.zero_();
                }
            });
        }
        let of_graph = executed(&network, &graph);
        tch::no_grad(|| {
            for batch in [1, 5] {
                let expected = network.forward(&samples(net, batch), Mode::Evaluate).unwrap();
                let found = of_graph.forward(&samples(net, batch), Mode::Evaluate).unwrap();
                let difference = largest_difference(&expected, &found);
                assert!(difference <= 1e-6 * expected.abs().max().double_value(&[]).max(1.0), "{net}: {difference}");
            }
            // The values of its nodes are the program's own, whatever changes them in place.
            let all: Vec<usize> = (0..graph.nodes().len()).collect();
            let batch = samples(net, 5);
            let (output, of_program) = network.forward_with(&batch, Mode::Evaluate, &all).unwrap();
            let (_, of_nodes) = of_graph.forward_with(&batch, Mode::Evaluate, &all).unwrap();
            assert_eq!(output, network.forward(&batch, Mode::Evaluate).unwrap());
            for (node, (one, other)) in graph.nodes().iter().zip(of_program.iter().zip(&of_nodes)) {
                assert_eq!(one.size(), other.size(), "{net}, {}", node.name);
                let difference = largest_difference(one, other);
                assert!(difference <= 1e-5, "{net}, {}: {difference}", node.name);
            }
        });
    }
}

/// A net with several inputs, tried on samples as a run does, and the numbers of a batch of it.
fn network_of_several(net: &str, change: impl Fn(&mut Value)) -> Network {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), with_document(net, change)).unwrap();
    let (arguments, second, output): (&[(&str, &str)], _, _) = match net {
        "masked_bert" => {
            (&[("input_ids", "inputs"), ("attention_mask", "mask"), ("labels", "targets")], "mask", "logits")
        }
        _ => (&[("image", "pixels"), ("categories", "inputs")], "pixels", "logits"),
    };
    let arguments = arguments.iter().map(|(argument, input)| ((*argument).to_owned(), (*input).to_owned())).collect();
    let inputs = ["inputs", second].map(str::to_owned);
    let targets = Some(BatchTargets { name: "targets", shape: &[], kind: Kind::Int64 });
    let interface =
        Interface { output: Some(output), gives_loss: false, arguments: &arguments, inputs: &inputs, targets };
    let mut network = Network::exported_with(file.path(), None, &interface, Device::Cpu).unwrap();
    match net {
        "masked_bert" => {
            let ids = (&[12i64][..], Kind::Int64);
            network.try_on_all(ids, &[ids], Some((&[], Kind::Int64))).unwrap();
        }
        _ => network.try_on_all((&[3], Kind::Int64), &[(&[1, 8, 8], Kind::Float)], None).unwrap(),
    }
    network
}

fn batch_of_several(net: &str, batch: i64) -> [Tensor; 2] {
    if net == "masked_bert" {
        // Each sample is another length, at least 1.
        let lengths = (Tensor::arange(batch, (Kind::Int64, Device::Cpu)) * 5).remainder(12) + 1;
        let positions = Tensor::arange(12, (Kind::Int64, Device::Cpu)).reshape([1, 12]);
        return [samples("bert", batch), positions.lt_tensor(&lengths.reshape([-1, 1])).to_kind(Kind::Int64)];
    }
    let categories = Tensor::arange(batch * 3, (Kind::Int64, Device::Cpu)).remainder(7).reshape([batch, 3]);
    [categories, samples("cnn", batch)]
}

#[test]
fn a_graph_of_several_inputs_computes_what_its_program_computes() {
    // With a mask that depends on sizes alone, too, which hides all keys from the first queries.
    let hides_first = |document: &mut Value| node(document, "ge")["inputs"][1]["arg"] = json!({ "as_int": 2 });
    let masked = [network_of_several("masked_bert", |_| {}), network_of_several("masked_bert", hides_first)];
    let has_product = |network: &Network| described(network.graph().unwrap()).contains("and_2 = multiply(");
    assert_eq!([0, 1].map(|place| has_product(&masked[place])), [false, true]);
    let networks = masked.map(|network| ("masked_bert", [Dtype::I64, Dtype::I64], network));
    let others = [("two_towers", [Dtype::I64, Dtype::F32], network_of_several("two_towers", |_| {}))];
    for (net, dtypes, network) in networks.into_iter().chain(others) {
        let graph = Arc::clone(network.graph().unwrap());
        let inputs: Vec<(&str, Dtype)> =
            graph.inputs().iter().map(|input| (input.name.as_str(), input.dtype)).collect();
        let second = if net == "masked_bert" { "mask" } else { "pixels" };
        assert_eq!(inputs, [("inputs", dtypes[0]), (second, dtypes[1])], "{net}");
        // One that its graph has from a checkpoint is the same.
        let graph: Arc<Graph> = Arc::new(serde_json::from_value(serde_json::to_value(&*graph).unwrap()).unwrap());
        // Initial weights are so small that attention hardly counts.
        tch::no_grad(|| {
            for matrix in network.parameters().iter().filter(|named| named.tensor.dim() > 1) {
                let _ = matrix.tensor.shallow_clone().g_mul_scalar_(6.0);
            }
        });
        let of_graph = executed(&network, &graph);
        let all: Vec<usize> = (0..graph.nodes().len()).collect();
        tch::no_grad(|| {
            for size in [1, 5] {
                let [inputs, other] = batch_of_several(net, size);
                let batch = ModelBatch { inputs: &inputs, others: std::slice::from_ref(&other), targets: None };
                let expected = network.compute(batch, Mode::Evaluate, &all).unwrap();
                let found = of_graph.compute(batch, Mode::Evaluate, &all).unwrap();
                let output = of_graph.compute(batch, Mode::Evaluate, &[]).unwrap().output;
                assert_eq!(output, found.output, "{net}");
                let difference = largest_difference(&expected.output, &output);
                let largest = expected.output.abs().max().double_value(&[]).max(1.0);
                assert!(difference <= 1e-6 * largest, "{net}: {difference}");
                for (node, (one, other)) in graph.nodes().iter().zip(expected.values.iter().zip(&found.values)) {
                    assert_eq!((one.size(), one.kind()), (other.size(), other.kind()), "{net}, {}", node.name);
                    let difference = largest_difference(one, other);
                    assert!(difference <= 1e-5, "{net}, {}: {difference}", node.name);
                }
                // The second input counts, and without it the graph cannot compute.
                let changed = if net == "masked_bert" { other.ones_like() } else { other.zeros_like() };
                let others = std::slice::from_ref(&changed);
                // The first position alone makes the output, and may see nothing.
                let read = if net == "masked_bert" { "scaled_dot_product_attention" } else { graph.output() };
                let read = graph.node_index(read).unwrap();
                let without = of_graph.compute(ModelBatch { others, ..batch }, Mode::Evaluate, &[read]).unwrap();
                assert!(largest_difference(&without.values[0], &found.values[read]) > 1e-3, "{net}");
                let error = of_graph.forward(&inputs, Mode::Evaluate).unwrap_err().to_string();
                assert!(error.contains("the graph takes 2 inputs, and is given 1"), "{error}");
            }
        });
    }
}

/// A mask becomes numbers once, and attention reads it as it is.
#[test]
fn a_mask_that_a_batch_holds_is_part_of_the_graph() {
    let described = described(network_of_several("masked_bert", |_| {}).graph().unwrap());
    let of_mask: Vec<&str> = described.lines().filter(|line| !line.contains("bert.")).collect();
    insta::assert_snapshot!(of_mask[..6].join("\n"), @"
    expand_1 = constant() [12]
    slice_1 = constant() [12]
    mask_float = to_float(mask) [12]
    to = compare(mask_float) [12]
    index = reshape(to) [1, 1, 12]
    transpose = permute(view) [2, 12, 8]
    ");
    let readers: Vec<&&str> = of_mask.iter().filter(|line| line.contains("index)")).collect();
    assert_eq!(readers.len(), 2, "{readers:?}");
    assert!(readers.iter().all(|line| line.contains(" = scaled_dot_product_attention(")), "{readers:?}");
}

#[test]
fn layers_have_the_names_of_their_modules() {
    let graphs = ["cnn", "lstm", "resnet", "mobilenet"]
        .map(|net| format!("{net}\n{}", described(network(net).graph().unwrap())));
    insta::assert_snapshot!(graphs.join("\n"), @"
    cnn
    conv = conv2d(x) [4, 8, 8]
    bn = batch_norm(conv) [4, 8, 8]
    relu = relu(bn) [4, 8, 8]
    feature_dropout = dropout(relu) [4, 8, 8]
    mean_pool = adaptive_avg_pool2d(feature_dropout) [4, 1, 1]
    mean = flatten(mean_pool) [4]
    head = linear(mean) [10]

    lstm
    squeeze = reshape(x) [8, 8]
    cells = lstm(squeeze) [8]
    head = linear(cells) [10]

    resnet
    stem.0 = conv2d(x) [4, 8, 8]
    stem.1 = batch_norm(stem.0) [4, 8, 8]
    relu_ = relu(stem.1) [4, 8, 8]
    max_pool2d = max_pool2d(relu_) [4, 4, 4]
    layers.0.conv1 = conv2d(max_pool2d) [4, 4, 4]
    layers.0.bn1 = batch_norm(layers.0.conv1) [4, 4, 4]
    relu__1 = relu(layers.0.bn1) [4, 4, 4]
    layers.0.conv2 = conv2d(relu__1) [4, 4, 4]
    layers.0.bn2 = batch_norm(layers.0.conv2) [4, 4, 4]
    add__3 = add(layers.0.bn2, max_pool2d) [4, 4, 4]
    relu__2 = relu(add__3) [4, 4, 4]
    layers.1.conv1 = conv2d(relu__2) [8, 2, 2]
    layers.1.bn1 = batch_norm(layers.1.conv1) [8, 2, 2]
    relu__3 = relu(layers.1.bn1) [8, 2, 2]
    layers.1.conv2 = conv2d(relu__3) [8, 2, 2]
    layers.1.bn2 = batch_norm(layers.1.conv2) [8, 2, 2]
    layers.1.downsample.0 = conv2d(relu__2) [8, 2, 2]
    layers.1.downsample.1 = batch_norm(layers.1.downsample.0) [8, 2, 2]
    add__7 = add(layers.1.bn2, layers.1.downsample.1) [8, 2, 2]
    relu__4 = relu(add__7) [8, 2, 2]
    adaptive_avg_pool2d = adaptive_avg_pool2d(relu__4) [8, 1, 1]
    flatten = flatten(adaptive_avg_pool2d) [8]
    head = linear(flatten) [10]

    mobilenet
    net.features.0.0 = conv2d(x) [8, 4, 4]
    net.features.0.1 = batch_norm(net.features.0.0) [8, 4, 4]
    hardswish_ = hard_swish(net.features.0.1) [8, 4, 4]
    net.features.1.block.0.0 = conv2d(hardswish_) [8, 4, 4]
    net.features.1.block.0.1 = batch_norm(net.features.1.block.0.0) [8, 4, 4]
    relu_ = relu(net.features.1.block.0.1) [8, 4, 4]
    adaptive_avg_pool2d = adaptive_avg_pool2d(relu_) [8, 1, 1]
    net.features.1.block.1.fc1 = conv2d(adaptive_avg_pool2d) [8, 1, 1]
    relu = relu(net.features.1.block.1.fc1) [8, 1, 1]
    net.features.1.block.1.fc2 = conv2d(relu) [8, 1, 1]
    hardsigmoid = hard_sigmoid(net.features.1.block.1.fc2) [8, 1, 1]
    mul_4 = multiply(hardsigmoid, relu_) [8, 4, 4]
    net.features.1.block.2.0 = conv2d(mul_4) [8, 4, 4]
    net.features.1.block.2.1 = batch_norm(net.features.1.block.2.0) [8, 4, 4]
    add__3 = add(net.features.1.block.2.1, hardswish_) [8, 4, 4]
    net.features.2.block.0.0 = conv2d(add__3) [16, 4, 4]
    net.features.2.block.0.1 = batch_norm(net.features.2.block.0.0) [16, 4, 4]
    hardswish__1 = hard_swish(net.features.2.block.0.1) [16, 4, 4]
    net.features.2.block.1.0 = conv2d(hardswish__1) [16, 2, 2]
    net.features.2.block.1.1 = batch_norm(net.features.2.block.1.0) [16, 2, 2]
    hardswish__2 = hard_swish(net.features.2.block.1.1) [16, 2, 2]
    adaptive_avg_pool2d_1 = adaptive_avg_pool2d(hardswish__2) [16, 1, 1]
    net.features.2.block.2.fc1 = conv2d(adaptive_avg_pool2d_1) [8, 1, 1]
    relu_1 = relu(net.features.2.block.2.fc1) [8, 1, 1]
    net.features.2.block.2.fc2 = conv2d(relu_1) [16, 1, 1]
    hardsigmoid_1 = hard_sigmoid(net.features.2.block.2.fc2) [16, 1, 1]
    mul_11 = multiply(hardsigmoid_1, hardswish__2) [16, 2, 2]
    net.features.2.block.3.0 = conv2d(mul_11) [8, 2, 2]
    net.features.2.block.3.1 = batch_norm(net.features.2.block.3.0) [8, 2, 2]
    net.features.3.0 = conv2d(net.features.2.block.3.1) [48, 2, 2]
    net.features.3.1 = batch_norm(net.features.3.0) [48, 2, 2]
    hardswish__3 = hard_swish(net.features.3.1) [48, 2, 2]
    adaptive_avg_pool2d_2 = adaptive_avg_pool2d(hardswish__3) [48, 1, 1]
    flatten = flatten(adaptive_avg_pool2d_2) [48]
    net.classifier.0 = linear(flatten) [16]
    hardswish__4 = hard_swish(net.classifier.0) [16]
    dropout_ = dropout(hardswish__4) [16]
    net.classifier.3 = linear(dropout_) [10]
    ");
}

#[test]
fn transformers_have_nodes_for_positions_attention_and_shared_tensors() {
    let graphs = ["vit", "gpt2", "bert"].map(|net| format!("{net}\n{}", described(network(net).graph().unwrap())));
    insta::assert_snapshot!(graphs.join("\n"), @"
    vit
    vit.patch_embed.proj = conv2d(x) [16, 4, 4]
    flatten = reshape(vit.patch_embed.proj) [16, 16]
    transpose = permute(flatten) [16, 16]
    p_vit_cls_token = parameter() [1, 16]
    cat = concat(p_vit_cls_token, transpose) [17, 16]
    p_vit_pos_embed = parameter() [17, 16]
    add = add(cat, p_vit_pos_embed) [17, 16]
    dropout = dropout(add) [17, 16]
    vit.blocks.0.norm1 = layer_norm(dropout) [17, 16]
    vit.blocks.0.attn.qkv = linear(vit.blocks.0.norm1) [17, 48]
    reshape = reshape(vit.blocks.0.attn.qkv) [17, 3, 2, 8]
    permute = permute(reshape) [3, 2, 17, 8]
    getitem = select(permute) [2, 17, 8]
    getitem_1 = select(permute) [2, 17, 8]
    getitem_2 = select(permute) [2, 17, 8]
    scaled_dot_product_attention = scaled_dot_product_attention(getitem, getitem_1, getitem_2) [2, 17, 8]
    transpose_1 = permute(scaled_dot_product_attention) [17, 2, 8]
    reshape_1 = reshape(transpose_1) [17, 16]
    vit.blocks.0.attn.proj = linear(reshape_1) [17, 16]
    dropout_1 = dropout(vit.blocks.0.attn.proj) [17, 16]
    add_1 = add(dropout, dropout_1) [17, 16]
    vit.blocks.0.norm2 = layer_norm(add_1) [17, 16]
    vit.blocks.0.mlp.fc1 = linear(vit.blocks.0.norm2) [17, 64]
    gelu = gelu(vit.blocks.0.mlp.fc1) [17, 64]
    dropout_2 = dropout(gelu) [17, 64]
    vit.blocks.0.mlp.fc2 = linear(dropout_2) [17, 16]
    dropout_3 = dropout(vit.blocks.0.mlp.fc2) [17, 16]
    add_2 = add(add_1, dropout_3) [17, 16]
    vit.blocks.1.norm1 = layer_norm(add_2) [17, 16]
    vit.blocks.1.attn.qkv = linear(vit.blocks.1.norm1) [17, 48]
    reshape_2 = reshape(vit.blocks.1.attn.qkv) [17, 3, 2, 8]
    permute_1 = permute(reshape_2) [3, 2, 17, 8]
    getitem_3 = select(permute_1) [2, 17, 8]
    getitem_4 = select(permute_1) [2, 17, 8]
    getitem_5 = select(permute_1) [2, 17, 8]
    scaled_dot_product_attention_1 = scaled_dot_product_attention(getitem_3, getitem_4, getitem_5) [2, 17, 8]
    transpose_2 = permute(scaled_dot_product_attention_1) [17, 2, 8]
    reshape_3 = reshape(transpose_2) [17, 16]
    vit.blocks.1.attn.proj = linear(reshape_3) [17, 16]
    dropout_4 = dropout(vit.blocks.1.attn.proj) [17, 16]
    add_3 = add(add_2, dropout_4) [17, 16]
    vit.blocks.1.norm2 = layer_norm(add_3) [17, 16]
    vit.blocks.1.mlp.fc1 = linear(vit.blocks.1.norm2) [17, 64]
    gelu_1 = gelu(vit.blocks.1.mlp.fc1) [17, 64]
    dropout_5 = dropout(gelu_1) [17, 64]
    vit.blocks.1.mlp.fc2 = linear(dropout_5) [17, 16]
    dropout_6 = dropout(vit.blocks.1.mlp.fc2) [17, 16]
    add_4 = add(add_3, dropout_6) [17, 16]
    vit.norm = layer_norm(add_4) [17, 16]
    select = select(vit.norm) [16]
    dropout_7 = dropout(select) [16]
    vit.head = linear(dropout_7) [10]

    gpt2
    gpt2.transformer.wte = embedding(tokens) [12, 16]
    unsqueeze = constant() [12]
    gpt2.transformer.wpe = embedding(unsqueeze) [12, 16]
    add_1 = add(gpt2.transformer.wte, gpt2.transformer.wpe) [12, 16]
    dropout = dropout(add_1) [12, 16]
    gpt2.transformer.h.0.ln_1 = layer_norm(dropout) [12, 16]
    gpt2.transformer.h.0.attn.c_attn = linear(gpt2.transformer.h.0.ln_1) [12, 48]
    getitem = slice(gpt2.transformer.h.0.attn.c_attn) [12, 16]
    getitem_1 = slice(gpt2.transformer.h.0.attn.c_attn) [12, 16]
    getitem_2 = slice(gpt2.transformer.h.0.attn.c_attn) [12, 16]
    view_3 = reshape(getitem_1) [12, 2, 8]
    transpose = permute(view_3) [2, 12, 8]
    view_4 = reshape(getitem_2) [12, 2, 8]
    transpose_1 = permute(view_4) [2, 12, 8]
    view_5 = reshape(getitem) [12, 2, 8]
    transpose_2 = permute(view_5) [2, 12, 8]
    scaled_dot_product_attention = scaled_dot_product_attention(transpose_2, transpose, transpose_1) [2, 12, 8]
    transpose_3 = permute(scaled_dot_product_attention) [12, 2, 8]
    reshape_1 = reshape(transpose_3) [12, 16]
    gpt2.transformer.h.0.attn.c_proj = linear(reshape_1) [12, 16]
    dropout_1 = dropout(gpt2.transformer.h.0.attn.c_proj) [12, 16]
    add_4 = add(dropout_1, dropout) [12, 16]
    gpt2.transformer.h.0.ln_2 = layer_norm(add_4) [12, 16]
    gpt2.transformer.h.0.mlp.c_fc = linear(gpt2.transformer.h.0.ln_2) [12, 64]
    mul_3 = multiply_scalar(gpt2.transformer.h.0.mlp.c_fc) [12, 64]
    pow_1 = pow(gpt2.transformer.h.0.mlp.c_fc) [12, 64]
    mul_4 = multiply_scalar(pow_1) [12, 64]
    add_5 = add(gpt2.transformer.h.0.mlp.c_fc, mul_4) [12, 64]
    mul_5 = multiply_scalar(add_5) [12, 64]
    tanh = tanh(mul_5) [12, 64]
    add_6 = add_scalar(tanh) [12, 64]
    mul_6 = multiply(mul_3, add_6) [12, 64]
    gpt2.transformer.h.0.mlp.c_proj = linear(mul_6) [12, 16]
    dropout_2 = dropout(gpt2.transformer.h.0.mlp.c_proj) [12, 16]
    add_7 = add(add_4, dropout_2) [12, 16]
    gpt2.transformer.h.1.ln_1 = layer_norm(add_7) [12, 16]
    gpt2.transformer.h.1.attn.c_attn = linear(gpt2.transformer.h.1.ln_1) [12, 48]
    getitem_3 = slice(gpt2.transformer.h.1.attn.c_attn) [12, 16]
    getitem_4 = slice(gpt2.transformer.h.1.attn.c_attn) [12, 16]
    getitem_5 = slice(gpt2.transformer.h.1.attn.c_attn) [12, 16]
    view_14 = reshape(getitem_4) [12, 2, 8]
    transpose_4 = permute(view_14) [2, 12, 8]
    view_15 = reshape(getitem_5) [12, 2, 8]
    transpose_5 = permute(view_15) [2, 12, 8]
    view_16 = reshape(getitem_3) [12, 2, 8]
    transpose_6 = permute(view_16) [2, 12, 8]
    scaled_dot_product_attention_1 = scaled_dot_product_attention(transpose_6, transpose_4, transpose_5) [2, 12, 8]
    transpose_7 = permute(scaled_dot_product_attention_1) [12, 2, 8]
    reshape_3 = reshape(transpose_7) [12, 16]
    gpt2.transformer.h.1.attn.c_proj = linear(reshape_3) [12, 16]
    dropout_3 = dropout(gpt2.transformer.h.1.attn.c_proj) [12, 16]
    add_8 = add(dropout_3, add_7) [12, 16]
    gpt2.transformer.h.1.ln_2 = layer_norm(add_8) [12, 16]
    gpt2.transformer.h.1.mlp.c_fc = linear(gpt2.transformer.h.1.ln_2) [12, 64]
    mul_7 = multiply_scalar(gpt2.transformer.h.1.mlp.c_fc) [12, 64]
    pow_2 = pow(gpt2.transformer.h.1.mlp.c_fc) [12, 64]
    mul_8 = multiply_scalar(pow_2) [12, 64]
    add_9 = add(gpt2.transformer.h.1.mlp.c_fc, mul_8) [12, 64]
    mul_9 = multiply_scalar(add_9) [12, 64]
    tanh_1 = tanh(mul_9) [12, 64]
    add_10 = add_scalar(tanh_1) [12, 64]
    mul_10 = multiply(mul_7, add_10) [12, 64]
    gpt2.transformer.h.1.mlp.c_proj = linear(mul_10) [12, 16]
    dropout_4 = dropout(gpt2.transformer.h.1.mlp.c_proj) [12, 16]
    add_11 = add(add_8, dropout_4) [12, 16]
    gpt2.transformer.ln_f = layer_norm(add_11) [12, 16]
    gpt2.lm_head = linear(gpt2.transformer.ln_f) [12, 50]
    select = select(gpt2.lm_head) [50]

    bert
    bert.bert.embeddings.word_embeddings = embedding(tokens) [12, 16]
    expand_1 = constant() [12]
    bert.bert.embeddings.token_type_embeddings = embedding(expand_1) [12, 16]
    add = add(bert.bert.embeddings.word_embeddings, bert.bert.embeddings.token_type_embeddings) [12, 16]
    slice_1 = constant() [12]
    bert.bert.embeddings.position_embeddings = embedding(slice_1) [12, 16]
    add_1 = add(add, bert.bert.embeddings.position_embeddings) [12, 16]
    bert.bert.embeddings.LayerNorm = layer_norm(add_1) [12, 16]
    dropout = dropout(bert.bert.embeddings.LayerNorm) [12, 16]
    bert.bert.encoder.layer.0.attention.self.query = linear(dropout) [12, 16]
    view = reshape(bert.bert.encoder.layer.0.attention.self.query) [12, 2, 8]
    transpose = permute(view) [2, 12, 8]
    bert.bert.encoder.layer.0.attention.self.key = linear(dropout) [12, 16]
    view_1 = reshape(bert.bert.encoder.layer.0.attention.self.key) [12, 2, 8]
    transpose_1 = permute(view_1) [2, 12, 8]
    bert.bert.encoder.layer.0.attention.self.value = linear(dropout) [12, 16]
    view_2 = reshape(bert.bert.encoder.layer.0.attention.self.value) [12, 2, 8]
    transpose_2 = permute(view_2) [2, 12, 8]
    scaled_dot_product_attention = scaled_dot_product_attention(transpose, transpose_1, transpose_2) [2, 12, 8]
    transpose_3 = permute(scaled_dot_product_attention) [12, 2, 8]
    reshape_1 = reshape(transpose_3) [12, 16]
    bert.bert.encoder.layer.0.attention.output.dense = linear(reshape_1) [12, 16]
    dropout_1 = dropout(bert.bert.encoder.layer.0.attention.output.dense) [12, 16]
    add_4 = add(dropout_1, dropout) [12, 16]
    bert.bert.encoder.layer.0.attention.output.LayerNorm = layer_norm(add_4) [12, 16]
    bert.bert.encoder.layer.0.intermediate.dense = linear(bert.bert.encoder.layer.0.attention.output.LayerNorm) [12, 32]
    gelu = gelu(bert.bert.encoder.layer.0.intermediate.dense) [12, 32]
    bert.bert.encoder.layer.0.output.dense = linear(gelu) [12, 16]
    dropout_2 = dropout(bert.bert.encoder.layer.0.output.dense) [12, 16]
    add_5 = add(dropout_2, bert.bert.encoder.layer.0.attention.output.LayerNorm) [12, 16]
    bert.bert.encoder.layer.0.output.LayerNorm = layer_norm(add_5) [12, 16]
    bert.bert.encoder.layer.1.attention.self.query = linear(bert.bert.encoder.layer.0.output.LayerNorm) [12, 16]
    view_3 = reshape(bert.bert.encoder.layer.1.attention.self.query) [12, 2, 8]
    transpose_4 = permute(view_3) [2, 12, 8]
    bert.bert.encoder.layer.1.attention.self.key = linear(bert.bert.encoder.layer.0.output.LayerNorm) [12, 16]
    view_4 = reshape(bert.bert.encoder.layer.1.attention.self.key) [12, 2, 8]
    transpose_5 = permute(view_4) [2, 12, 8]
    bert.bert.encoder.layer.1.attention.self.value = linear(bert.bert.encoder.layer.0.output.LayerNorm) [12, 16]
    view_5 = reshape(bert.bert.encoder.layer.1.attention.self.value) [12, 2, 8]
    transpose_6 = permute(view_5) [2, 12, 8]
    scaled_dot_product_attention_1 = scaled_dot_product_attention(transpose_4, transpose_5, transpose_6) [2, 12, 8]
    transpose_7 = permute(scaled_dot_product_attention_1) [12, 2, 8]
    reshape_3 = reshape(transpose_7) [12, 16]
    bert.bert.encoder.layer.1.attention.output.dense = linear(reshape_3) [12, 16]
    dropout_3 = dropout(bert.bert.encoder.layer.1.attention.output.dense) [12, 16]
    add_6 = add(dropout_3, bert.bert.encoder.layer.0.output.LayerNorm) [12, 16]
    bert.bert.encoder.layer.1.attention.output.LayerNorm = layer_norm(add_6) [12, 16]
    bert.bert.encoder.layer.1.intermediate.dense = linear(bert.bert.encoder.layer.1.attention.output.LayerNorm) [12, 32]
    gelu_1 = gelu(bert.bert.encoder.layer.1.intermediate.dense) [12, 32]
    bert.bert.encoder.layer.1.output.dense = linear(gelu_1) [12, 16]
    dropout_4 = dropout(bert.bert.encoder.layer.1.output.dense) [12, 16]
    add_7 = add(dropout_4, bert.bert.encoder.layer.1.attention.output.LayerNorm) [12, 16]
    bert.bert.encoder.layer.1.output.LayerNorm = layer_norm(add_7) [12, 16]
    select = select(bert.bert.encoder.layer.1.output.LayerNorm) [16]
    bert.bert.pooler.dense = linear(select) [16]
    tanh = tanh(bert.bert.pooler.dense) [16]
    dropout_5 = dropout(tanh) [16]
    bert.classifier = linear(dropout_5) [10]
    ");
}

#[test]
fn what_is_not_in_the_graph_is_told_with_its_node() {
    let other = with_document("vit", |document| node(document, "gelu")["target"] = json!("torch.ops.aten.erf.default"));
    let earlier =
        with_document("gpt2", |document| node(document, "le_2")["target"] = json!("torch.ops.aten.ge.Tensor"));
    let of_tokens = with_document("bert", |document| {
        node(document, "ge")["inputs"][0] = arguments(&[("self", "tokens")])[0].clone();
    });
    let over_batch = with_document("vit", |document| {
        node(document, "select")["inputs"][1]["arg"] = json!({ "as_int": 0 });
    });
    let reasons = [other, earlier, of_tokens, over_batch].map(reason);
    insta::assert_snapshot!(reasons.join("\n"), @"
    node `gelu` (`aten.erf.default`): the graph has no such operator
    node `scaled_dot_product_attention` (`aten.scaled_dot_product_attention.default`): its mask `expand_2` hides other positions than all later ones
    node `ge` (`aten.ge.Scalar`): the value `ge` does not begin with the batch
    node `select` (`aten.select.int`): it works along the batch
    ");
}

/// Why a program has no graph.
fn reason(bytes: Vec<u8>) -> String {
    open(&bytes).unwrap().graph().map_or_else(ToString::to_string, |graph| described(graph))
}

/// The arguments of a node of a document.
fn arguments(given: &[(&str, &str)]) -> Value {
    let argument = |(name, tensor): &(&str, &str)| json!({ "name": name, "arg": { "as_tensor": { "name": tensor } } });
    given.iter().map(argument).collect()
}

fn node<'d>(document: &'d mut Value, name: &str) -> &'d mut Value {
    let nodes = document["graph_module"]["graph"]["nodes"].as_array_mut().unwrap();
    nodes.iter_mut().find(|node| node["name"] == name).unwrap()
}

#[test]
fn tensors_of_no_one_module_are_those_of_the_node_that_reads_them() {
    let bytes = changed("mlp", CompressionMethod::Stored, |name, content| {
        if name.ends_with(".json") {
            *content = String::from_utf8_lossy(content).replace("\"1.weight\"", "\"weight\"").into();
        }
    });
    let program = open(&bytes).unwrap();
    let node = &program.graph().unwrap().nodes()[1];
    let names: Vec<&str> = node.parameters.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!((node.name.as_str(), &names[..]), ("linear", &["weight", "1.bias"][..]));
}

#[test]
fn tied_tensors_are_there_once() {
    let network = network("gpt2");
    let graph = network.graph().unwrap();
    let of = |node: &str| graph.nodes()[graph.node_index(node).unwrap()].parameters[0].name.as_str();
    assert_eq!([of("gpt2.transformer.wte"), of("gpt2.lm_head")], ["gpt2.transformer.wte.weight"; 2]);
    assert_eq!(graph.tensors().filter(|tensor| tensor.name == "gpt2.transformer.wte.weight").count(), 1);
    let all: i64 = network.parameters().iter().map(|named| named.tensor.numel() as i64).sum();
    assert_eq!(graph.parameter_count(), all as u64);
    // What is written is read again, and checked again.
    let mut text = serde_json::to_value(graph.as_ref()).unwrap();
    assert_eq!(&serde_json::from_value::<Graph>(text.clone()).unwrap(), graph.as_ref());
    let last = text["nodes"].as_array_mut().unwrap().iter_mut().find(|node| node["name"] == "gpt2.lm_head").unwrap();
    last["parameters"][0]["name"] = json!("gpt2.transformer.wpe.weight");
    let error = serde_json::from_value::<Graph>(text).unwrap_err().to_string();
    assert!(error.contains("the tensors of node `gpt2.lm_head`"), "{error}");
}

#[test]
fn programs_that_a_graph_would_not_compute_have_none() {
    let twice = with_document("mlp", |document| {
        node(document, "linear_1")["inputs"] =
            arguments(&[("input", "dropout"), ("weight", "p_1_weight"), ("bias", "p_1_bias")]);
    });
    // A view of `linear` is changed, and `linear` is read after it.
    let in_place = with_document("mlp", |document| {
        node(document, "relu")["target"] = json!("torch.ops.aten.detach.default");
        node(document, "dropout")["target"] = json!("torch.ops.aten.relu_.default");
        node(document, "dropout")["inputs"] = arguments(&[("self", "relu")]);
        node(document, "linear_1")["inputs"][0] = arguments(&[("input", "linear")])[0].clone();
    });
    let unused = with_document("mlp", |document| {
        node(document, "linear_1")["inputs"].as_array_mut().unwrap().pop();
    });
    let other_axes = with_document("cnn", |document| {
        node(document, "mean")["inputs"][1]["arg"] = json!({ "as_ints": [1, 2] });
    });
    let batch = with_document("cnn", |document| {
        document["graph_module"]["graph"]["tensor_values"]["relu"]["sizes"][0] = json!({ "as_int": 4 });
    });
    let no_statistics = with_document("cnn", |document| {
        node(document, "batch_norm")["inputs"][3]["arg"] = json!({ "as_none": true });
    });
    let whole_numbers = with_document("cnn", |document| {
        node(document, "relu")["target"] = json!("torch.ops.aten.to.dtype");
        node(document, "relu")["inputs"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "name": "dtype", "arg": { "as_scalar_type": 5 } }));
        document["graph_module"]["graph"]["tensor_values"]["relu"]["dtype"] = json!(5);
    });
    let cases = [whole_numbers, twice, in_place, unused, other_axes, batch, no_statistics];
    let reasons = cases.map(reason);
    insta::assert_snapshot!(reasons.join("\n"), @"
    node `relu` (`aten.to.dtype`): its value has another dtype than what it reads
    node `linear_1` (`aten.linear.default`): it expects 64 features in the last dimension, but gets the shape [16]
    node `linear_1` (`aten.linear.default`): it reads `linear`, which another node has changed in place
    its tensor `4.bias` is that of no layer
    node `mean` (`aten.mean.dim`): its value has not the shape [8] of the graph for a sample
    node `relu` (`aten.relu.default`): the value `relu` does not begin with the batch
    node `batch_norm` (`aten.batch_norm.default`): it has no `running_mean`, and a layer of the graph has
    ");
}
