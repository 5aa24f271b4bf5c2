use std::fs;
use std::path::{Path, PathBuf};

use plugin_api::event::Outcome;
use plugin_api::protocol::{Blob, HyperParameter, Record, RecordValue};
use plugin_api::testing::{FakeHost, Value as Json, json};
use plugin_api::{EventKind, Tensor};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::framing;
use crate::proto::{Content, Event, GraphDef, HparamKind, Hparams, HparamsData, Value};

fn host(options: Json) -> FakeHost {
    let mut host = FakeHost::new::<TensorBoard>(options).unwrap().with_info(|info| {
        info.data.splits = [("train".to_owned(), 320), ("val".to_owned(), 4), ("val_small".to_owned(), 2)].into();
        info.data.classes = 2;
        info.run_file = json!({ "eval": { "split": "val" }, "train": { "batch_size": 32 } }).to_string();
    });
    host.set_graph(json!({
        "inputs": [{ "name": "inputs", "shape": [4], "dtype": "f32" }],
        "nodes": [
            { "name": "block1.relu1", "op": { "type": "relu" }, "inputs": ["inputs"], "shape": [4],
              "parameters": [], "buffers": [] },
            { "name": "fc1", "op": { "type": "linear", "in_features": 4, "out_features": 2, "bias": false },
              "inputs": ["block1.relu1"], "shape": [2],
              "parameters": [{ "name": "fc1.weight", "shape": [2, 4], "dtype": "f32" }], "buffers": [] },
        ],
        "output": "fc1",
    }));
    let weight = Tensor::new("fc1.weight", &[2, 4], &[0.5f32, -1.0, f32::NAN, 2.0, 0.0, 1.0, 1.0, 1.0]).unwrap();
    host.put_tensor(TensorSet::Gradients, weight.clone());
    host.put_tensor(TensorSet::Parameters, weight);
    let inputs = Tensor::new("inputs", &[4, 4], &std::array::from_fn::<f32, 16, _>(|index| index as f32)).unwrap();
    host.put_batch("val", inputs, Tensor::new("targets", &[4], &[0i64, 1, 0, 1]).unwrap());
    host
}

/// The events of a run of the instance `tensorboard`, in the order in which TensorBoard reads them.
fn events(folder: &Path, run: &str) -> Vec<Event> {
    let Ok(entries) = fs::read_dir(folder.join("tensorboard/test").join(run)) else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.to_string_lossy().contains("tfevents")).collect();
    files.sort();
    let mut events = Vec::new();
    for file in files {
        let bytes = fs::read(file).unwrap();
        let mut rest = bytes.as_slice();
        while let Some((record, tail)) = framing::first(rest) {
            events.push(Event::decode(record).unwrap());
            rest = tail;
        }
        assert!(rest.is_empty(), "a torn record");
    }
    events
}

/// The values of a run with their steps.
fn values(folder: &Path, run: &str) -> Vec<(i64, Value)> {
    let of = |event: Event| match event.what {
        Some(What::Summary(summary)) => summary.value.into_iter().map(|value| (event.step, value)).collect(),
        _ => Vec::new(),
    };
    events(folder, run).into_iter().flat_map(of).collect()
}

fn scalars(folder: &Path, run: &str) -> Vec<(i64, String, f32)> {
    let scalar = |(step, value): (i64, Value)| match value.content {
        Some(Content::Scalar(number)) => Some((step, value.tag, number)),
        _ => None,
    };
    values(folder, run).into_iter().filter_map(scalar).collect()
}

fn epoch(host: &mut FakeHost, epoch: u64, loss: f64) -> Result<()> {
    host.set_position(epoch, epoch * 10);
    host.put_metric("train_loss", loss);
    host.put_metric("val_loss", loss + 1.0);
    host.evaluation(EventKind::EVAL_END, "val", 0, 1)?;
    host.epoch_end(epoch)?;
    host.trigger("epoch")
}

fn start(host: &mut FakeHost) {
    host.setup().and_then(|()| host.train_start()).unwrap();
}

fn put(host: &mut FakeHost, name: &str, value: RecordValue) -> Result<()> {
    host.record("somebody", &Record { name: name.to_owned(), value })
}

#[test]
fn metrics_are_scalars_of_their_splits_once_a_step() {
    let mut host = host(json!({ "every": 0 }));
    start(&mut host);
    epoch(&mut host, 1, 0.5).unwrap();
    // An epoch without an evaluation: the values of the split are old.
    host.set_position(2, 15);
    host.put_metric("val_small_loss", 7.0);
    host.epoch_end(2).unwrap();
    host.train_end(Outcome::Finished).unwrap();
    let loss = "loss".to_owned();
    assert_eq!(scalars(host.folder(), "train"), [(10, loss.clone(), 0.5), (20, loss.clone(), 0.5)]);
    assert_eq!(scalars(host.folder(), "val"), [(10, loss, 1.5)]);
    assert_eq!(values(host.folder(), "val_small"), []);
    assert_eq!((host.artifacts()[0].kind.as_str(), host.artifacts()[0].path.as_str()), ("tensorboard", "tensorboard"));
}

#[test]
fn weights_and_gradients_are_histograms_at_every_so_many_triggers() {
    let mut host = host(json!({ "every": 2 }));
    start(&mut host);
    for number in 1..=3 {
        epoch(&mut host, number, 0.5).unwrap();
    }
    host.fire(EventKind::TEARDOWN).unwrap();
    let found: Vec<_> = values(host.folder(), "train")
        .into_iter()
        .filter_map(|(step, value)| match value.content {
            Some(Content::Histogram(histogram)) => Some((step, value.tag, histogram.num)),
            _ => None,
        })
        .collect();
    let [weights, gradients] = ["weights/fc1.weight", "gradients/fc1.weight"].map(str::to_owned);
    assert_eq!(found, [(20, weights.clone(), 7.0), (20, gradients, 7.0)]);
    assert!(scalars(host.folder(), "train").contains(&(20, format!("{weights}/non_finite"), 1.0)));
}

#[test]
fn with_a_basis_they_come_at_an_improvement_alone_also_after_a_resume() {
    let options = json!({ "basis": { "val_loss": "min" } });
    let mut first = host(options.clone());
    start(&mut first);
    for (number, loss) in [(1, 0.5), (2, 0.7), (3, f64::NAN), (4, 0.4)] {
        epoch(&mut first, number, loss).unwrap();
    }
    let state = first.save_state().unwrap();
    let steps = |folder: &Path| -> Vec<i64> {
        let is_histogram = |value: &Value| matches!(value.content, Some(Content::Histogram(_)));
        let mut steps: Vec<_> = values(folder, "train")
            .into_iter()
            .filter(|(_, value)| is_histogram(value))
            .map(|(step, _)| step)
            .collect();
        steps.dedup();
        steps
    };
    assert_eq!(steps(first.folder()), [10, 40]);
    let mut second = host(options).with_info(|info| info.folder = first.folder().display().to_string());
    second.set_position(4, 40);
    second.setup().and_then(|()| second.load_state(&state)).and_then(|()| second.train_start()).unwrap();
    epoch(&mut second, 5, 0.45).unwrap();
    epoch(&mut second, 6, 0.3).unwrap();
    second.fire(EventKind::TEARDOWN).unwrap();
    assert_eq!(steps(first.folder()), [10, 40, 60]);
}

#[test]
fn a_resumed_run_has_the_points_of_an_unbroken_one() {
    let mut unbroken = host(json!({}));
    start(&mut unbroken);
    (1..=4).for_each(|number| epoch(&mut unbroken, number, 1.0 / number as f64).unwrap());
    unbroken.train_end(Outcome::Finished).unwrap();
    for saved in 0..=3 {
        let mut broken = host(json!({ "flush": 0.0 }));
        start(&mut broken);
        (1..=3).for_each(|number| epoch(&mut broken, number, 1.0 / number as f64).unwrap());
        let mut resumed = host(json!({})).with_info(|info| info.folder = broken.folder().display().to_string());
        resumed.set_position(saved, saved * 10);
        start(&mut resumed);
        (saved + 1..=4).for_each(|number| epoch(&mut resumed, number, 1.0 / number as f64).unwrap());
        resumed.train_end(Outcome::Finished).unwrap();
        for run in ["train", "val"] {
            assert_eq!(scalars(broken.folder(), run), scalars(unbroken.folder(), run), "`{run}` after {saved}");
        }
        let starts = events(broken.folder(), "train")
            .into_iter()
            .filter(|event| matches!(event.what, Some(What::SessionLog(_))));
        let starts: Vec<_> = starts.map(|event| event.step).collect();
        assert_eq!(starts, if saved == 0 { vec![] } else { vec![saved as i64 * 10 + 1] });
        assert_eq!(values(broken.folder(), "").len(), 2, "one start and one end of a session");
    }
}

#[test]
fn the_graph_has_the_layers_and_their_scopes() {
    let mut host = host(json!({}));
    start(&mut host);
    let mut graphs = events(host.folder(), "train").into_iter().filter_map(|event| match event.what {
        Some(What::GraphDef(bytes)) => Some(GraphDef::decode(bytes.as_slice()).unwrap()),
        _ => None,
    });
    let graph = graphs.next_back().unwrap();
    let nodes: Vec<_> =
        graph.node.iter().map(|node| (node.name.as_str(), node.op.as_str(), node.input.len())).collect();
    assert_eq!(nodes, [("inputs", "Placeholder", 0), ("block1/relu1", "relu", 1), ("fc1", "linear", 1)]);
    assert_eq!(graph.node[2].input, ["block1/relu1"]);
}

#[test]
fn examples_and_features_are_what_the_model_made_of_the_samples() {
    let mut host = host(json!({ "image_shape": [2, 2, 1], "images": 3, "embeddings": 4, "every": 0 }));
    start(&mut host);
    let nodes: Vec<_> = host.taps().iter().map(|tap| (tap.name.clone(), tap.node.clone())).collect();
    let [outputs, features] = ["tensorboard.outputs", "tensorboard.features"].map(str::to_owned);
    assert_eq!(nodes, [(outputs.clone(), "fc1".to_owned()), (features.clone(), "block1.relu1".to_owned())]);
    let said = [0f32, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0, 0.0];
    host.put_tensor(TensorSet::Taps, Tensor::new(outputs, &[4, 2], &said).unwrap());
    host.put_tensor(TensorSet::Taps, Tensor::new(features, &[4, 2], &said).unwrap());
    host.evaluation(EventKind::EVAL_STEP_END, "val", 1, 1).unwrap();
    epoch(&mut host, 1, 0.5).unwrap();
    // Without another evaluation, there is nothing new to show.
    host.trigger("step").unwrap();
    host.train_end(Outcome::Finished).unwrap();
    let mut images = 0;
    for (_, value) in values(host.folder(), "val") {
        match value.content {
            Some(Content::Image(image)) => {
                images += 1;
                assert_eq!((image.height, image.width, image.colorspace), (2, 2, 1));
            }
            Some(Content::Tensor(tensor)) => {
                let text = String::from_utf8(tensor.texts[0].clone()).unwrap();
                assert!(
                    text.contains("| 0 | 0 | 1 (1.000) |\n| 1 | 1 | 1 (1.000) |\n| 2 | 0 | 0 (1.000) |\n"),
                    "{text}"
                );
            }
            _ => {}
        }
    }
    assert_eq!(images, 3);
    let read = |name: &str| fs::read_to_string(host.folder().join("tensorboard/test").join(name)).unwrap();
    assert_eq!(read("projector/tensors.tsv"), "0\t9\n0\t9\n9\t0\n9\t0\n");
    assert_eq!(read("projector/metadata.tsv"), "0\n1\n0\n1\n");
    assert!(read("projector_config.pbtxt").contains("tensor_name: \"block1.relu1\""));
}

#[test]
fn every_kind_of_record_is_written_where_its_page_looks() {
    let mut host = host(json!({}));
    start(&mut host);
    let pixels = Blob(vec![0; 12]);
    let words = || "x".repeat(10 << 20);
    let records = [
        (
            "val/pr",
            RecordValue::Curve {
                x_label: "recall".into(),
                y_label: "precision".into(),
                x: vec![0.0, 1.0],
                y: vec![1.0, 0.5],
            },
        ),
        (
            "val_roc",
            RecordValue::Curve {
                x_label: "false positive rate".into(),
                y_label: "true positive rate".into(),
                x: vec![0.0, 1.0],
                y: vec![0.0, 1.0],
            },
        ),
        ("val_image", RecordValue::Image { width: 2, height: 2, channels: 3, pixels }),
        ("val_spread", RecordValue::Histogram { edges: vec![0.0, 1.0, 2.0], counts: vec![3.0, 1.0] }),
        ("val_words", RecordValue::Text { text: words() }),
        ("val_rows", RecordValue::Table { columns: vec!["a".into()], rows: vec![vec!["1".into()]] }),
    ];
    for (name, value) in records {
        put(&mut host, name, value).unwrap();
    }
    for value in [f64::NAN, f64::INFINITY] {
        put(&mut host, "val_odd", RecordValue::Scalar { value }).unwrap();
    }
    host.train_end(Outcome::Finished).unwrap();
    let written = values(host.folder(), "val");
    let tags: Vec<_> = written.iter().map(|(_, value)| value.tag.as_str()).collect();
    assert_eq!(tags, ["pr", "roc", "image", "spread", "words", "rows", "odd", "odd"]);
    let plugin = |value: &Value| value.metadata.clone().and_then(|metadata| Some(metadata.plugin_data?.plugin_name));
    let plugins: Vec<_> = written.iter().map(|(_, value)| plugin(value).unwrap_or_default()).collect();
    assert_eq!(plugins, ["pr_curves", "", "", "", "text", "text", "", ""]);
    assert!(matches!(&written[4].1.content, Some(Content::Tensor(tensor)) if tensor.texts[0] == words().as_bytes()));
    assert!(matches!(written[6].1.content, Some(Content::Scalar(value)) if value.is_nan()));
}

#[test]
fn recorded_hyper_parameters_join_those_of_the_run_file() {
    let mut host = host(json!({}));
    start(&mut host);
    for (name, value) in [("width", HyperParameter::Number(3.0)), ("wide", HyperParameter::Flag(true))] {
        put(&mut host, "search", RecordValue::HyperParameters { values: [(name.to_owned(), value)].into() }).unwrap();
    }
    host.train_end(Outcome::Failed).unwrap();
    let data: Vec<_> = values(host.folder(), "")
        .into_iter()
        .map(|(_, value)| HparamsData::decode(value.metadata.unwrap().plugin_data.unwrap().content.as_slice()).unwrap())
        .collect();
    assert_eq!(data.len(), 2);
    let Some(Hparams::SessionStart(start)) = &data[0].data else { panic!("no start") };
    assert_eq!(start.hparams.keys().collect::<Vec<_>>(), ["train.batch_size", "wide", "width"]);
    assert_eq!(start.hparams["wide"].kind, Some(HparamKind::Bool(true)));
    assert!(matches!(&data[1].data, Some(Hparams::SessionEnd(end)) if end.status == 2));
}

#[test]
fn records_that_are_none_are_left_out_with_a_warning_that_names_them() {
    let mut host = host(json!({}));
    start(&mut host);
    for (value, expected) in [
        (RecordValue::Histogram { edges: vec![1.0, 0.0], counts: vec![1.0] }, "the histogram `odd` has 2 edges"),
        (RecordValue::Image { width: 9, height: 9, channels: 3, pixels: Blob(vec![1]) }, "the image `odd` cannot be"),
        (RecordValue::Graph { json: "{}".into() }, "the graph `odd` cannot be read"),
    ] {
        put(&mut host, "odd", value).unwrap();
        let told = host.logs().last().unwrap();
        assert!(told.starts_with("WARN a record of `somebody` was skipped: ") && told.contains(expected), "{told}");
    }
    put(&mut host, "even", RecordValue::Scalar { value: 1.0 }).unwrap();
    host.train_end(Outcome::Finished).unwrap();
    assert_eq!(scalars(host.folder(), "train"), [(0, "even".to_owned(), 1.0)]);
}

#[test]
fn a_hundred_thousand_scalars_of_one_step_are_all_there() {
    let mut host = host(json!({}));
    start(&mut host);
    for number in 0..100_000 {
        put(&mut host, &format!("many/{number}"), RecordValue::Scalar { value: f64::from(number) }).unwrap();
    }
    host.train_end(Outcome::Finished).unwrap();
    let found = scalars(host.folder(), "train");
    assert_eq!(found.len(), 100_000);
    assert!(found.iter().all(|(_, tag, value)| *tag == format!("many/{value}")));
}

#[test]
fn folders_that_are_gone_or_in_the_way_are_errors_with_their_names() {
    let mut gone = host(json!({ "flush": 0.0 }));
    start(&mut gone);
    epoch(&mut gone, 1, 0.5).unwrap();
    fs::remove_dir_all(gone.folder().join("tensorboard")).unwrap();
    let told = epoch(&mut gone, 2, 0.5).unwrap_err().message().to_owned();
    assert!(
        told.starts_with("the event file was removed during the run: ") && told.contains("/tensorboard/test/"),
        "{told}"
    );

    let mut file = host(json!({ "log_dir": "file" }));
    fs::write(file.folder().join("file"), "").unwrap();
    let told = file.setup().unwrap_err().message().to_owned();
    assert!(told.starts_with("cannot create the folder `") && told.contains("/file/test`"), "{told}");
}

#[test]
fn options_that_cannot_be_are_refused() {
    for (options, expected) in [
        (json!({ "image_shape": [0, 8, 1] }), "`image_shape` must be [height, width, channels]"),
        (json!({ "image_shape": [8, 8, 2] }), "`image_shape` must be [height, width, channels]"),
        (json!({ "basis": {} }), "`basis` must name one metric"),
        (json!({ "flush": -1.0 }), "`flush`"),
    ] {
        let told = FakeHost::new::<TensorBoard>(options).err().unwrap().message().to_owned();
        assert!(told.contains(expected), "{told}");
    }
    let told = host(json!({ "image_shape": [8, 8, 1] })).setup().unwrap_err().message().to_owned();
    assert!(told.starts_with("samples of shape [4] are not images"), "{told}");
    let mut missing = host(json!({ "basis": { "val_los": "min" } }));
    start(&mut missing);
    assert!(epoch(&mut missing, 1, 0.5).unwrap_err().message().starts_with("`basis`: "));
}

#[test]
fn a_log_folder_of_many_runs_keeps_them_apart() {
    let logs = tempfile::tempdir().unwrap();
    let runs = [(); 2].map(|()| {
        let mut host = host(json!({ "log_dir": logs.path() }));
        start(&mut host);
        epoch(&mut host, 1, 0.5).unwrap();
        host.train_end(Outcome::Finished).unwrap();
        logs.path().join("test").join(host.folder().file_name().unwrap())
    });
    assert!(runs[0] != runs[1] && runs.iter().all(|run| run.join("train").is_dir()));
    let mut trial = host(json!({ "log_dir": logs.path().join("trial") })).with_info(|info| info.trial = true);
    start(&mut trial);
    assert!(!logs.path().join("trial").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_name_and_value_is_written(name: String, value: f64) {
        let mut host = host(json!({}));
        start(&mut host);
        put(&mut host, &name, RecordValue::Scalar { value }).unwrap();
        host.train_end(Outcome::Finished).unwrap();
        let found: Vec<_> = ["train", "val", "val_small"].iter().flat_map(|run| scalars(host.folder(), run)).collect();
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!(found[0].2.to_bits(), (value as f32).to_bits());
    }

    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
        let mut host = host(json!({}));
        if host.load_state(&bytes).is_ok() {
            start(&mut host);
        }
    }
}
