use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use zip::CompressionMethod;

use crate::model::program::tests::{changed, open, with_document};
use crate::model::{Graph, Mode, Network};
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

fn images(batch: i64) -> Tensor {
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
    for net in ["mlp", "cnn", "lstm", "resnet", "mobilenet"] {
        let network = network(net);
        let graph = Arc::clone(network.graph().unwrap());
        manual_seed(3);
        for _ in 0..4 {
            let targets = Tensor::arange(6, (Kind::Int64, Device::Cpu));
            network.forward(&images(6), Mode::Train).unwrap().cross_entropy_for_logits(&targets).backward();
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
                let expected = network.forward(&images(batch), Mode::Evaluate).unwrap();
                let found = of_graph.forward(&images(batch), Mode::Evaluate).unwrap();
                let difference = largest_difference(&expected, &found);
                assert!(difference <= 1e-6 * expected.abs().max().double_value(&[]).max(1.0), "{net}: {difference}");
            }
            // The values of its nodes are the program's own, whatever changes them in place.
            let all: Vec<usize> = (0..graph.nodes().len()).collect();
            let (output, of_program) = network.forward_with(&images(5), Mode::Evaluate, &all).unwrap();
            let (_, of_nodes) = of_graph.forward_with(&images(5), Mode::Evaluate, &all).unwrap();
            assert_eq!(output, network.forward(&images(5), Mode::Evaluate).unwrap());
            for (node, (one, other)) in graph.nodes().iter().zip(of_program.iter().zip(&of_nodes)) {
                assert_eq!(one.size(), other.size(), "{net}, {}", node.name);
                let difference = largest_difference(one, other);
                assert!(difference <= 1e-5, "{net}, {}: {difference}", node.name);
            }
        });
    }
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
fn what_is_not_in_the_graph_is_told_with_its_node() {
    let reasons = ["vit", "gpt2", "bert"].map(|net| format!("{net}: {}", network(net).graph().unwrap_err()));
    insta::assert_snapshot!(reasons.join("\n"), @"
    vit: the model has no graph: node `expand` (`aten.expand.default`): the graph has no such operator
    gpt2: the model has no graph: node `arange` (`aten.arange.default`): the graph has no such operator
    bert: the model has no graph: node `expand` (`aten.expand.default`): it reads the constant `b_bert_bert_embeddings_token_type_ids`
    ");
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
    let without_module = changed("mlp", CompressionMethod::Stored, |name, content| {
        if name.ends_with(".json") {
            *content = String::from_utf8_lossy(content).replace("\"1.weight\"", "\"weight\"").into();
        }
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
    let cases = [whole_numbers, twice, in_place, without_module, unused, other_axes, batch, no_statistics];
    let reasons = cases.map(|bytes| open(&bytes).unwrap().graph().unwrap_err().to_string());
    insta::assert_snapshot!(reasons.join("\n"), @"
    node `relu` (`aten.to.dtype`): its value has another dtype than what it reads
    node `linear_1` (`aten.linear.default`): its tensors are those of the node `1`, too: they are shared or tied
    node `linear_1` (`aten.linear.default`): it reads `linear`, which another node has changed in place
    node `linear` (`aten.linear.default`): its tensor `weight` has no module's name: wrap the model in a module that holds it
    its tensor `4.bias` is that of no layer
    node `mean` (`aten.mean.dim`): it is a mean of values of the shape [4, 8, 8] that is not over images
    node `relu` (`aten.relu.default`): the value `relu` does not begin with the batch
    node `batch_norm` (`aten.batch_norm.default`): it has no `running_mean`, and a layer of the graph has
    ");
}
