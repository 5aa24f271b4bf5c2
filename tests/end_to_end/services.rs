use std::collections::BTreeSet;

use plugin_api::ServiceKind;
use serde_json::{Value, json};

use crate::training::{STEPS_PER_EPOCH, Training, checks};

const CHECKPOINT: &str = "[[plugins]]\nkind = \"checkpoint\"\n";

/// The journal of the plugin `services`: the answers, by hook and service.
struct Answers(Vec<Value>);

impl Answers {
    fn of(training: &Training) -> Self {
        Self(training.journal())
    }

    fn find(&self, hook: &str, service: &str) -> &Value {
        let found = self.0.iter().find(|line| line["hook"] == hook && line["service"] == service);
        found.unwrap_or_else(|| panic!("`{service}` was not called in `{hook}`: {:#?}", self.0))
    }

    fn value(&self, hook: &str, service: &str) -> &Value {
        let answer = self.find(hook, service);
        assert!(answer["error"].is_null(), "{answer}");
        &answer["value"]
    }

    fn error(&self, hook: &str, service: &str) -> String {
        let answer = self.find(hook, service);
        let text = |part: &str| answer[part].as_str().unwrap_or("no error").to_owned();
        format!("{}: {}", text("error_kind"), text("error"))
    }
}

fn services(options: &str) -> Training {
    Training::new(&format!("[[plugins]]\nkind = \"services\"\noptions = {{ path = \"JOURNAL\", {options} }}\n"))
}

#[test]
fn every_service_answers_in_its_hook() {
    let training = services("checkpoint = 30, evaluate = 40, skip_update = 3");
    training.run("run", &[]);
    let answers = Answers::of(&training);

    let info = answers.value("setup", "run_info");
    let folder = training.path("run").canonicalize().expect("the run folder is there");
    assert_eq!(info["folder"], folder.display().to_string());
    assert_eq!(
        json!([info["instance"], info["name"], info["device"], info["epochs"], info["steps_per_epoch"]]),
        json!(["services", "small", "cpu", 2, STEPS_PER_EPOCH])
    );
    assert_eq!(json!([info["total_steps"], info["training_samples"], info["resumed_from"]]), json!([46, 1438, null]));
    let run_file: Value = serde_json::from_str(info["run_file"].as_str().unwrap_or_default()).expect("JSON");
    assert_eq!(run_file["train"]["batch_size"], 64);

    assert_eq!(answers.value("setup", "graph")["output"], "fc2");
    let parameters = answers.value("setup", "tensor_list parameters");
    assert_eq!(parameters[0], json!({ "name": "conv1.weight", "shape": [4, 1, 3, 3], "dtype": "f32" }));
    let buffers = answers.value("setup", "tensor_list buffers").as_array().expect("a list").len();
    assert!(buffers >= 2, "{buffers}");
    let optimizer = answers.value("setup", "tensor_list optimizer").as_array().expect("a list").len();
    assert_eq!(optimizer, 3 * parameters.as_array().expect("a list").len());
    let groups = answers.value("setup", "hyper_parameters");
    assert_eq!(json!([groups[0]["name"], groups[0]["values"]["weight_decay"]]), json!(["all", 0.01]));

    let lines = answers.value("setup", "console_lines").as_array().expect("a list");
    assert_eq!(lines.last().map(|line| &line["text"]), Some(&json!("the services plugin prints")));
    let times = answers.value("epoch_end", "hook_times").as_array().expect("a list");
    let steps = times.iter().find(|time| time["instance"] == "services" && time["hook"] == "step_end");
    assert_eq!(steps.map(|time| &time["calls"]), Some(&json!(STEPS_PER_EPOCH)));

    for check in ["same after restore", "same after writing a copy", "same after writing", "same after predicting"] {
        assert_eq!(answers.value("train_start", check), &json!(true), "{check}");
    }
    assert_eq!(answers.value("train_start", "changed by train_steps"), &json!(true));
    assert_eq!(answers.value("train_start", "train_steps").as_array().map(Vec::len), Some(2));
    assert_eq!(answers.value("train_start", "batch")[0]["shape"], json!([64, 1, 8, 8]));
    assert_eq!(answers.value("train_start", "batch")[1], json!({ "name": "targets", "dtype": "i64", "shape": [64] }));
    assert_eq!(answers.value("step_start", "tensor_read batch")[0]["shape"], json!([64, 1, 8, 8]));
    assert_eq!(answers.value("step_end", "tensor_read outputs")[0]["shape"], json!([64, 10]));
    assert_eq!(answers.value("step_end", "loss"), answers.value("gradients", "loss"));
    assert_eq!(answers.value("step_end", "metric"), &json!(1.5));
    assert_eq!(answers.value("eval_step_end", "tensor_read outputs")[0]["shape"], json!([256, 10]));
    assert_eq!(answers.value("eval_step_end", "tensor_read taps").as_array().map(Vec::len), Some(6));

    let series = answers.value("epoch_end", "history_series");
    assert_eq!(series[0]["value"], answers.value("epoch_end", "metrics")["train_loss"]);
    assert_eq!(answers.value("epoch_end", "history_latest"), &series[0]);
    assert_eq!(answers.value("epoch_end", "history_with_prefix"), &json!({ "train_loss": series }));
    assert_eq!(
        answers.value("epoch_end", "history_arrays"),
        &json!([{ "epoch": 1, "global_step": 1, "shape": [2, 2], "values": [1.0, 2.0, 3.0, 4.0] }])
    );
    assert_eq!(
        answers.value("epoch_end", "latest_arrays"),
        &json!({ "services_array": answers.value("epoch_end", "history_arrays")[0] })
    );
    assert_eq!(answers.value("epoch_end", "history of two values")[1]["value"], json!(2.0));
    assert_eq!(answers.value("epoch_end", "is anything left"), &json!(false));
    let weights = answers.value("epoch_end", "weights_info");
    assert_eq!((&weights["epoch"], &weights["metrics"]["train_loss"]), (&json!(1), &series[0]["value"]));
    assert_eq!(answers.value("custom", "services by services"), "epoch 1");
    assert_eq!(answers.value("artifact", "services by services"), "services.txt");
    assert_eq!(training.status("run")["artifacts"]["services"], "services.txt");

    let records: BTreeSet<&str> =
        answers.0.iter().filter_map(|line| line["service"].as_str()?.strip_prefix("record services/")).collect();
    let kinds = ["curve", "graph", "histogram", "image", "remote", "scalar", "table", "text"];
    assert_eq!(
        records,
        kinds.iter().map(|kind| format!("{kind} by services")).collect::<Vec<_>>().iter().map(String::as_str).collect()
    );
    assert_eq!(answers.value("record", "record services/image by services")["value"]["type"], "image");

    let written = answers.value("checkpoint", "write_checkpoint for services");
    let checkpoint = folder.join("services/step-00000030");
    assert_eq!(written["path"], checkpoint.display().to_string());
    assert!(written["bytes"].as_u64() > Some(10_000) && written["existed"] == false, "{written}");
    assert!(checkpoint.join("manifest.json").is_file());
    let metrics = answers.value("train_end", "remote metrics");
    assert_eq!(metrics["val_loss"], training.status("run")["metrics"]["val_loss"]);
    assert_eq!(answers.error("teardown", "remote metrics").split(':').next(), Some("Stale"));
    let log = std::fs::read_to_string(training.path("run/log.jsonl")).expect("the log can be read");
    assert!(log.contains("the services plugin logs answer=42"), "{log}");
}

#[test]
fn the_console_is_the_hosts() {
    let output = services("").run("run", &[]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(stderr.matches("the services plugin prints\n").count(), 1, "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
}

#[test]
fn unknown_names_get_the_nearest() {
    let training = services("");
    training.run("run", &[]);
    let answers = Answers::of(&training);
    let errors: Vec<String> = [
        ("setup", "tap of no node"),
        ("setup", "tensor_list batch"),
        ("train_start", "training_state_copy of no name"),
        ("train_start", "weights_copy of no name"),
        ("train_start", "tensor_write of no name"),
        ("train_start", "batch of no split"),
        ("train_start", "batch beyond the last"),
        ("train_start", "predict no node"),
        ("train_start", "measure no metric"),
        ("step_start", "tensor_write parameters"),
        ("step_start", "tensor_read gradients"),
        ("step_start", "skip_update"),
        ("step_end", "metric of no name"),
        ("step_end", "array_put of another shape"),
        ("step_end", "record of no event"),
        ("step_end", "hyper_parameter_set no name"),
        ("step_end", "tensor_read no name"),
        ("epoch_end", "history of no name"),
    ]
    .map(|(hook, service)| format!("{service}: {}", answers.error(hook, service)))
    .into();
    insta::assert_snapshot!(errors.join("\n"), @"
    tap of no node: NoSuchName: there is no node `no-such-node`
    tensor_list batch: NotAllowed: `batch` can be read only in `step_start`, `step_end`, `gradients`, `eval_step_start`, `eval_step_end`, `predict_step` and `trigger`, not in `setup`
    training_state_copy of no name: NoSuchName: there is no copy of the training state `before`
    weights_copy of no name: NoSuchName: there is no copy of the weights `copy`
    tensor_write of no name: NoSuchName: there is no tensor `no-such-parameter`
    batch of no split: NoSuchName: there is no split `vall`; did you mean `val`?
    batch beyond the last: Failed: the split `val` has 6 batches, none of index 18446744073709551615
    predict no node: NoSuchName: there is no node `no-such-node`
    measure no metric: NoSuchName: there is no metric `acuracy`; did you mean `accuracy`?
    tensor_write parameters: NotAllowed: `parameters` cannot be written in `step_start`, where a step can be in progress
    tensor_read gradients: NotAllowed: `gradients` can be read only in `step_end`, `gradients` and `trigger`, not in `step_start`
    skip_update: NotAllowed: an update can be skipped only in `gradients`, not in `step_start`
    metric of no name: NoSuchName: there is no metric `service_metric`; did you mean `services_metric`?
    array_put of another shape: Failed: `services_array` has the shape [2, 3] but 1 values
    record of no event: NotAllowed: `record` can be called only in `record`, not in `step_end`
    hyper_parameter_set no name: NoSuchName: there is no hyper-parameter `learning_rat`; did you mean `learning_rate`?
    tensor_read no name: NoSuchName: there is no tensor in `parameters` called `no-such-parameter`
    history of no name: NoSuchName: there is no metric `train_los`; did you mean `train_loss`?
    ");
}

#[test]
fn the_loop_does_what_it_is_asked() {
    let stopped = services("stop = 5");
    stopped.run("run", &[]);
    let status = stopped.status("run");
    assert_eq!(json!([status["state"], status["position"]["global_step"]]), json!(["stopped", 5]));
    assert_eq!(status["reason"], "`services`: the services plugin asks");
    let answers = Answers::of(&stopped);
    assert_eq!(answers.value("stopping", "stop by services"), "the services plugin asks");
    assert_eq!(answers.value("train_end", "outcome"), "stopped");

    let ended = services("end_epoch = 4");
    ended.run("run", &[]);
    assert_eq!(ended.status("run")["position"]["global_step"], 4 + STEPS_PER_EPOCH);
    let triggers = ended.journal().iter().filter(|line| line["hook"] == "trigger").count();
    assert_eq!(triggers, 2, "two epochs as planned: one that is cut short counts as one");
}

#[test]
fn another_thread_ends_a_pause() {
    let training = services("pause = 5");
    training.run("run", &[]);
    let log = std::fs::read_to_string(training.path("run/log.jsonl")).expect("the log can be read");
    let paused = log.find("\"paused\"").expect("the run was held");
    assert!(log[paused..].contains("\"resumed\""), "{log}");
    assert_eq!(training.status("run")["state"], "finished");
}

#[test]
fn writes_take_effect_or_are_refused() {
    let training = Training::new("[[plugins]]\nkind = \"writer\"\noptions = { path = \"JOURNAL\" }\n").with(
        r#"{ type = "adamw", learning_rate = 3e-3, weight_decay = 0.01 }"#,
        r#"{ type = "sgd", learning_rate = 0.05 }"#,
    );
    training.run("run", &[]);
    insta::assert_snapshot!(checks(&training.journal()), @"
    tap of no node: NoSuchName: there is no node `fc22`; did you mean `fc2`?
    parameters are lent, not copied
    buffers are lent, not copied
    parameters are what was written
    another shape is refused: Failed: tensor `conv1.bias` is [4] of Float, not [1, 1] of Float
    nothing of a refused write
    a copy is what was written
    a copy is apart
    a copy is put in place
    a copy that is gone: NoSuchName: there is no copy of the weights `twice`
    weights in step_start: NotAllowed: `parameters` cannot be written in `step_start`, where a step can be in progress
    gradients in step_start: NotAllowed: `gradients` can be read only in `step_end`, `gradients` and `trigger`, not in `step_start`
    skip_update in step_start: NotAllowed: an update can be skipped only in `gradients`, not in `step_start`
    the step has the batch that was written
    batch in gradients: NotAllowed: `batch` can be written only in `step_start`, not in `gradients`
    the loss is the outputs' cross-entropy
    a whole tap is the value
    tap mean
    tap norm
    tap min-max
    tap histogram
    tap non-finite
    tap of a gradient
    to_host is the same
    outputs are not written: NotAllowed: `outputs` cannot be written
    no update by gradients of zero
    no update where it is skipped
    an update where nothing is written
    gradients in epoch_end: NotAllowed: `gradients` can be read only in `step_end`, `gradients` and `trigger`, not in `epoch_end`
    batch in epoch_end: NotAllowed: `batch` can be read only in `step_start`, `step_end`, `gradients`, `eval_step_start`, `eval_step_end`, `predict_step` and `trigger`, not in `epoch_end`
    loss in epoch_end: NotAllowed: `loss` can be called only in `step_end`, `gradients`, `eval_step_end` and `trigger`, not in `epoch_end`
    record in epoch_end: NotAllowed: `record` can be called only in `record`, not in `epoch_end`
    write_checkpoint in epoch_end: NotAllowed: `write_checkpoint` can be called only in `checkpoint`, not in `epoch_end`
    tap in epoch_end: NotAllowed: `tap` can be called only in `setup`, not in `epoch_end`
    ");
}

/// The last checkpoint of a run without the plugin, as `plain`, and of one with it, as `run`.
fn with_and_without(plugin: &str) -> Training {
    let training = Training::new(CHECKPOINT);
    training.run("plain", &[]);
    let training = training.with("[[plugins]]", &format!("{plugin}\n[[plugins]]"));
    let text = std::fs::read_to_string(training.path("run.toml")).expect("the run file can be read");
    let journal = training.path("journal.jsonl").display().to_string();
    std::fs::write(training.path("run.toml"), text.replace("JOURNAL", &journal)).expect("it can be written");
    training.run("run", &[]);
    training
}

#[test]
fn reading_changes_no_bit() {
    let reader = "[[plugins]]\nkind = \"reader\"\noptions = { path = \"JOURNAL\", snapshot = true }\n";
    let training = with_and_without(reader);
    insta::assert_snapshot!(checks(&training.journal()), @r#"
    train_steps trains
    the state is put back
    the same steps again are the same
    the state is put back twice
    measure is the evaluation
    history has it
    predictions of a split: loss
    predictions of a split: accuracy
    a named node
    predictions of inputs
    a copy measures as the weights
    a copy of zeros guesses: its loss is ln 10
    the weights are back
    "#);
    training.assert_same("plain/checkpoints/last", "run/checkpoints/last");
}

#[test]
fn a_background_callback_sees_the_moment_of_its_event() {
    let observer = |more: &str| {
        format!("[[plugins]]\nkind = \"observer\"\noptions = {{ path = \"JOURNAL\", {more} }}\n{CHECKPOINT}")
    };
    // The cosine's last learning rate is zero, and the last step then changes nothing.
    let constant = |training: Training| training.with("\"cosine\"", "\"constant\"");
    let inline = constant(Training::new(&observer("")));
    inline.run("run", &[]);
    let late = constant(Training::new(&observer("sleep_ms = 4, trespass = true")))
        .with("kind = \"observer\"", "kind = \"observer\"\ndispatch = \"background\"");
    late.run("run", &[]);
    let seen = |training: &Training| -> Vec<Value> {
        training.journal().into_iter().filter(|line| line["check"].is_null()).collect()
    };
    let (seen_inline, seen_late) = (seen(&inline), seen(&late));
    assert_eq!(seen_inline.len() as u64, 2 * STEPS_PER_EPOCH + 2);
    assert_eq!(seen_inline, seen_late);
    let parameters: BTreeSet<&str> = seen_late.iter().filter_map(|line| line["parameters"].as_str()).collect();
    assert_eq!(parameters.len() as u64, 2 * STEPS_PER_EPOCH, "every step has weights of its own");
    let predicted: BTreeSet<&str> = seen_late.iter().filter_map(|line| line["predicted"].as_str()).collect();
    assert_eq!(predicted.len() as u64, 2 * STEPS_PER_EPOCH, "and predicts with them");
    assert_eq!(late.status("run")["metrics"]["observed"], 46.0);
    insta::assert_snapshot!(checks(&late.journal()), @r#"
    loss
    gradients: NotAllowed: `gradients` was not copied for `step_end`: a callback that reads it in the background must name it in `NEEDS`
    taps: NotAllowed: `taps` was not copied for `step_end`: a callback that reads it in the background must name it in `NEEDS`
    copy: NotAllowed: `copy:none` was not copied for `step_end`: a callback that reads it in the background must name it in `NEEDS`
    tensor_write: NotAllowed: `tensor_write` needs the training thread: set `dispatch = "inline"` for this callback
    weights_copy: NotAllowed: `weights_copy` needs the training thread: set `dispatch = "inline"` for this callback
    copy_training_state: NotAllowed: `training_state_copy` needs the training thread: set `dispatch = "inline"` for this callback
    train_steps: NotAllowed: `train_steps` needs the training thread: set `dispatch = "inline"` for this callback
    measure: NotAllowed: `measure` needs the training thread: set `dispatch = "inline"` for this callback
    recalibrate_batch_norm: NotAllowed: `recalibrate_batch_norm` needs the training thread: set `dispatch = "inline"` for this callback
    skip_update: NotAllowed: an update can be skipped only on the training thread: in the background it is already done
    write_checkpoint: NotAllowed: `write_checkpoint` can be called only in `checkpoint`, not in `step_end`
    metric of no name: NoSuchName: there is no metric `train_los`; did you mean `train_loss`?
    tensor of no name: NoSuchName: there is no tensor in `parameters` called `fc2.wieght`; did you mean `fc2.weight` or `fc1.weight`?
    "#);
}

#[test]
fn a_kind_that_writes_weights_is_refused_in_the_background() {
    let training = Training::new("[[plugins]]\nkind = \"writer\"\ndispatch = \"background\"\n");
    let output = training.output("run", &[]);
    insta::assert_snapshot!(fixture::shown(&output, &[training.folder()]), @r#"
    exit code: 2
    -- stderr
      × `writer` writes weights, gradients or batches: it cannot run in the background
        ╭─[[FOLDER]/run.toml:46:12]
     45 │ kind = "writer"
     46 │ dispatch = "background"
        ·            ──────┬─────
        ·                  ╰── not for this kind
        ╰────
      hint: leave out `dispatch`, or say `dispatch = "inline"`
    "#);
    assert!(!training.path("run").exists());
}

#[test]
fn a_spent_handle_does_no_harm() {
    let training = with_and_without("[[plugins]]\nkind = \"stale-handle\"\n");
    training.assert_same("plain/checkpoints/last", "run/checkpoints/last");
    let callbacks = training.status("run")["callbacks"].clone();
    let called = |hook: &str| {
        let calls = callbacks.as_array().into_iter().flatten();
        let mut of_it = calls.filter(|entry| entry["plugin"] == "stale-handle" && entry["hook"] == hook);
        of_it.next().map(|entry| entry["calls"].clone())
    };
    assert_eq!([called("epoch_start"), called("epoch_end")], [Some(json!(2)), Some(json!(2))], "{callbacks}");
}

#[test]
fn no_service_is_left_out() {
    // The SDK's glue calls them by itself: `fault` when a hook fails, `save_state` for each checkpoint.
    // `option` is for other languages: in Rust the options come typed.
    let of_the_sdk = ["fault", "save_state", "option"];
    let training = services("checkpoint = 5, learning_rate = 0.5");
    training.run("run", &[]);
    let journal = training.journal();
    for service in ServiceKind::ALL.iter().map(|service| service.name()) {
        let called = journal.iter().any(|line| {
            line["service"].as_str().is_some_and(|name| name.starts_with(service)) && line["error"].is_null()
        });
        assert!(called || of_the_sdk.contains(&service), "`{service}` is not called");
    }
}
