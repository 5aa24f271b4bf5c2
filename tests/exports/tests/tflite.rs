//! TFLite: every operator, a zoo and random models, by LiteRT.

use std::collections::BTreeSet;
use std::path::PathBuf;

use exports::{
    Coverage, Model, Reader, Runtime, Subject, Surrounded, assert_origin, has_room_for_large, large, operators,
    outcome, random_model, surrounded, zoo,
};
use plugin_api::testing::FakeHost;
use proptest::prelude::*;
use serde_json::{Value, json};
use tflite::Tflite;

/// The differences caused by f32 and 16-bit weights.
const FLOAT: f64 = 1e-5;
const HALF: f64 = 1e-2;

/// The precision of an operator's outputs with eight bits: a few steps of 255.
const EIGHT_BITS: f64 = 0.05;

/// A run that has exported once, and the file.
fn export(subject: &Subject, options: Value) -> (FakeHost, PathBuf) {
    let mut host = subject.run::<Tflite>(options, 2).expect("the options are right");
    host.setup().unwrap_or_else(|error| panic!("{}: {error}", subject.model.name));
    host.trigger("end").unwrap_or_else(|error| panic!("{}: {error}", subject.model.name));
    let file = host.folder().join(&host.artifacts()[0].path);
    (host, file)
}

/// The source of each dimension of images in the runtime's layout.
fn channels_last(shape: &[i64], options: &Value) -> Vec<usize> {
    if shape.len() == 4 && options["layout"] == "nhwc" { vec![0, 2, 3, 1] } else { Vec::new() }
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
    let (_host, file) = export(subject, options.clone());
    batches.iter().find_map(|&batch| {
        let inputs = subject.inputs(batch);
        let expected = subject.outputs(&inputs);
        let expected = match channels_last(&expected.size(), &options).as_slice() {
            [] => expected,
            dims => expected.permute(dims.iter().map(|dim| *dim as i64).collect::<Vec<_>>()),
        };
        let transpose = channels_last(&inputs.size(), &options);
        match reader.difference(Runtime::Tflite, &file, &inputs, &expected, &transpose) {
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
    for layout in ["nchw", "nhwc"] {
        all_are_right(operators(), &json!({ "layout": layout }), FLOAT);
    }
}

#[test]
fn small_nets_give_what_the_model_gives() {
    for layout in ["nchw", "nhwc"] {
        all_are_right(zoo(), &json!({ "layout": layout }), FLOAT);
        all_are_right(zoo(), &json!({ "layout": layout, "quantize": "fp16" }), HALF);
    }
}

#[test]
fn integers_are_near_what_the_model_gives() {
    let (taken, refused): (Vec<Model>, Vec<Model>) =
        operators().into_iter().chain(zoo()).partition(|model| takes_eight_bits(model).is_ok());
    // Their steps have values that are not visible outside.
    let refused: BTreeSet<&str> = refused.iter().map(|model| model.name.trim_end_matches("_deep")).collect();
    let expected = [
        "adaptive_avg_pool2d_uneven",
        "attention",
        "batch_norm_of_one",
        "bert",
        "broadcast",
        "causal_attention",
        "causal_scaled_dot_product_attention",
        "clamp",
        "clamp_above",
        "divide",
        "elu",
        "functions",
        "gpt2",
        "gru",
        "group_norm",
        "layer_norm",
        "layer_norm_of_images",
        "lstm",
        "lstm_last",
        "masked_scaled_dot_product_attention",
        "matmul",
        "mean",
        "mean_kept",
        "parameter_before",
        "pow_cube",
        "pow_of_root",
        "rms_norm",
        "scaled_dot_product_attention",
        "subtract",
        "transformer",
        "vit",
    ];
    assert_eq!(refused, BTreeSet::from(expected));
    for layout in ["nchw", "nhwc"] {
        let options = json!({ "quantize": "int8", "calibration_batches": 2, "tolerance": 1, "layout": layout });
        all_are_right(taken.clone(), &options, 2.0 * EIGHT_BITS);
    }
}

/// Whether a model can be exported as integers, or why not.
fn takes_eight_bits(model: &Model) -> Result<(), String> {
    let subject = Subject::new(model.clone());
    let mut host = subject.run::<Tflite>(json!({ "quantize": "int8" }), 2).expect("the options are right");
    host.setup().map_err(|error| error.to_string())
}

#[test]
fn nothing_is_transposed_inside_a_net_of_convolutions() {
    let Some(mut reader) = Reader::shared() else { return };
    let mut transposes = |model: Model, layout: &str| {
        let (_host, file) = export(&Subject::new(model), json!({ "layout": layout }));
        let operators = reader.operators(&file).expect("it is read");
        operators.iter().filter(|operator| *operator == "TRANSPOSE").count()
    };
    // At the ends, where the layout differs: the input and, for the segmentation net, the output.
    let at_ends = [("lenet", 0), ("resnet", 1), ("separable", 1), ("unet", 2)];
    for model in zoo() {
        if let Some((_, expected)) = at_ends.iter().find(|(name, _)| *name == model.name) {
            assert_eq!(transposes(model.clone(), "nchw"), *expected, "{}", model.name);
            assert_eq!(transposes(model.clone(), "nhwc"), 0, "{}", model.name);
        }
    }
    assert_eq!(
        transposes(
            Model::new("turned", r#"{ type = "permute", dims = [1, 0] }, { type = "softmax" }"#, &[3, 4]),
            "nchw"
        ),
        1
    );
}

/// What is wrong with a file that includes more than the model.
fn wrong_around(reader: &mut Reader, of: &Surrounded, mut options: Value) -> Option<String> {
    options["include"] = of.include.clone();
    let mut host = of
        .subject
        .run::<Tflite>(options.clone(), 2)
        .expect("the options are right")
        .with_info(|info| of.describe(info));
    host.setup().unwrap_or_else(|error| panic!("{}: {error}", of.include));
    host.trigger("end").unwrap_or_else(|error| panic!("{}: {error}", of.include));
    // The reader has linear layers only for vectors.
    let is_verified = of.subject.model.name != "sequence";
    assert_eq!(host.artifacts().len() == 1, is_verified, "{}", of.include);
    let file = host.folder().join(&host.artifacts()[0].path);
    [1, 7].into_iter().find_map(|batch| {
        let [inputs, expected] = of.samples(batch);
        let transpose = channels_last(&inputs.size(), &options);
        let found = reader.difference(Runtime::Tflite, &file, &inputs, &expected, &transpose);
        match found {
            Ok(difference) if difference <= FLOAT => None,
            found => Some(format!("{} of {}, batch {batch}: {found:?}", of.include, of.subject.model.name)),
        }
    })
}

#[test]
fn probabilities_and_classes_are_those_of_the_loss() {
    let Some(mut reader) = Reader::shared() else { return };
    for options in [json!({}), json!({ "layout": "nhwc" })] {
        let wrong: Vec<String> =
            surrounded().iter().filter_map(|of| wrong_around(&mut reader, of, options.clone())).collect();
        assert!(wrong.is_empty(), "{options}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn a_file_tells_what_belongs_to_its_weights() {
    let Some(mut reader) = Reader::shared() else { return };
    assert_origin::<Tflite>(&mut reader, Runtime::Tflite, "tflite_own");
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
    let layers = r#"{ type = "conv2d", out_channels = 4, kernel_size = 3 }"#;
    let subject = Subject::new(Model::new("conv", layers, &[4, 7, 7]));
    let (_host, file) = export(&subject, json!({}));
    let inputs = subject.inputs(2);
    let mut difference = |inputs: &tch::Tensor, expected: &tch::Tensor| {
        reader.difference(Runtime::Tflite, &file, inputs, expected, &[]).expect("it runs")
    };
    let expected = subject.outputs(&inputs);
    assert!(difference(&inputs, &expected) <= FLOAT);
    // Swap height and width of the kernel.
    assert!(difference(&inputs.transpose(2, 3), &expected.transpose(2, 3)) > HALF);
}

#[test]
fn the_table_of_the_page_is_what_is_exported() {
    let found = Coverage::found(|subject| {
        [json!({}), json!({ "quantize": "int8" })].map(|options| outcome::<Tflite>(subject, options)).to_vec()
    });
    let told = Coverage::told(include_str!("../../../plugins/tflite/README.md"));
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
    fn random_models_give_what_the_model_gives(model in random_model(), layout in prop::sample::select(vec!["nchw", "nhwc"])) {
        let Some(mut reader) = Reader::shared() else { return Ok(()) };
        let layers = model.layers.clone();
        let found = wrong(&mut reader, model, json!({ "layout": layout, "sync": false }), FLOAT);
        prop_assert_eq!(found, None, "{}", layers);
    }
}
