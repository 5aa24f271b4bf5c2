//! Hooks that take too long: named, and ended where the run says so.

use std::time::{Duration, Instant};

use crate::small_run::SmallRun;

/// Far longer than a test may take.
const FOREVER: &str = "sleep_ms = 3600000, sleep_in = 'epoch_end'";

#[test]
fn a_hook_that_takes_long_is_named() {
    let ran = SmallRun::new()
        .set("run.hook_warning=\"1 s\"")
        .set("train.epochs=1")
        .recorder("slow", "", "sleep_ms = 1600, sleep_in = 'epoch_end'")
        .run()
        .succeeded();
    let told = ran.stderr();
    assert!(told.contains("`slow` has been in its hook `epoch_end` for 1 s"), "{told}");
}

#[test]
fn a_hook_that_holds_up_the_loop_ends_the_run_as_failed() {
    let began = Instant::now();
    let ran = SmallRun::new().set("run.hook_timeout=\"1 s\"").recorder("stuck", "", FOREVER).run();
    assert!(began.elapsed() < Duration::from_secs(600), "it does not wait for the hook");
    insta::assert_snapshot!(ran.shown(), @"
    exit code: 1
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: stuck
    error: × plugin `stuck` did not return from `epoch_end` within 1 s
      hint: `hook_timeout` in `[run]` says how long a hook may take
    ");
    let status = ran.status();
    assert_eq!((status["state"].as_str(), status["error_kind"].as_str()), (Some("failed"), Some("plugin")));
    assert!(
        status["error"]
            .as_str()
            .is_some_and(|error| error.starts_with("plugin `stuck` did not return from `epoch_end`"))
    );
}

#[test]
fn a_hook_in_the_background_is_left_alone_and_the_others_get_their_end() {
    for (on_error, code, outcome) in [("stop", 1, "failed"), ("disable", 0, "finished")] {
        let began = Instant::now();
        let entry = format!("dispatch = 'background'\non_error = '{on_error}'");
        let ran = SmallRun::new()
            .set("run.hook_timeout=\"1 s\"")
            .recorder("stuck", &entry, FOREVER)
            .recorder("other", "", "")
            .run();
        assert!(began.elapsed() < Duration::from_secs(600), "it does not wait for the hook");
        assert_eq!((ran.code(), ran.status()["state"].as_str()), (Some(code), Some(outcome)), "{}", ran.shown());
        let told = ran.events_of("other");
        assert_eq!(told[told.len() - 2..], ["train_end", "teardown"], "{told:?}");
        assert!(
            ran.stderr().contains("`stuck` failed in `epoch_end`: it did not return within 1 s"),
            "{}",
            ran.stderr()
        );
        assert_eq!(ran.status()["failures"][0]["plugin"], "stuck");
    }
}

#[test]
fn a_time_is_wanted() {
    let ran = SmallRun::new().set("run.hook_timeout=\"3 epochs\"").recorder("a", "", "").run();
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 2
    -- stderr
      × `run.hook_timeout` is not a time
       ╭─[--set:1:18]
     1 │ run.hook_timeout="3 epochs"
       ·                  ─────┬────
       ·                       ╰── epochs or steps
       ╰────
      hint: give a time, as in `30 s` or `10 min`
    "#);
}

#[test]
fn epochs_are_numbered_from_where_they_should() {
    let ran = SmallRun::with_libraries(&["recorder", "standard"])
        .set("train.start_epoch=6")
        .set("train.epochs=10")
        .set("train.schedule={ type = \"cosine\" }")
        .recorder("a", "", "")
        .instance("kind = 'json-lines'")
        .run()
        .succeeded();
    let metrics = fixture::lines(&ran.out.join("metrics.jsonl"));
    let numbers: Vec<(u64, u64)> = metrics
        .iter()
        .map(|line| (line["epoch"].as_u64().expect("a number"), line["step"].as_u64().expect("a number")))
        .collect();
    assert_eq!(numbers, [(6, 18), (7, 21), (8, 24), (9, 27), (10, 30)]);
    // The cosine is that of ten epochs, at its half when the sixth begins.
    let rate = metrics[0]["learning_rate"].as_f64().expect("a number");
    let expected = 1e-2 * 0.5 * (1.0 + (std::f64::consts::PI * 17.0 / 30.0).cos());
    assert!((rate - expected).abs() < 1e-12, "{rate} is not {expected}");
    let late = SmallRun::new().set("train.start_epoch=3").recorder("a", "", "").run();
    insta::assert_snapshot!(late.shown(), @"
    exit code: 2
    -- stderr
      × the first epoch, 3, comes after the last one, 2
       ╭─[--set:1:19]
     1 │ train.start_epoch=3
       ·                   ─
       ╰────
      hint: `epochs` is the number of the last epoch: make it 3 or more
    ");
}

#[test]
fn numbers_that_no_machine_counts_are_told_or_do_no_harm() {
    let wide = SmallRun::new().set("model.layers.0.out_features=4611686018427387904").recorder("a", "", "").run();
    insta::assert_snapshot!(wide.shown(), @"
    exit code: 2
    -- stderr
      × `model.layers.0.out_features` must be at most 4294967295, found `4611686018427387904`
       ╭─[--set:1:29]
     1 │ model.layers.0.out_features=4611686018427387904
       ·                             ─────────┬─────────
       ·                                      ╰── here
       ╰────
    ");
    for set in ["train.epochs=18446744073709551615", "train.accumulate=18446744073709551615"] {
        let ran = SmallRun::new().set(set).recorder("a", "", "stop_in = 'epoch_end'").run();
        assert!([Some(0), Some(1)].contains(&ran.code()), "{}", ran.shown());
        assert!(ran.status()["position"]["epoch"].as_u64() >= Some(1), "{}", ran.shown());
    }
}

#[test]
fn an_evaluation_shows_some_of_its_samples() {
    let ran = SmallRun::new().set("eval.show_results=3").set("train.epochs=1").recorder("a", "", "").run().succeeded();
    let shown = ran.stderr();
    let at = shown.find("sample  target  prediction  probability").unwrap_or_else(|| panic!("no table: {shown}"));
    let rows: Vec<Vec<&str>> =
        shown[at..].lines().skip(1).take(3).map(|row| row.split_whitespace().collect()).collect();
    for (index, row) in rows.iter().enumerate() {
        let probability: f64 = row[3].parse().expect("a number");
        assert!(row[0] == index.to_string() && (0.0..=1.0).contains(&probability), "{row:?}");
    }
    let records = ran.lines_of("a", "record");
    let texts = &records[0]["texts"];
    assert_eq!(
        (texts["name"].as_str(), texts["author"].as_str(), texts["type"].as_str()),
        (Some("val_results"), Some("host"), Some("table"))
    );
}
