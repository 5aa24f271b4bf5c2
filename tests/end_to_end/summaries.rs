//! Callbacks that show what is inside the model: `summaries`, and the values of nodes in `dump-tensors`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::small_run::{Ran, SmallRun};

/// The f32 tensors of a file.
fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let numbers = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    file.tensors().into_iter().map(|(name, tensor)| (name, numbers(tensor.data()))).collect()
}

/// The records of an author: step, name, type, and the value of a number.
fn records(ran: &Ran, author: &str) -> Vec<(u64, String, String, Option<f64>)> {
    let lines = ran.lines_of("witness", "record").into_iter();
    let of_author = lines.filter(|line| line["texts"]["author"] == author);
    let text = |line: &Value, key: &str| line["texts"][key].as_str().expect("a text").to_owned();
    of_author
        .map(|line| {
            let step = line["global_step"].as_u64().expect("a step");
            (step, text(&line, "name"), text(&line, "type"), line["texts"]["scalar"].as_f64())
        })
        .collect()
}

#[test]
fn values_inside_the_model_are_recorded_when_the_run_says_so() {
    let summaries = "[{ name = 'relu1' }, { name = 'fc*', as = 'histogram' }, { name = 'fc1', as = 'image' }, \
                     { name = 'fc1.weight', of = 'gradient', as = 'min_max' }]";
    let ran = SmallRun::with_libraries(&["standard", "recorder"])
        .instance(&format!("kind = 'summaries'\nwhen = {{ every = '2 steps' }}\noptions.summaries = {summaries}"))
        .instance(
            "kind = 'dump-tensors'\nwhen = { every = '2 steps' }\n\
             options = { tensors = ['taps', 'gradients'], include = ['fc1', 'relu1', 'fc1.weight'] }",
        )
        .recorder("witness", "", "")
        .run()
        .succeeded();
    let records = records(&ran, "summaries");
    let names: Vec<_> =
        records.iter().filter(|(step, ..)| *step == 2).map(|(_, name, kind, _)| (&**name, &**kind)).collect();
    let expected = [
        ("activation_mean/relu1", "scalar"),
        ("activation_norm/relu1", "scalar"),
        ("activation_min/relu1", "scalar"),
        ("activation_max/relu1", "scalar"),
        ("activation_histogram/fc1", "histogram"),
        ("activation_histogram/fc2", "histogram"),
        ("activation_image/fc1", "image"),
        ("gradient_min/fc1.weight", "scalar"),
        ("gradient_max/fc1.weight", "scalar"),
    ];
    assert_eq!(names, expected);
    assert_eq!(records.len(), 3 * expected.len(), "at the steps 2, 4 and 6");
    // Both took the values of the same step: those of a dump are what the records say.
    let folder = ran.out.join("tensors/epoch-0002-step-00000004");
    let taps = tensors(&folder.join("taps.safetensors"));
    assert_eq!(taps.keys().collect::<Vec<_>>(), ["fc1", "relu1"]);
    assert_eq!(taps["fc1"].len(), 480 * 16, "a batch");
    assert!(taps["fc1"].iter().zip(&taps["relu1"]).all(|(before, after)| before.max(0.0) == *after));
    let scalar = |name: &str| {
        let found = records.iter().find(|record| (record.0, &*record.1) == (4, name)).and_then(|record| record.3);
        found.unwrap_or_else(|| panic!("there is no number `{name}` in {records:?}"))
    };
    let mean = taps["relu1"].iter().map(|&value| f64::from(value)).sum::<f64>() / taps["relu1"].len() as f64;
    assert!((scalar("activation_mean/relu1") - mean).abs() < 1e-9 && mean > 0.0);
    let gradient = &tensors(&folder.join("gradients.safetensors"))["fc1.weight"];
    let least = gradient.iter().copied().fold(f32::INFINITY, f32::min);
    assert_eq!(scalar("gradient_min/fc1.weight"), f64::from(least));
}

#[test]
fn summaries_change_no_bit_and_may_run_in_the_background() {
    let run = |summaries: &str| {
        let run = SmallRun::with_libraries(&["standard", "weights", "recorder"])
            .instance("kind = 'weights'\nwhen = { at = ['end'] }")
            .recorder("witness", "", "");
        let entry = "kind = 'summaries'\ndispatch = 'background'\noptions.summaries = ";
        let run = if summaries.is_empty() { run } else { run.instance(&format!("{entry}{summaries}")) };
        run.run().succeeded()
    };
    let [plain, measured] =
        ["", "[{ name = '*', as = 'mean' }, { name = '*', of = 'gradient', as = 'norm' }]"].map(run);
    // Three nodes and four parameters, after each of two epochs.
    assert_eq!(records(&measured, "summaries").len(), 14);
    let weights = |ran: &Ran| tensors(&ran.out.join("exports/model.safetensors"));
    assert!(weights(&plain) == weights(&measured), "the weights differ");
}

#[test]
fn a_node_that_the_model_does_not_have_ends_the_run_before_it_begins() {
    let ran = SmallRun::with_libraries(&["standard"])
        .instance("kind = 'summaries'\noptions.summaries = [{ name = 'rellu1' }]")
        .run();
    let told = "`summaries` names `rellu1`, but the model has no such node; did you mean `relu1`?";
    assert!(ran.code() == Some(1) && ran.shown().contains(told), "{}", ran.shown());
}

#[test]
fn parameters_are_pictures_and_a_missing_gpu_is_told_once() {
    let ran = SmallRun::with_libraries(&["standard"])
        .instance("kind = 'gpu-utilization'")
        .instance("kind = 'dump-params-as-image'\noptions = { parameters = ['*.weight'] }")
        .run()
        .succeeded();
    // The run is on the CPU.
    assert_eq!(ran.stderr().matches("the use of the GPU is not measured").count(), 1, "{}", ran.shown());
    let folder = ran.out.join("parameter-images");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    let expected = ["fc1.weight-epoch-0001-step-00000003.png", "fc1.weight-epoch-0002-step-00000006.png"];
    assert_eq!((names.len(), &names[..2]), (4, &expected.map(str::to_owned)[..]));
    let bytes = std::fs::read(folder.join(&names[0])).expect("a picture");
    assert_eq!(&bytes[1..4], b"PNG");
    // Width and height: a column for each of the 64 inputs.
    let size = [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")));
    assert_eq!(size, [64, 16]);
    assert_ne!(bytes, std::fs::read(folder.join(&names[1])).expect("a picture"), "the weights change");
}

#[test]
fn the_confusion_matrix_is_that_of_the_metric() {
    let run = |metrics: &str, splits: &str| {
        let of_train = format!("kind = 'confusion-matrix'\noptions = {{ splits = [{splits}] }}");
        let run = SmallRun::with_libraries(&["standard", "recorder"]).set(&format!("eval.metrics=[{metrics}]"));
        let run = if splits.is_empty() { run } else { run.instance(&of_train) };
        run.instance("kind = 'json-lines'").recorder("witness", "", "").run().succeeded()
    };
    let metric = run("'accuracy', 'confusion_matrix'", "");
    let counted = run("'accuracy'", "'val', 'train'");
    let both = run("'accuracy', 'confusion_matrix'", "'val'");
    let epochs = |ran: &Ran, name: &str| -> Vec<Value> {
        let lines = fixture::lines(&ran.out.join("metrics.jsonl")).into_iter();
        lines.filter(|line| line["kind"] == "epoch").map(|line| line[name].clone()).collect()
    };
    let expected = epochs(&metric, "val_confusion_matrix");
    assert!(expected.len() == 2 && expected[0].as_array().is_some_and(|rows| rows.len() == 10), "{expected:?}");
    for ran in [&counted, &both] {
        assert_eq!(epochs(ran, "val_confusion_matrix"), expected);
    }
    let tables = |ran: &Ran| -> Vec<String> {
        records(ran, "confusion-matrix")
            .into_iter()
            .map(|(step, name, kind, _)| format!("{step} {name} {kind}"))
            .collect()
    };
    assert_eq!(tables(&both), ["3 val_classes table", "6 val_classes table"]);
    let with_train = ["3 val_classes table", "3 train_classes table", "6 val_classes table", "6 train_classes table"];
    assert_eq!(tables(&counted), with_train);
}
