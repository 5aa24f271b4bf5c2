use plugin_api::Tensor;
use plugin_api::protocol::TapReduce;
use plugin_api::testing::{FakeHost, Value, json};

use super::*;

/// A host whose model is `fc1`, `relu1`, `fc2`.
fn host(summaries: Value) -> FakeHost {
    let mut host = FakeHost::new::<Summaries>(json!({ "summaries": summaries })).unwrap();
    let node = |name: &str, input: &str| json!({ "name": name, "op": { "type": "relu" }, "inputs": [input], "shape": [2], "parameters": [], "buffers": [] });
    host.set_graph(json!({
        "inputs": [{ "name": "input", "shape": [2], "dtype": "f32" }],
        "nodes": [node("fc1", "input"), node("relu1", "fc1"), node("fc2", "relu1")],
        "output": "fc2",
    }));
    for name in ["fc1.weight", "fc2.weight"] {
        host.put_tensor(TensorSet::Parameters, Tensor::new(name, &[2], &[0f32, 0.0]).unwrap());
    }
    host
}

fn tap(host: &mut FakeHost, name: &str, shape: &[i64], values: &[f32]) {
    host.put_tensor(TensorSet::Taps, Tensor::new(name, shape, values).unwrap());
}

fn scalars(host: &FakeHost) -> Vec<(&str, f64)> {
    let scalar = |value: &RecordValue| if let RecordValue::Scalar { value } = value { Some(*value) } else { None };
    host.records().iter().filter_map(|record| Some((record.name.as_str(), scalar(&record.value)?))).collect()
}

#[test]
fn matching_nodes_and_parameters_are_tapped() {
    let mut host = host(json!([
        { "name": "fc*", "as": "norm" },
        { "name": "fc2", "as": "norm" },
        { "name": "fc2", "as": "mean" },
        { "name": "fc2.*", "of": "gradient", "as": "histogram" },
    ]));
    host.setup().unwrap();
    let taps: Vec<_> = host.taps().iter().map(|tap| (tap.name.as_str(), tap.of, tap.reduce)).collect();
    let activation = |name| (name, TapOf::Activation, TapReduce::Whole);
    let expected = [
        activation("whole.activation.fc1"),
        activation("whole.activation.fc2"),
        // The host keeps equal taps once.
        activation("whole.activation.fc2"),
        activation("whole.activation.fc2"),
        ("whole.gradient.fc2.weight", TapOf::Gradient, TapReduce::Whole),
    ];
    assert_eq!(taps, expected);
    tap(&mut host, "whole.activation.fc2", &[1], &[2.0]);
    host.trigger("epoch").unwrap();
    assert_eq!(scalars(&host), [("activation_norm/fc2", 2.0), ("activation_mean/fc2", 2.0)], "each once");
}

#[test]
fn numbers_are_those_of_all_values() {
    let mut host = host(json!([
        { "name": "relu1" },
        { "name": "fc1.weight", "of": "gradient", "as": "min_max" },
        { "name": "fc2.weight", "of": "gradient", "as": "norm" },
    ]));
    host.setup().unwrap();
    tap(&mut host, "whole.activation.relu1", &[2, 2], &[3.0, 0.0, 4.0, 1.0]);
    tap(&mut host, "whole.gradient.fc1.weight", &[2], &[-2.0, f32::NAN]);
    tap(&mut host, "whole.gradient.fc2.weight", &[2], &[1e30, 1e30]);
    host.trigger("epoch").unwrap();
    let scalars = scalars(&host);
    assert_eq!(
        scalars[..4],
        [
            ("activation_mean/relu1", 2.0),
            ("activation_norm/relu1", 26f64.sqrt()),
            ("activation_min/relu1", 0.0),
            ("activation_max/relu1", 4.0),
        ]
    );
    assert!(scalars[4].0 == "gradient_min/fc1.weight" && scalars[4].1.is_nan(), "a NaN is not hidden: {scalars:?}");
    assert!((scalars[6].1 / 2f64.sqrt() / 1e30 - 1.0).abs() < 1e-6, "f32 would have no such norm: {scalars:?}");
}

#[test]
fn histograms_leave_out_what_is_not_finite() {
    let mut host = host(json!([{ "name": "fc2", "as": "histogram" }]));
    host.setup().unwrap();
    tap(&mut host, "whole.activation.fc2", &[2, 2], &[f32::NAN, 1.0, 3.0, f32::INFINITY]);
    host.trigger("epoch").unwrap();
    let [record] = host.records() else { panic!("{:?}", host.records()) };
    let RecordValue::Histogram { edges, counts } = &record.value else { panic!("{record:?}") };
    assert_eq!((record.name.as_str(), edges[0], edges[64]), ("activation_histogram/fc2", 1.0, 3.0));
    assert_eq!(counts.iter().sum::<f64>(), 2.0);
}

#[test]
fn a_picture_is_of_the_first_sample_or_of_a_batch_of_vectors() {
    let mut host = host(json!([{ "name": "fc*", "as": "image" }]));
    host.setup().unwrap();
    tap(&mut host, "whole.activation.fc1", &[2, 1, 1, 2], &[0.0, 1.0, 9.0, 9.0]);
    tap(&mut host, "whole.activation.fc2", &[3, 1], &[0.0, 10.0, 5.0]);
    host.trigger("epoch").unwrap();
    let image =
        |height, width, pixels: &[u8]| RecordValue::Image { width, height, channels: 1, pixels: Blob(pixels.to_vec()) };
    let records: Vec<_> = host.records().iter().map(|record| record.value.clone()).collect();
    assert_eq!(records, [image(1, 2, &[0, 255]), image(3, 1, &[0, 255, 128])]);
}

#[test]
fn what_has_no_numbers_is_left_out_and_said_once() {
    let mut host = host(json!([{ "name": "fc1" }, { "name": "fc2", "as": "mean" }]));
    host.setup().unwrap();
    host.put_tensor(TensorSet::Taps, Tensor::new("whole.activation.fc1", &[1], &[7i64]).unwrap());
    tap(&mut host, "another", &[1], &[1.0]);
    host.trigger("epoch").unwrap();
    host.trigger("epoch").unwrap();
    assert_eq!(host.records(), []);
    let told = "`fc1` of type i64 and shape [1] cannot be recorded as numbers: it is left out";
    assert_eq!(host.logs().iter().filter(|line| line.contains(told)).count(), 1, "{:?}", host.logs());
}

#[test]
fn what_fits_nothing_is_refused_with_what_was_meant() {
    let setup = |summaries| host(summaries).setup().unwrap_err().message().to_owned();
    assert_eq!(
        setup(json!([{ "name": "rellu1" }])),
        "`summaries` names `rellu1`, but the model has no such node; did you mean `relu1`?"
    );
    assert_eq!(
        setup(json!([{ "name": "fc1.weigth", "of": "gradient" }])),
        "`summaries` names `fc1.weigth`, but the model has no such parameter; did you mean `fc1.weight` or `fc2.weight`?"
    );
    assert_eq!(
        setup(json!([{ "name": "conv*" }])),
        "`summaries` names `conv*`, but the model has no such node; `host model` shows their names"
    );
}

#[test]
fn wrong_options_are_refused() {
    let new = |options| FakeHost::new::<Summaries>(options).err().unwrap().message().to_owned();
    assert!(new(json!({})).starts_with("`summaries` is empty"), "{}", new(json!({})));
    assert!(new(json!({ "summaries": [{ "as": "mean" }] })).starts_with("an entry of `summaries` has no `name`"));
    let unknown = new(json!({ "summaries": [{ "name": "fc1", "as": "median" }] }));
    assert!(unknown.contains("median"), "{unknown}");
}
