//! Events of callbacks and of a program's own step, with tensors: who gets them, when, and without a copy.

use std::path::Path;

use fixture::build_c_plugins;
use serde_json::{Value, json};

use crate::custom_trainer;
use crate::small_run::SmallRun;
use crate::third_party::{library_of, tests_pass};
use crate::training::{Training, checks};

/// Adds a library to the plugins of a run.
fn with_library(run: SmallRun, library: &Path) -> SmallRun {
    let name = library.file_name().expect("a library has a name");
    std::fs::copy(library, run.plugins().join(name)).expect("it can be copied");
    run
}

/// An instance of a kind of the test plugin `probe`.
fn probe(kind: &str, name: &str, more: &str) -> String {
    format!("[[plugins]]\nkind = \"{kind}\"\nname = \"{name}\"\n{more}\noptions = {{ path = \"JOURNAL\" }}\n")
}

/// The lines of a journal about this sender or receiver.
fn lines_of<'j>(journal: &'j [Value], key: &str, instance: &str) -> Vec<&'j Value> {
    journal.iter().filter(|line| line[key] == instance).collect()
}

#[test]
fn tensors_arrive_without_a_copy_inline_and_as_copies_in_the_background() {
    let background = "dispatch = \"background\"";
    let instances = [
        probe("receiver", "before", ""),
        probe("sender", "sends", ""),
        probe("receiver", "here", ""),
        probe("receiver", "there", background),
        probe("receiver-of-no-tensors", "told", background),
    ];
    let training = Training::new(&instances.concat());
    training.run("run", &["--set", "train.epochs=1"]);
    let journal = training.journal();
    insta::assert_snapshot!(checks(&journal), @"
    the list has the names of the tensors
    tensors of no event: NotAllowed: `event` can be read only in `custom`, not in `step_end`
    ");
    let sent = lines_of(&journal, "sender", "sends");
    assert_eq!(sent.len(), 2, "{journal:#?}");
    for receiver in ["before", "here", "there"] {
        let received = lines_of(&journal, "receiver", receiver);
        assert_eq!(received.len(), 2, "{receiver}: {journal:#?}");
        for (sent, received) in sent.iter().zip(received) {
            assert_eq!(received["author"], "sends");
            assert_eq!(received["names"], json!(["inputs", "targets", "half", "own"]));
            let shapes = json!([[64, 1, 8, 8], [64], [32, 1, 8, 8], [3]]);
            assert_eq!((&received["shapes"], &received["global_step"]), (&shapes, &sent["global_step"]));
            assert_eq!(received["fingerprint"], sent["fingerprint"], "{receiver}");
            let addresses = &received["addresses"];
            let lent = (&addresses[0], &addresses[2]) == (&sent["inputs"], &sent["half"]);
            assert_eq!(lent, receiver != "there", "{receiver}: {received} {sent}");
            // The copy for this thread was made while the sender's own memory was there.
            assert!(!lent || addresses[3] != sent["own"], "{received} {sent}");
            let refused = received["refused"].as_array().expect("a list");
            assert_eq!(refused[0], "there is no tensor in `event` called `input`; did you mean `inputs`?");
            assert!(refused.iter().all(Value::is_string), "{refused:?}");
        }
    }
    let told = lines_of(&journal, "receiver", "told");
    let message =
        "`event` was not copied for `custom`: a callback that reads it in the background must name it in `NEEDS`";
    assert!(told.len() == 2 && told.iter().all(|line| line["refused"] == message), "{told:#?}");
}

#[test]
fn a_sender_in_the_background_sends_copies() {
    let instances = [probe("sender", "sends", "dispatch = \"background\""), probe("receiver", "here", "")];
    let training = Training::new(&instances.concat());
    training.run("run", &["--set", "train.epochs=1"]);
    let journal = training.journal();
    let fingerprints = |key: &str, name: &str| -> Vec<Value> {
        lines_of(&journal, key, name).iter().map(|line| line["fingerprint"].clone()).collect()
    };
    assert_eq!(fingerprints("sender", "sends").len(), 2);
    assert_eq!(fingerprints("sender", "sends"), fingerprints("receiver", "here"));
}

#[test]
fn in_c_too() {
    let run = with_library(SmallRun::new(), &build_c_plugins()["custom_events"]);
    let ran = run.instance("kind = 'c-events'").set("train.epochs=1").run().succeeded();
    let status = ran.status();
    let metric = |name: &str| status["metrics"][name].as_f64();
    assert!(metric("sent_sum") > Some(0.0), "{status}");
    assert_eq!((metric("received_sum"), metric("received_own")), (metric("sent_sum"), Some(3.5)));
}

#[test]
fn a_programs_event_carries_its_batch_before_the_loss() {
    let training = custom_trainer::training(
        &[probe("receiver", "here", ""), probe("receiver", "there", "dispatch = \"background\"")].concat(),
    );
    training.run("run", &["--set", "train.epochs=1"]);
    let journal = training.journal();
    let [here, there] = ["here", "there"].map(|name| lines_of(&journal, "receiver", name));
    assert_eq!((here.len(), there.len()), (2, 2), "{journal:#?}");
    for (here, there) in here.into_iter().zip(there) {
        assert_eq!((&here["author"], &here["names"]), (&json!("program"), &json!(["inputs", "targets"])));
        assert_eq!(here["fingerprint"], there["fingerprint"]);
        // The step has computed no loss yet.
        assert_eq!(here["step_loss"], Value::Null, "{here}");
    }
}

/// The trainer of the example, with a listener that finds its batches wrong.
fn refusing(on_error: &str) -> Training {
    let library = library_of("custom-events");
    custom_trainer::training(&format!(
        "[[plugins]]\nkind = \"verify-batch\"\non_error = \"{on_error}\"\noptions = {{ event = \"mixup\", limit = 0.0 }}\n\
         [[plugins]]\nkind = \"recorder\"\noptions = {{ path = \"JOURNAL\" }}\n"
    ))
    .with_library(&library)
}

#[test]
fn a_listener_that_fails_is_not_the_program_that_fails() {
    let ignored = refusing("ignore");
    ignored.run("run", &["--set", "train.epochs=1"]);
    let journal = ignored.journal();
    let events = |step: u64| -> Vec<&str> {
        let at_step = journal.iter().filter(|line| line["global_step"] == step);
        at_step.filter_map(|line| line["event"].as_str()).collect()
    };
    // Everybody gets the event, and then hears of the failure.
    assert_eq!(events(10), ["step_start", "custom", "error", "gradients", "step_end"]);
    let failures = ignored.status("run")["failures"].as_array().map_or(0, Vec::len);
    assert_eq!(failures, 2);

    let stopped = refusing("stop");
    let output = stopped.output("run", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("plugin `verify-batch` failed in `custom`: the batch that `program` sent"), "{stderr}");
    assert!(!stderr.contains("batch step failed"), "{stderr}");
    // The step whose batch was refused has no gradients and no update.
    let journal = stopped.journal();
    let last: Vec<_> = journal.iter().rev().take(4).filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(last, ["teardown", "train_end", "error", "custom"]);
}

#[test]
fn the_example_of_events_passes_its_tests_and_runs() {
    tests_pass("custom-events", 4);
    let library = library_of("custom-events");
    let run = |sender: &str, listener: &str| {
        with_library(SmallRun::with_libraries(&["recorder", "checkpoint"]), &library)
            .instance(&format!("kind = 'send-batches'\n{sender}"))
            .instance(&format!("kind = 'verify-batch'\n{listener}"))
            .instance("kind = 'checkpoint'")
    };
    let ran = run("options = { every = 2 }", "").run().succeeded();
    assert_eq!(ran.status()["metrics"]["verified_batches"], 3.0);
    let background = run("dispatch = 'background'", "dispatch = 'background'").run().succeeded();
    assert_eq!(background.status()["metrics"]["verified_batches"], 6.0);
    let resumed = run("", "").set("train.epochs=3").arguments(["--resume", "auto"]).run_in(ran.out.clone()).succeeded();
    assert_eq!(resumed.status()["metrics"]["verified_batches"], 6.0);
    let wrong = run("", "options = { limit = 0.5 }").run();
    let told = "plugin `verify-batch` failed in `custom`: the batch that `send-batches` sent (step 1) has ";
    assert!(wrong.code() == Some(1) && wrong.stderr().contains(told), "{}", wrong.stderr());
}

#[test]
fn the_example_of_metrics_counts_as_the_host_does() {
    tests_pass("classification-metrics", 2);
    let library = library_of("classification-metrics");
    for dispatch in ["inline", "background"] {
        let ran = with_library(SmallRun::with_libraries(&["standard", "checkpoint", "recorder"]), &library)
            .with("metrics = [\"accuracy\"]", "metrics = [\"accuracy\", \"confusion_matrix\"]")
            .instance(&format!("kind = 'class-counts'\ndispatch = '{dispatch}'"))
            .instance("kind = 'checkpoint'")
            .instance("kind = 'early-stopping'\noptions = { metric = 'val_counted_accuracy', mode = 'max' }")
            .recorder("sees", "", "")
            .run()
            .succeeded();
        let state = std::fs::read(ran.out.join("checkpoints/last/state.json")).expect("a checkpoint");
        let history = &serde_json::from_slice::<Value>(&state).expect("JSON")["history"];
        let series = |of: &str, name: &str| -> Vec<Value> {
            let all = history[of].as_array().expect("a list").iter();
            let named: Vec<&Value> = all.filter(|series| series["name"] == name).collect();
            assert_eq!(named.len(), 1, "`{name}` in {history}");
            named[0]["values"].as_array().expect("values").clone()
        };
        let accuracy = series("numbers", "val_accuracy");
        assert_eq!(accuracy.len(), 2);
        assert_eq!(series("numbers", "val_counted_accuracy"), accuracy, "{dispatch}");
        assert_eq!(series("arrays", "val_counts"), series("arrays", "val_confusion_matrix"), "{dispatch}");
        let tables = ran.sequence("sees", &["record"]);
        assert_eq!(tables.matches("class-counts, val_classes").count(), 2, "{tables}");
    }
}
