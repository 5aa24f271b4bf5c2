use plugin_api::event::Outcome;
use plugin_api::testing::{FakeHost, Value, json};

use super::*;

fn span(name: &str, kind: SpanKind, step: u64, began: u64, nanoseconds: u64) -> Span {
    Span { name: name.to_owned(), kind, step, began, nanoseconds }
}

/// A step whose forward takes so long, and its operators.
fn step(host: &mut FakeHost, number: u64, forward: u64) {
    let began = number * 100_000_000;
    host.set_profile(vec![
        // Of an evaluation before it.
        span("aten::conv2d", SpanKind::Operator, number, began - 50_000_000, 40_000_000),
        span("data", SpanKind::Phase, number, began, 1_000_000),
        span("forward", SpanKind::Phase, number, began + 1_000_000, forward),
        span("aten::linear", SpanKind::Operator, number, began + 1_000_000, forward),
        span("aten::mm", SpanKind::Operator, number, began + 1_000_001, forward / 2),
        span("callbacks", SpanKind::Phase, number, began + 1_000_000 + forward, 1_000_000),
    ]);
    host.step_end(number).unwrap();
}

fn trained(options: Value, forwards: &[u64]) -> FakeHost {
    let mut host = FakeHost::new::<Profiler>(options).unwrap();
    host.train_start().unwrap();
    for (number, forward) in (1..).zip(forwards) {
        step(&mut host, number, *forward);
    }
    host
}

fn trace(host: &FakeHost) -> Vec<Value> {
    let text = std::fs::read_to_string(host.folder().join("trace.json")).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").cloned().collect()
}

#[test]
fn only_the_steps_that_are_asked_for_are_recorded() {
    let mut host = trained(json!({ "skip": 2, "steps": 3 }), &[9_000_000]);
    assert_eq!(host.recording(), None);
    step(&mut host, 2, 9_000_000);
    assert_eq!(host.recording(), Some(Recording::Operators));
    for (number, forward) in [(3, 2_000_000), (4, 6_000_000)] {
        step(&mut host, number, forward);
        assert_eq!(host.recording(), Some(Recording::Operators));
    }
    step(&mut host, 5, 4_000_000);
    assert_eq!(host.recording(), Some(Recording::Off));
    step(&mut host, 6, 90_000_000);
    host.set_hook_times(vec![HookTime {
        instance: "checkpoint".to_owned(),
        hook: "checkpoint".to_owned(),
        background: false,
        calls: 4,
        seconds: 0.5,
        longest_seconds: 0.25,
    }]);
    host.train_end(Outcome::Finished).unwrap();
    let expected = [
        "profile of 3 steps from step 3 on, 6.000 ms a step",
        "  data                                              1.000 ms    16.7 %",
        "  forward                                           4.000 ms    66.7 %",
        "  callbacks                                         1.000 ms    16.7 %",
        "the slowest was step 4, 8.000 ms",
        "  aten::linear                                      3.000 ms       1 calls",
        "  aten::mm                                          3.000 ms       1 calls",
        "callbacks in the whole run",
        "  checkpoint checkpoint                           500.000 ms       4 calls",
    ];
    assert_eq!(host.lines(), expected);
    assert!(host.lines().iter().all(|line| line.chars().count() <= 80));
    // The trace has the phases of three steps, and the operators of the slowest.
    let (phases, operators): (Vec<_>, Vec<_>) = trace(&host).into_iter().partition(|event| event["cat"] == "phase");
    assert_eq!(phases.len(), 9);
    assert_eq!((operators.len(), &operators[0]["args"]["step"]), (2, &json!(4)));
    assert_eq!((&operators[0]["ts"], &operators[0]["dur"]), (&json!(401_000.0), &json!(6000.0)));
    assert_eq!(host.artifacts()[0].path, "trace.json");
}

#[test]
fn a_run_that_is_over_before_is_told_as_far_as_it_went() {
    let mut host = trained(json!({ "skip": 0, "steps": 100, "operators": false }), &[2_000_000, 4_000_000]);
    assert_eq!(host.recording(), Some(Recording::Phases));
    host.train_end(Outcome::Stopped).unwrap();
    assert_eq!(host.recording(), Some(Recording::Off));
    assert_eq!(host.lines()[0], "profile of 2 steps from step 1 on, 5.000 ms a step");
    assert_eq!(trace(&host).iter().filter(|event| event["cat"] == "phase").count(), 6);
}

#[test]
fn a_run_without_a_measured_step_is_told() {
    let mut host = trained(json!({ "skip": 10 }), &[1, 1]);
    host.train_end(Outcome::Finished).unwrap();
    assert!(host.logs()[0].contains("no step was measured: the run had 2 steps"), "{:?}", host.logs());
    assert!(!host.folder().join("trace.json").exists());
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for options in [json!({ "steps": 0 }), json!({ "file": "" }), json!({ "skip": -1 })] {
        assert!(FakeHost::new::<Profiler>(options.clone()).is_err(), "{options}");
    }
}
