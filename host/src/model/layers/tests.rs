//! How layers are lowered, and how mistakes are reported.

use super::*;
use crate::model::{Dtype, Graph, ModelError};

fn lower(toml: &str, sample_shape: &[i64]) -> Result<Graph, ModelError> {
    let options: ModelOptions = toml::from_str(toml).unwrap();
    options.lower(sample_shape, Dtype::F32)
}

const DIGITS: &str = r#"
    layers = [
      { type = "conv2d", out_channels = 32, kernel_size = 3, padding = 1 },
      { type = "batch_norm" },
      { type = "relu" },
      { type = "max_pool2d", kernel_size = 2 },
      { type = "flatten" },
      { type = "dropout", p = 0.25 },
      { type = "linear", out_features = 10 },
    ]
"#;

#[test]
fn layers_become_named_nodes_with_shapes_and_tensors() {
    let graph = lower(DIGITS, &[1, 8, 8]).unwrap();
    let nodes: Vec<_> = graph.nodes().iter().map(|node| (node.name.as_str(), node.shape.as_slice())).collect();
    assert_eq!(
        nodes,
        [
            ("conv1", [32, 8, 8].as_slice()),
            ("bn1", &[32, 8, 8]),
            ("relu1", &[32, 8, 8]),
            ("pool1", &[32, 4, 4]),
            ("flatten1", &[512]),
            ("dropout1", &[512]),
            ("fc1", &[10]),
        ]
    );
    assert_eq!(graph.output_shape(), [10]);
    assert_eq!(graph.parameter_count(), 32 * 9 + 32 + 64 + 5120 + 10);
    let tensors: Vec<_> = graph
        .nodes()
        .iter()
        .flat_map(|node| node.parameters.iter().chain(&node.buffers))
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(
        tensors,
        [
            "conv1.weight",
            "conv1.bias",
            "bn1.weight",
            "bn1.bias",
            "bn1.running_mean",
            "bn1.running_var",
            "bn1.num_batches_tracked",
            "fc1.weight",
            "fc1.bias"
        ]
    );
}

#[test]
fn blocks_unfold_with_names_of_their_own() {
    let graph = lower(
        r#"
        [[layers]]
        type = "repeat"
        times = 2
        layers = [{ type = "residual", layers = [{ type = "linear", out_features = 4 }, { type = "relu", name = "act" }] }]
        "#,
        &[4],
    )
    .unwrap();
    let names: Vec<_> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "repeat1.0.residual1.fc1",
            "repeat1.0.residual1.act",
            "repeat1.0.residual1.add",
            "repeat1.1.residual1.fc1",
            "repeat1.1.residual1.act",
            "repeat1.1.residual1.add",
        ]
    );
    assert_eq!(graph.nodes()[3].inputs, ["repeat1.0.residual1.add"]);
    assert_eq!(graph.nodes()[5].inputs, ["repeat1.0.residual1.add", "repeat1.1.residual1.act"]);
}

#[test]
fn errors_name_the_layer_and_both_shapes() {
    let message = |toml: &str, shape: &[i64]| lower(toml, shape).unwrap_err().to_string();
    assert_eq!(
        message(
            r#"layers = [{ type = "flatten" }, { type = "conv2d", out_channels = 2, kernel_size = 3 }]"#,
            &[1, 8, 8]
        ),
        "`layers[1]` (`conv1`, conv2d) expects an image of shape [channels, height, width], but gets a vector of 64 values"
    );
    assert_eq!(
        message(r#"layers = [{ type = "residual", layers = [{ type = "linear", out_features = 3 }] }]"#, &[4]),
        "`layers[0]` (`residual1.add`, add) expects two values of one shape, the first [4], but gets a vector of 3 values"
    );
    assert_eq!(
        message(
            r#"layers = [{ type = "residual", layers = [{ type = "conv2d", out_channels = 3, kernel_size = 3, groups = 2 }] }]"#,
            &[4, 8, 8]
        ),
        "`layers[0].layers[0]` (`residual1.conv1`, conv2d) has `groups` = `2`, which must be a divisor of the channels of input and output"
    );
    assert_eq!(
        message(r#"layers = [{ type = "dropout", p = 1.5 }]"#, &[4]),
        "`layers[0]` (`dropout1`, dropout) has `p` = `1.5`, which must be between 0 and 1"
    );
    assert_eq!(
        message(r#"layers = [{ type = "repeat", times = 0, layers = [] }]"#, &[4]),
        "`layers[0]` (`repeat1`, repeat) has `times` = `0`, which must be at least 1"
    );
    assert_eq!(message("layers = []", &[4]), "the model has no layers");
    for name in ["a..b", ".a", "a.", "a b", "a/b", ""] {
        let layers = format!(r#"layers = [{{ type = "relu", name = "{name}" }}]"#);
        assert!(message(&layers, &[4]).contains(&format!("`{name}`")), "{name}");
    }
    assert!(lower(r#"layers = [{ type = "relu", name = "net.0" }]"#, &[4]).is_ok());
    assert_eq!(
        message(r#"layers = [{ type = "relu", name = "relu2" }, { type = "relu" }]"#, &[4]),
        "two nodes of the model are named `relu2`"
    );
    assert!(matches!(
        lower(r#"layers = [{ type = "repeat", times = 4000000000, layers = [{ type = "relu" }] }]"#, &[4]),
        Err(ModelError::TooManyNodes { .. })
    ));
    assert!(matches!(
        lower(r#"layers = [{ type = "max_pool2d", kernel_size = 9 }]"#, &[1, 8, 8]),
        Err(ModelError::Shape { .. })
    ));
}

#[test]
fn unknown_and_misspelled_options_are_errors() {
    for toml in [
        r#"layers = [{ type = "relu", slope = 1 }]"#,
        r#"layers = [{ type = "linear", out_featurs = 1 }]"#,
        r#"layers = [{ type = "lineal", out_features = 1 }]"#,
        r#"layers = [{ type = "max_pool2d", kernel_size = "3" }]"#,
    ] {
        assert!(toml::from_str::<ModelOptions>(toml).is_err(), "{toml}");
    }
}

#[test]
fn a_graph_survives_json_and_an_edited_one_is_refused() {
    let graph = lower(DIGITS, &[1, 8, 8]).unwrap();
    let json = serde_json::to_string(&graph).unwrap();
    assert_eq!(serde_json::from_str::<Graph>(&json).unwrap(), graph);
    let edited = json.replace(r#""in_features":512"#, r#""in_features":513"#);
    let error = serde_json::from_str::<Graph>(&edited).unwrap_err().to_string();
    assert!(error.contains("`fc1`"), "{error}");
    let edited = json.replace(r#""shape":[10,512]"#, r#""shape":[10,511]"#);
    let error = serde_json::from_str::<Graph>(&edited).unwrap_err().to_string();
    assert!(error.contains("parameters of node `fc1`"), "{error}");
    let edited = json.replace(r#""inputs":["conv1"]"#, r#""inputs":["conv9"]"#);
    let error = serde_json::from_str::<Graph>(&edited).unwrap_err().to_string();
    assert!(error.contains("`conv9`"), "{error}");
}

#[test]
fn the_cost_is_that_of_the_products() {
    let mlp = lower(
        r#"layers = [{ type = "linear", out_features = 128, bias = false }, { type = "relu" }, { type = "linear", out_features = 10 }]"#,
        &[64],
    )
    .unwrap();
    assert_eq!(mlp.flops_per_sample(), 2 * 64 * 128 + 128 + (2 * 128 + 1) * 10);
}
