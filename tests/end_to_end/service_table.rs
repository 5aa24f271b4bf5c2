//! Every service in every hook, inline, in the background and from a remote, in all hosts: a run, the simulated
//! run of `host plugins check`, and the fake host that authors test with. Each answer must have the same status and message.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fixture::{build_test_plugins, host, lines, temporary_folder};
use plugin_api::event::Outcome;
use plugin_api::protocol::{Evaluated, Record, RecordValue, TensorSet};
use plugin_api::testing::{FakeHost, json};
use plugin_api::{Callback, EventKind, ServiceKind, Tensor};

use crate::small_run::SmallRun;

/// The callback that calls, as a type for the fake host. The library has the same file.
#[path = "../plugins/matrix/src/matrix.rs"]
mod matrix;

/// The answers of each host, by dispatch, hook, caller and request.
type Answers = BTreeMap<String, String>;

/// Hooks that are not sent yet, or only while an instance is created.
const NOT_ASKED: [EventKind; 4] =
    [EventKind::PREDICT_START, EventKind::PREDICT_STEP, EventKind::PREDICT_END, EventKind::EXPORT];

fn answers(journal: &Path) -> Answers {
    let mut answers = Answers::new();
    for line in lines(journal) {
        let text = |key: &str| line[key].as_str().expect("a text").to_owned();
        // A host may create several instances, each of which asks again: the first counts. They get the same answers,
        // but for a metric that a resumed run has from its beginning.
        let (key, answer) = (text("key"), text("answer"));
        let first = answers.entry(key.clone()).or_insert_with(|| answer.clone());
        assert!(*first == answer || key.ends_with("metric later"), "`{key}` has two answers: {first}, {answer}");
    }
    answers
}

/// A run, and the one that resumes it: only that one has `load_state`.
fn of_a_run(arguments: &[&str]) -> Answers {
    let folder = temporary_folder();
    let (journal, resumed) = (folder.path().join("run.jsonl"), folder.path().join("resumed.jsonl"));
    let run = |journal: &Path| {
        let options = format!("options = {{ path = '{}' }}", journal.display());
        SmallRun::with_libraries(&["matrix", "recorder", "checkpoint"])
            .set("run.threads=1")
            .arguments(arguments.iter().copied())
            .instance(&format!("kind = 'matrix'\n{options}"))
            // A refused request is reported when the hook has returned, and fails it.
            .instance(&format!("kind = 'matrix-background'\non_error = 'ignore'\n{options}"))
            .instance("kind = 'checkpoint'")
    };
    let first = run(&journal).recorder("stops", "", "stop_in = 'step_end', at_step = 6").run().succeeded();
    run(&resumed).run_in(first.out.clone()).succeeded();
    let mut answers = answers(&journal);
    let of_load_state = |(key, _): &(String, String)| key.split(' ').nth(1) == Some("load_state");
    answers.extend(self::answers(&resumed).into_iter().filter(of_load_state));
    answers
}

fn of_the_check() -> Answers {
    let folder = temporary_folder();
    let journal = folder.path().join("check.jsonl");
    let set = |kind: &str| format!("{kind}.path={}", journal.display());
    let mut command = host();
    command.args(["plugins", "check"]).arg(&build_test_plugins()["matrix"]);
    command.args(["--set", &set("matrix"), "--set", &set("matrix-background")]);
    let output = command.output().expect("the host starts");
    assert!(journal.exists(), "{}", String::from_utf8_lossy(&output.stdout));
    answers(&journal)
}

/// Sends every event, in the order of a run.
fn of_the_fake_host<T: Callback>(background: bool, journal: &Path) {
    let mut host = FakeHost::new::<T>(json!({ "path": journal.display().to_string() })).expect("an instance");
    if background {
        host = host.in_background();
    }
    let tensor = |name: &str| Tensor::new(name, &[1], &[1f32]).expect("a tensor");
    for set in ["parameters", "buffers", "gradients", "optimizer", "batch", "outputs", "taps"] {
        host.put_tensor(set.parse::<TensorSet>().expect("a set"), tensor("fc1.weight"));
    }
    host.put_hyper_parameter("all", "learning_rate", 0.1);
    host.put_batch("val", tensor("inputs"), tensor("targets"));
    host.set_loss(0.5);
    host.set_graph(json!({}));
    host.know_metric("val_accuracy");
    host.answer_predict(|_, _| Ok(Vec::new()));
    host.answer_measure(|_| Ok(BTreeMap::new()));
    host.answer_evaluate(|_| Ok(Evaluated::Number(2.0)));
    host.answer_train_steps(|_| Ok(Vec::new()));
    // A refused request in the background becomes an error of the hook.
    let _ = host.setup();
    let _ = host.load_state(&[]);
    let _ = host.train_start();
    let _ = host.epoch_start(1);
    let _ = host.step_start(1);
    let _ = host.gradients(1);
    let _ = host.step_end(1);
    let _ = host.epoch_trained(1);
    for event in [EventKind::EVAL_START, EventKind::EVAL_STEP_START, EventKind::EVAL_STEP_END] {
        let _ = host.evaluation(event, "val", u64::from(event != EventKind::EVAL_START), 1);
    }
    host.put_metric("val_accuracy", 0.5);
    let _ = host.evaluation(EventKind::EVAL_END, "val", 0, 1);
    let _ = host.epoch_end(1);
    let _ = host.trigger("epoch");
    let _ = host.save_state();
    let _ = host.checkpoint("matrix", "asked");
    let _ = host.stopping("matrix", "asked");
    let _ = host.trained();
    let _ = host.train_end(Outcome::Stopped);
    let _ = host.teardown();
}

/// Events that come at different times in each host: during the run, and not after its first evaluation.
fn of_messages<T: Callback>(background: bool, journal: &Path) {
    let mut host = FakeHost::new::<T>(json!({ "path": journal.display().to_string() })).expect("an instance");
    if background {
        host = host.in_background();
    }
    host.put_tensor(TensorSet::Parameters, Tensor::new("fc1.weight", &[1], &[1f32]).expect("a tensor"));
    host.put_hyper_parameter("all", "learning_rate", 0.1);
    let tensor = |name: &str| Tensor::new(name, &[1], &[1f32]).expect("a tensor");
    host.put_batch("val", tensor("inputs"), tensor("targets"));
    let _ = host.setup();
    let _ = host.train_start();
    let value = RecordValue::Scalar { value: 1.0 };
    let _ = host.record("matrix", &Record { name: "matrix".to_owned(), value });
    let _ = host.custom("matrix", "matrix", b"");
    let _ = host.artifact("matrix", "matrix", "matrix");
    let _ = host.checkpoint_written(None);
    let _ = host.error("matrix", "step_end", "asked");
}

#[test]
fn every_host_answers_every_service_in_every_hook_alike() {
    let folder = temporary_folder();
    let (journal, messages) = (folder.path().join("fake.jsonl"), folder.path().join("messages.jsonl"));
    of_the_fake_host::<matrix::Matrix<false>>(false, &journal);
    of_the_fake_host::<matrix::Matrix<true>>(true, &journal);
    of_messages::<matrix::Matrix<false>>(false, &messages);
    of_messages::<matrix::Matrix<true>>(true, &messages);
    let (run, check, fake) = (of_a_run(&[]), of_the_check(), answers(&journal));

    // The table itself: every service in every hook that is sent, for each caller.
    let hooks: Vec<_> = EventKind::ALL.iter().filter(|event| !NOT_ASKED.contains(event)).collect();
    for mode in ["inline", "background"] {
        for hook in &hooks {
            for caller in ["hook", "remote"] {
                let asked: BTreeSet<&str> = run
                    .keys()
                    .filter_map(|key| key.strip_prefix(&format!("{mode} {} {caller} ", hook.name())))
                    .filter_map(|what| what.split(' ').next())
                    .collect();
                for service in ServiceKind::ALL {
                    assert!(asked.contains(service.name()), "{mode} {} {caller} {}", hook.name(), service.name());
                }
            }
        }
    }

    let mut differences = Vec::new();
    let events_between = ["record", "custom", "artifact", "checkpoint_written", "error"];
    let messages = answers(&messages);
    for (key, of_run) in &run {
        let hook = key.split(' ').nth(1).unwrap_or_default();
        let comes_between = events_between.contains(&hook);
        // Whether there is a value yet depends on the time of such an event.
        if (comes_between || hook == "load_state") && key.ends_with("metric later") {
            continue;
        }
        for (host, answers) in [("check", &check), ("fake", if comes_between { &messages } else { &fake })] {
            let answer = answers.get(key);
            // A fake host without an answer says so; a refusal comes before that.
            let ungiven = comes_between && host == "fake" && answer.is_some_and(|answer| answer.contains("the test"));
            if answer != Some(of_run) && !ungiven {
                differences.push(format!("{key}\n    run   {of_run}\n    {host:5} {answer:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    assert!(run.len() > 5_000, "only {} answers", run.len());
}

/// A plugin cannot tell whether it is in the host's process.
#[test]
#[cfg(target_os = "linux")]
fn a_plugin_in_a_process_of_its_own_gets_the_same_answers() {
    let (here, apart) = (of_a_run(&[]), of_a_run(&["--isolate", "all"]));
    let differences: Vec<String> = here
        .iter()
        .filter(|(key, answer)| apart.get(*key) != Some(answer))
        .map(|(key, answer)| format!("{key}\n    here   {answer}\n    apart  {:?}", apart.get(key)))
        .collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    assert_eq!(here.len(), apart.len());
}
