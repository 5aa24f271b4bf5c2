//! ONNX: every operator, a zoo and random models, by onnx's checker and onnxruntime.

use std::path::PathBuf;

use exports::{
    Coverage, Model, Reader, Runtime, Subject, Surrounded, assert_origin, has_room_for_large, large, masks,
    of_several_inputs, operators, outcome, random_model, surrounded, zoo,
};
use onnx::Onnx;
use plugin_api::testing::FakeHost;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The differences caused by f32 and 16-bit weights.
const FLOAT: f64 = 1e-5;
const HALF: f64 = 1e-2;

/// The precision of an operator's outputs with eight bits: a few steps of 255.
const EIGHT_BITS: f64 = 0.05;

/// A run that has exported once, and the file.
fn export(subject: &Subject, options: Value) -> (FakeHost, PathBuf) {
    let mut host = subject.run::<Onnx>(options, 2).expect("the options are right");
    host.setup().unwrap_or_else(|error| panic!("{}: {error}", subject.model.name));
    host.trigger("end").unwrap_or_else(|error| panic!("{}: {error}", subject.model.name));
    let file = host.folder().join(&host.artifacts()[0].path);
    (host, file)
}

/// What is wrong with an export of the model, run with batches of 1 and 7.
fn wrong(reader: &mut Reader, model: Model, options: Value, tolerance: f64) -> Option<String> {
    wrong_for(reader, &Subject::new(model), &[1, 7], options, tolerance)
}

fn wrong_for(
    reader: &mut Reader,
    subject: &Subject,
    batches: &[i64],
    options: Value,
    tolerance: f64,
) -> Option<String> {
    let (_host, file) = export(subject, options);
    batches.iter().find_map(|&batch| {
        let inputs = subject.inputs(batch);
        let others = subject.others(batch);
        let given: Vec<&tch::Tensor> = std::iter::once(&inputs).chain(&others).collect();
        match reader.difference_of(Runtime::Onnx, &file, &given, &subject.outputs(&inputs), &[]) {
            Ok(difference) if difference <= tolerance => None,
            Ok(difference) => Some(format!("{}, batch {batch}: off by {difference:e}", subject.model.name)),
            Err(error) => Some(format!("{}, batch {batch}: {error}", subject.model.name)),
        }
    })
}

fn all_are_right(models: Vec<Model>, options: &Value, tolerance: f64) {
    let Some(mut reader) = Reader::shared() else { return };
    let wrong: Vec<String> =
        models.into_iter().filter_map(|model| wrong(&mut reader, model, options.clone(), tolerance)).collect();
    assert!(wrong.is_empty(), "{options}:\n{}", wrong.join("\n"));
}

#[test]
fn every_operator_gives_what_the_model_gives() {
    for opset in [18, 20, 21, 23] {
        all_are_right([operators(), masks()].concat(), &json!({ "opset": opset }), FLOAT);
    }
}

#[test]
fn small_nets_give_what_the_model_gives() {
    for options in [json!({}), json!({ "opset": 21, "fold_batch_norm": true }), json!({ "external_data": "always" })] {
        all_are_right(zoo(), &options, FLOAT);
    }
    all_are_right(zoo(), &json!({ "quantize": "fp16" }), HALF);
}

/// The files are also verified before they are published.
#[test]
fn programs_of_several_inputs_give_what_the_model_gives() {
    for opset in [18, 21, 23] {
        all_are_right(of_several_inputs(), &json!({ "opset": opset, "verify": "required" }), FLOAT);
    }
    all_are_right(of_several_inputs(), &json!({ "quantize": "fp16", "verify": "required" }), HALF);
    let integers = json!({ "quantize": "int8", "calibration_batches": 2, "tolerance": 1 });
    all_are_right(of_several_inputs(), &integers, 2.0 * EIGHT_BITS);
    // Its inputs have the names of a batch, and a batch of any size.
    let subject = Subject::new(of_several_inputs().remove(0));
    let names: Vec<String> = subject.graph().inputs.into_iter().map(|input| input.name).collect();
    assert_eq!(names, ["inputs", "attention_mask"]);
}

#[test]
fn integers_are_near_what_the_model_gives() {
    let options = json!({ "quantize": "int8", "calibration_batches": 2, "tolerance": 1 });
    all_are_right(operators(), &options, EIGHT_BITS);
    all_are_right(zoo(), &options, 2.0 * EIGHT_BITS);
}

/// What is wrong with a file that includes more than the model.
fn wrong_around(reader: &mut Reader, of: &Surrounded, mut options: Value) -> Option<String> {
    options["include"] = of.include.clone();
    let mut host =
        of.subject.run::<Onnx>(options, 2).expect("the options are right").with_info(|info| of.describe(info));
    host.setup().unwrap_or_else(|error| panic!("{}: {error}", of.include));
    host.trigger("end").unwrap_or_else(|error| panic!("{}: {error}", of.include));
    assert_eq!(host.artifacts().len(), 1, "{}: it is not verified", of.include);
    let file = host.folder().join(&host.artifacts()[0].path);
    [1, 7].into_iter().find_map(|batch| {
        let [inputs, expected] = of.samples(batch);
        let found = reader.difference(Runtime::Onnx, &file, &inputs, &expected, &[]);
        match found {
            Ok(difference) if difference <= FLOAT => None,
            found => Some(format!("{} of {}, batch {batch}: {found:?}", of.include, of.subject.model.name)),
        }
    })
}

#[test]
fn probabilities_and_classes_are_those_of_the_loss() {
    let Some(mut reader) = Reader::shared() else { return };
    for options in [json!({}), json!({ "opset": 21 })] {
        let wrong: Vec<String> =
            surrounded().iter().filter_map(|of| wrong_around(&mut reader, of, options.clone())).collect();
        assert!(wrong.is_empty(), "{options}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn a_file_tells_what_belongs_to_its_weights() {
    let Some(mut reader) = Reader::shared() else { return };
    assert_origin::<Onnx>(&mut reader, Runtime::Onnx, "onnx_own");
}

/// Around a large mean, a variance that is a difference of squares has no right digit.
#[test]
fn norms_around_a_large_mean_are_those_of_the_model() {
    let Some(mut reader) = Reader::shared() else { return };
    for layer in [r#"{ type = "group_norm", num_groups = 2 }"#, r#"{ type = "layer_norm", dimensions = 3 }"#] {
        let subject = Subject::new(Model::new("norm", layer, &[4, 7, 9]));
        let inputs = subject.inputs(3) + 1000.0;
        for opset in [18, 21, 23] {
            let (_host, file) = export(&subject, json!({ "opset": opset }));
            let found = reader.difference(Runtime::Onnx, &file, &inputs, &subject.outputs(&inputs), &[]);
            assert!(found.as_ref().is_ok_and(|difference| *difference < 1e-3), "{layer}, {opset}: {found:?}");
        }
    }
}

/// The output layer of the net is its table of embeddings.
#[test]
fn a_tensor_of_two_nodes_is_stored_once() {
    let subject = Subject::new(Model::program("gpt2", &[12], Some(50)));
    let (_host, file) = export(&subject, json!({}));
    assert_eq!(subject.count_in(&file, "gpt2.transformer.wte.weight"), 1);
}

#[test]
fn a_wrong_layout_would_be_noticed() {
    let Some(mut reader) = Reader::shared() else { return };
    let conv = |kernel: &str| {
        let layers = format!(r#"{{ type = "conv2d", out_channels = 4, kernel_size = {kernel} }}"#);
        Subject::new(Model::new("conv", &layers, &[4, 7, 9]))
    };
    let (right, other) = (conv("3"), conv("[3, 3]"));
    let (_host, file) = export(&right, json!({}));
    let inputs = right.inputs(2);
    let difference = |reader: &mut Reader, expected: &tch::Tensor| {
        reader.difference(Runtime::Onnx, &file, &inputs, expected, &[]).expect("it runs")
    };
    assert!(difference(&mut reader, &other.outputs(&inputs)) <= FLOAT);
    // Swap height and width of the kernel.
    let swapped = right.outputs(&inputs.transpose(2, 3)).transpose(2, 3);
    assert!(difference(&mut reader, &swapped) > 1e-2);
}

#[test]
fn the_table_of_the_page_is_what_is_exported() {
    let found = Coverage::found(|subject| {
        let opsets = [18, 20, 21, 23].map(|opset| outcome::<Onnx>(subject, json!({ "opset": opset })));
        opsets.into_iter().chain([outcome::<Onnx>(subject, json!({ "quantize": "int8" }))]).collect()
    });
    let told = Coverage::told(include_str!("../../../plugins/onnx/README.md"));
    assert!(told == found, "the page must have:\n{}", found.tables());
}

#[test]
fn more_than_two_gibibytes_are_exported() {
    let (Some(mut reader), true) = (Reader::shared(), has_room_for_large()) else { return };
    let found = wrong_for(&mut reader, &Subject::new(large()), &[1], json!({ "verify": false }), FLOAT);
    assert_eq!(found, None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_models_give_what_the_model_gives(model in random_model(), opset in prop::sample::select(vec![18, 20, 21, 23]), fold: bool) {
        let Some(mut reader) = Reader::shared() else { return Ok(()) };
        let layers = model.layers.clone();
        let found = wrong(&mut reader, model, json!({ "opset": opset, "fold_batch_norm": fold, "sync": false }), FLOAT);
        prop_assert_eq!(found, None, "{}", layers);
    }
}
