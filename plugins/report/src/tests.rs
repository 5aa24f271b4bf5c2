use plugin_api::event::Outcome;
use plugin_api::protocol::{HookTime, Record, RecordValue};
use plugin_api::testing::{FakeHost, json};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn host(options: Value) -> FakeHost {
    let mut host = FakeHost::new::<Report>(options).unwrap();
    host.set_graph(json!({
        "inputs": [{ "name": "inputs", "shape": [2], "dtype": "f32" }],
        "nodes": [{
            "name": "fc1",
            "op": { "type": "linear", "in_features": 2, "out_features": 3, "bias": false },
            "inputs": ["inputs"],
            "shape": [3],
            "parameters": [{ "name": "fc1.weight", "shape": [3, 2], "dtype": "f32" }],
            "buffers": [],
        }],
        "output": "fc1",
    }));
    host
}

fn html(host: &FakeHost) -> String {
    std::fs::read_to_string(host.folder().join("report.html")).unwrap()
}

/// The data of the page's script.
fn content(host: &FakeHost) -> Value {
    let html = html(host);
    let begin = "<script type=\"application/json\" id=\"data\">";
    let (_, rest) = html.split_once(begin).unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn the_page_has_what_there_is_to_know_of_a_run() {
    let mut host = host(json!({})).with_info(|info| info.run_file = r#"{"run":{"seed":42}}"#.to_owned());
    host.train_start().unwrap();
    assert_eq!(content(&host)["progress"]["state"], "running", "it exists from the start");
    for (epoch, loss) in [(1, 0.5), (2, f64::NAN), (3, 0.25)] {
        host.set_position(epoch, epoch * 10);
        host.put_metric("val_loss", loss);
        host.epoch_end(epoch).unwrap();
    }
    host.artifact("best_checkpoint", "checkpoints/best", "checkpoint").unwrap();
    host.set_hook_times(vec![HookTime {
        instance: "checkpoint".to_owned(),
        hook: "trigger".to_owned(),
        background: false,
        calls: 3,
        seconds: 0.5,
        longest_seconds: 0.25,
    }]);
    host.train_end(Outcome::Stopped).unwrap();
    let content = content(&host);
    assert_eq!(content["curves"]["val_loss"]["points"], json!([[10, 0.5], [20, "NaN"], [30, 0.25]]));
    assert_eq!(content["curves"]["val_loss"]["better"], "min");
    assert_eq!((&content["progress"]["state"], &content["progress"]["epoch"]), (&json!("stopped"), &json!(3)));
    assert_eq!(content["artifacts"][0]["path"], "checkpoints/best");
    assert_eq!(content["times"][0]["hooks"][0]["calls"], 3);
    assert_eq!(content["facts"]["model"]["layers"][0]["operator"], "linear");
    assert_eq!(content["facts"]["model"]["parameters"], 6);
    assert_eq!(content["facts"]["settings"], json!([["run.seed", "42"]]));
    assert_eq!(host.artifacts().iter().map(|artifact| artifact.path.as_str()).collect::<Vec<_>>(), ["report.html"]);
}

#[test]
fn it_is_written_when_the_schedule_says_so() {
    let mut host = host(json!({}));
    host.train_start().unwrap();
    host.set_position(1, 10);
    host.trigger("epoch").unwrap();
    assert_eq!(content(&host)["progress"]["step"], 10);
    host.set_position(2, 20);
    host.trigger("end").unwrap();
    assert_eq!(content(&host)["progress"]["step"], 10, "`train_end` follows");
}

#[test]
fn metrics_are_chosen_and_records_are_curves_too() {
    let mut host = host(json!({ "include": ["val_*", "noise/*"], "exclude": ["*_f1"] }));
    host.train_start().unwrap();
    for name in ["val_loss", "val_f1", "train_loss"] {
        host.put_metric(name, 1.0);
    }
    for (name, value) in [("noise/scale", 0.5), ("other", 0.5)] {
        let record = Record { name: name.to_owned(), value: RecordValue::Scalar { value } };
        host.record("someone", &record).unwrap();
    }
    let text = Record { name: "noise/text".to_owned(), value: RecordValue::Text { text: "words".to_owned() } };
    host.record("someone", &text).unwrap();
    host.train_end(Outcome::Finished).unwrap();
    let content = content(&host);
    let mut names: Vec<_> = content["curves"].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["noise/scale", "val_loss"]);
}

#[test]
fn a_resumed_run_has_the_records_of_before() {
    let mut first = host(json!({}));
    first.train_start().unwrap();
    first.set_position(1, 5);
    let record = Record { name: "scale".to_owned(), value: RecordValue::Scalar { value: 0.5 } };
    first.record("someone", &record).unwrap();
    first.artifact("export", "exports/model.onnx", "onnx").unwrap();
    let state = first.save_state().unwrap();
    let mut resumed = host(json!({}));
    resumed.load_state(&state).unwrap();
    resumed.train_start().unwrap();
    let content = content(&resumed);
    assert_eq!(content["curves"]["scale"]["points"], json!([[5, 0.5]]));
    assert_eq!(content["artifacts"][0]["path"], "exports/model.onnx");
}

#[test]
fn what_failed_is_told() {
    let mut host = host(json!({}));
    host.train_start().unwrap();
    host.error("webhook", "trigger", "the disk is full").unwrap();
    host.train_end(Outcome::Failed).unwrap();
    assert_eq!(content(&host)["progress"]["reason"], "`webhook` failed in `trigger`: the disk is full");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_the_first_step() {
    let mut host = host(json!({ "file": "pages/report.html" }));
    std::fs::write(host.folder().join("pages"), "a file").unwrap();
    let error = host.train_start().unwrap_err();
    assert!(error.message().contains("pages/report.html`"), "{error}");
}

#[test]
fn a_file_outside_the_run_folder_is_refused() {
    for file in ["", "/tmp/report.html", "../report.html", "a/../../report.html"] {
        let error = FakeHost::new::<Report>(json!({ "file": file })).err().unwrap();
        assert!(error.message().contains("which is not a file in the run folder"), "{error}");
    }
}

#[test]
fn a_trial_leaves_nothing_behind() {
    let mut host = host(json!({})).with_info(|info| info.trial = true);
    host.train_start().unwrap();
    host.train_end(Outcome::Finished).unwrap();
    assert!(!host.folder().join("report.html").exists() && host.artifacts().is_empty());
}

proptest! {
    #[test]
    fn any_name_and_value_reach_the_script(name: String, value: f64) {
        let mut host = host(json!({}));
        host.train_start().unwrap();
        host.put_metric(&name, value);
        host.train_end(Outcome::Finished).unwrap();
        let read = &content(&host)["curves"][&name]["points"][0][1];
        match read {
            Value::String(text) => prop_assert!(!value.is_finite(), "{text}"),
            number => prop_assert!((number.as_f64().unwrap() - value).abs() <= value.abs() * 1e-12),
        }
    }

    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut host = host(json!({}));
        if host.load_state(&bytes).is_ok() {
            host.train_start().unwrap();
        }
    }
}
