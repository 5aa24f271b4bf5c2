use std::path::PathBuf;

use plugin_api::protocol::TensorSet;
use plugin_api::testing::{FakeHost, json};
use plugin_api::{EventKind, Tensor};
use serde_json::Value;

use super::*;

fn graph() -> Value {
    json!({
        "inputs": [{ "name": "inputs", "shape": [2], "dtype": "f32" }],
        "nodes": [{
            "name": "fc1",
            "op": { "type": "linear", "in_features": 2, "out_features": 3, "bias": true },
            "inputs": ["inputs"],
            "shape": [3],
            "parameters": [
                { "name": "fc1.weight", "shape": [3, 2], "dtype": "f32" },
                { "name": "fc1.bias", "shape": [3], "dtype": "f32" },
            ],
            "buffers": [],
        }],
        "output": "fc1",
    })
}

/// The outputs of [`graph`] for one sample, if every weight is 1 and every bias 0.5.
fn outputs(inputs: &[f32]) -> Vec<f32> {
    vec![inputs.iter().sum::<f32>() + 0.5; 3]
}

/// A run that predicts [`outputs`] plus `error`.
fn host(options: Value, weight: f32, error: f32) -> FakeHost {
    let mut host = FakeHost::new::<Tflite>(options).unwrap();
    host.set_graph(graph());
    let tensors = [("fc1.weight", vec![3, 2], vec![weight; 6]), ("fc1.bias", vec![3], vec![0.5; 3])];
    for (name, shape, values) in tensors {
        host.put_tensor(TensorSet::Parameters, Tensor::new(name, &shape, &values).unwrap());
    }
    let inputs = Tensor::new("inputs", &[2, 2], &[0.5f32, -1.0, 2.0, 0.25]).unwrap();
    host.put_batch("train", inputs, Tensor::new("targets", &[2], &[0i64, 1]).unwrap());
    host.answer_predict(move |request, inputs| {
        let given = inputs[0].view().to_vec::<f32>()?;
        let values: Vec<f32> = given.chunks(2).flat_map(outputs).map(|value| value + error).collect();
        let named = |name: &str| Tensor::new(name, &[2, 3], &values);
        std::iter::once("outputs").chain(request.nodes.iter().map(String::as_str)).map(named).collect()
    });
    host
}

fn failure(host: &mut FakeHost) -> String {
    host.setup().and_then(|()| host.trigger("end")).unwrap_err().message().to_owned()
}

fn files(host: &FakeHost) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(host.folder().join("exports"));
    folder.map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect())
}

#[test]
fn a_file_that_does_what_the_model_does_is_published() {
    let mut host = host(json!({ "name": "net-{epoch}", "verify": "required" }), 1.0, 0.0);
    host.setup().unwrap();
    host.set_position(3, 30);
    host.trigger("epoch").unwrap();
    assert_eq!(files(&host), [host.folder().join("exports/net-0003.tflite")]);
    host.fire(EventKind::EXPORT).unwrap();
    let artifacts: Vec<&str> = host.artifacts().iter().map(|artifact| artifact.kind.as_str()).collect();
    assert_eq!(artifacts, ["export", "export"]);
}

#[test]
fn a_file_that_does_something_else_is_not_published_and_its_node_is_named() {
    let mut host = host(json!({}), 1.0, 0.25);
    let found = failure(&mut host);
    assert!(
        found.contains("its outputs are off by ") && found.ends_with("the first node that differs is `fc1` (linear)"),
        "{found}"
    );
    assert!(files(&host).is_empty() && host.artifacts().is_empty());
    let mut tolerant = self::host(json!({ "tolerance": 0.5 }), 1.0, 0.25);
    tolerant.setup().and_then(|()| tolerant.trigger("end")).unwrap();
}

#[test]
fn what_cannot_be_verified_is_marked_or_refused() {
    let silent = |options: Value| {
        let mut host = host(options, 1.0, 0.0);
        host.answer_predict(|_, _| Err(plugin_api::Error::new("the callback is in the background")));
        host
    };
    let mut marked = silent(json!({}));
    marked.setup().and_then(|()| marked.trigger("end")).unwrap();
    let artifacts: Vec<&str> = marked.artifacts().iter().map(|artifact| artifact.kind.as_str()).collect();
    assert_eq!(artifacts, ["export", "unverified_export"]);
    let mut refused = silent(json!({ "verify": "required" }));
    let found = failure(&mut refused);
    assert!(
        found.contains("cannot be verified: the host cannot predict: the callback is in the background"),
        "{found}"
    );
    assert!(files(&refused).is_empty());
}

#[test]
fn integers_that_the_runtime_cannot_compute_with_are_marked() {
    for boundary in [false, true] {
        let options = json!({ "quantize": "int8", "integer_boundary": boundary });
        let mut host = host(options, 1.0, 0.0).with_info(|info| info.data.classes = 3);
        host.setup().and_then(|()| host.trigger("end")).unwrap();
        // The reader has linear layers only for floats.
        let artifacts: Vec<&str> = host.artifacts().iter().map(|artifact| artifact.kind.as_str()).collect();
        assert_eq!(artifacts, ["export", "unverified_export"]);
        assert_eq!(files(&host), [host.folder().join("exports/model.tflite")]);
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_unless_they_are_allowed() {
    let found = failure(&mut host(json!({}), f32::NAN, 0.0));
    assert!(found.starts_with("the weight `fc1.weight` is `NaN` at element 0"), "{found}");
    let mut allowed = host(json!({ "allow_non_finite": true, "verify": false }), f32::NAN, 0.0);
    allowed.setup().and_then(|()| allowed.trigger("end")).unwrap();
}

#[test]
fn what_stands_in_the_way_is_an_error_and_nothing_is_left_behind() {
    let mut there = host(json!({ "overwrite": false }), 1.0, 0.0);
    there.setup().and_then(|()| there.trigger("end")).unwrap();
    let before = std::fs::read(&files(&there)[0]).unwrap();
    assert!(failure(&mut there).contains("exports/model.tflite` already exists"));
    assert_eq!((files(&there).len(), std::fs::read(&files(&there)[0]).unwrap()), (1, before));

    let mut file = host(json!({}), 1.0, 0.0);
    std::fs::write(file.folder().join("exports"), "").unwrap();
    assert!(failure(&mut file).starts_with("cannot create the folder `"));
}

#[test]
fn models_that_cannot_be_exported_are_refused_before_training() {
    let refused = |options: Value, change: &dyn Fn(&mut Value)| {
        let mut host = host(options, 1.0, 0.0);
        let mut graph = graph();
        change(&mut graph);
        host.set_graph(graph);
        host.setup().unwrap_err().message().to_owned()
    };
    let twice = refused(json!({}), &|graph| graph["nodes"][0]["name"] = json!("inputs"));
    assert!(twice.contains("the graph has the name `inputs` twice"), "{twice}");
    let newer = refused(json!({}), &|graph| graph["nodes"][0]["op"] = json!({ "type": "fast_fourier_transform" }));
    assert!(newer.contains("unknown variant `fast_fourier_transform`"), "{newer}");
    let strides = refused(json!({}), &|graph| {
        graph["inputs"][0]["shape"] = json!([2, 4, 4]);
        graph["nodes"][0]["op"] = json!({
            "type": "conv_transpose2d", "in_channels": 2, "out_channels": 2, "kernel_size": [2, 2], "stride": [2, 1],
            "padding": [0, 0], "output_padding": [0, 0], "dilation": [1, 1], "groups": 1, "bias": false,
        });
        graph["nodes"][0]["shape"] = json!([2, 8, 5]);
    });
    assert!(strides.contains("node `fc1` (`conv_transpose2d`)") && strides.contains("different strides"), "{strides}");
    let eight_bits = refused(json!({ "quantize": "int8" }), &|graph| {
        graph["nodes"][0]["op"] = json!({ "type": "layer_norm", "normalized_shape": [2], "eps": 1e-5 });
        graph["nodes"][0]["shape"] = json!([2]);
    });
    assert!(eight_bits.starts_with("node `fc1` cannot be quantized to eight bits"), "{eight_bits}");
    let mut regression = host(json!({ "include": ["argmax"] }), 1.0, 0.0);
    let found = regression.setup().unwrap_err().message().to_owned();
    assert!(found.contains("`argmax` needs classes, but this run predicts numbers"), "{found}");
    for (options, expected) in [
        (json!({ "include": ["normalize"], "integer_boundary": true }), "`include` computes with floats"),
        (json!({ "name": "a/b" }), "must not lead into another folder"),
        (json!({ "tolerance": -1.0 }), "`tolerance` must be 0 or more"),
        (json!({ "calibration_batches": 0 }), "`calibration_batches` must be 1 or more"),
    ] {
        let found = FakeHost::new::<Tflite>(options).err().unwrap().message().to_owned();
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn weights_that_sixteen_bits_cannot_hold_are_refused_without_verification_too() {
    let half = |weight, allow: bool| {
        host(json!({ "quantize": "fp16", "verify": false, "allow_non_finite": allow }), weight, 0.0)
    };
    let found = failure(&mut half(-1e5, false));
    assert!(found.starts_with("the weight `fc1` is `-100000` at element 0, but 16 bits"), "{found}");
    for (weight, allow) in [(65504.0, false), (1e5, true)] {
        let mut host = half(weight, allow);
        host.setup().and_then(|()| host.trigger("end")).unwrap();
    }
}

#[test]
fn everything_that_cannot_be_verified_is_named() {
    let mut host = host(json!({}), 1.0, 0.0);
    let mut graph = graph();
    let node = |name: &str, input: &str, op: Value| json!({ "name": name, "op": op, "inputs": [input], "shape": [3], "parameters": [], "buffers": [] });
    let more = [
        node("first", "fc1", json!({ "type": "elu", "alpha": 1.0 })),
        node("second", "first", json!({ "type": "gelu", "approximate": "none" })),
        node("third", "second", json!({ "type": "elu", "alpha": 1.0 })),
    ];
    graph["nodes"].as_array_mut().unwrap().extend(more);
    graph["output"] = json!("third");
    host.set_graph(graph);
    host.setup().and_then(|()| host.trigger("end")).unwrap();
    let told = host.logs().join("\n");
    assert!(
        told.contains("the runtime does not run `Elu` (of `first`, `third`), does not run `Gelu` (of `second`)"),
        "{told}"
    );
}

#[test]
fn a_bias_that_is_large_beside_its_weights_fits() {
    // With only the scale of these weights, the bias would need more than 32 bits, and be cut off.
    let mut host = host(json!({ "quantize": "int8", "verify": false }), 1e-12, 0.0);
    host.setup().and_then(|()| host.trigger("end")).unwrap();
    let bytes = std::fs::read(&files(&host)[0]).unwrap();
    let cut_off = i32::MAX.to_le_bytes();
    assert!(!bytes.windows(4).any(|window| window == cut_off));
}

#[test]
fn a_trial_publishes_nothing() {
    let mut host = host(json!({}), 1.0, 0.0).with_info(|info| info.trial = true);
    host.setup().and_then(|()| host.trigger("end")).unwrap();
    assert!(files(&host).is_empty() && host.artifacts().is_empty());
}
