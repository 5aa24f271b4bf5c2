use crate::small_run::{SmallRun, text};

/// The line that tells the order.
fn order(stderr: &str) -> &str {
    stderr.lines().find(|line| line.starts_with("callbacks, in order")).unwrap_or_default()
}

const EVERYTHING: [&str; 4] = ["recorder", "standard", "checkpoint", "default-kinds"];

#[test]
fn declared_then_appended_then_by_default() {
    let ran = SmallRun::with_libraries(&EVERYTHING)
        .set("run.by_default=true")
        .set("train.epochs=1")
        .recorder("b", "", "")
        .instance("kind = 'print-metrics'")
        .recorder("a", "", "")
        // One with the name `a` is already declared.
        .arguments(["--plugin", "early-stopping=patient", "--plugin", "recorder=a", "--plugin", "recorder"])
        .run()
        .succeeded();
    insta::assert_snapshot!(order(&ran.stderr()), @"callbacks, in order: b, print-metrics, a, patient, recorder, checkpoint, reader, producer, progress, json-lines");
    // The resolved run file declares the same.
    let resolved = std::fs::read_to_string(ran.out.join("run.toml")).expect("there is a resolved run file");
    let names: Vec<&str> = resolved.lines().filter_map(|line| line.strip_prefix("name = ")).collect();
    insta::assert_snapshot!(names.join(" "), @r#""small" "b" "print-metrics" "a" "patient" "recorder" "checkpoint" "reader" "producer" "progress" "json-lines""#);
}

#[test]
fn nothing_by_default() {
    let ran = SmallRun::with_libraries(&EVERYTHING).set("train.epochs=1").recorder("a", "", "").run().succeeded();
    insta::assert_snapshot!(order(&ran.stderr()), @"callbacks, in order: a");
}

#[test]
fn hooks_are_called_in_declared_order() {
    let ran = SmallRun::new().set("train.epochs=1").recorder("b", "", "").recorder("a", "", "").run().succeeded();
    let told = ran.told(&[]);
    for (event, times) in [("setup", 1), ("step_end", 3), ("eval_step_end", 2), ("epoch_end", 1), ("teardown", 1)] {
        for name in ["b", "a"] {
            assert_eq!(ran.lines_of(name, event).len(), times, "{name} {event}: {told:?}");
        }
    }
    for pair in told.chunks(2) {
        let [first, second] = pair else { panic!("an event without a second callback: {pair:?}") };
        assert_eq!(first.replacen('b', "a", 1), *second, "both see it, `b` first");
        assert!(first.starts_with("b "), "{told:?}");
    }
}

#[test]
fn a_reader_before_its_producer() {
    let run = || SmallRun::with_libraries(&["default-kinds"]);
    let told = |stderr: &str| -> Vec<String> {
        stderr.lines().filter(|line| line.contains("told")).map(|line| line.trim().to_owned()).collect()
    };
    let by_default = run().set("run.by_default=true").run().succeeded();
    insta::assert_debug_snapshot!(told(&by_default.stderr()), @r#"
    [
        "WARN `reader` reads `told` before `producer` puts it: it sees the value of the event before",
        "told nothing",
        "told 1",
    ]
    "#);
    let declared = run().instance("kind = 'producer'").instance("kind = 'reader'").run().succeeded();
    assert_eq!(told(&declared.stderr()), ["told 1", "told 2"]);
}

#[test]
fn an_earlier_metric_is_available_in_the_same_pass() {
    let ran =
        SmallRun::new().recorder("puts", "", "puts = 'told'").recorder("reads", "", "reads = 'told'").run().succeeded();
    let read: Vec<f64> =
        ran.lines_of("reads", "epoch_end").iter().filter_map(|line| line["texts"]["told"].as_f64()).collect();
    assert_eq!(read, [1.0, 2.0]);
}

#[test]
fn an_unknown_kind() {
    let ran = SmallRun::new().instance("kind = 'recoder'").run();
    insta::assert_snapshot!(ran.shown(), @"
    exit code: 2
    -- stderr
      × no library offers the plugin kind `recoder`
        ╭─[[FOLDER]/run.toml:41:8]
     40 │ [[plugins]]
     41 │ kind = 'recoder'
        ·        ────┬────
        ·            ╰── no library offers it
        ╰────
      hint: did you mean `recorder`?
    ");
    assert!(!ran.out.exists(), "nothing was started");
}

#[test]
fn an_unknown_kind_on_the_command_line() {
    let ran = SmallRun::new().arguments(["--plugin", "recoder=a"]).run();
    insta::assert_snapshot!(ran.shown(), @"
    exit code: 2
    -- stderr
      × no library offers the plugin kind `recoder`
       ╭─[--plugin:1:1]
     1 │ recoder=a
       · ───┬───
       ·    ╰── no library offers it
       ╰────
      hint: did you mean `recorder`?
    ");
}

#[test]
fn bad_options() {
    let ran = SmallRun::new().instance("kind = 'recorder'\noptions = { sleep_ms = 'long', fail_inn = 'setup' }").run();
    insta::assert_snapshot!(ran.shown(), @"
    exit code: 2
    -- stderr
      × `plugins.0.options.sleep_ms` must be an integer, found the string `long`
        ╭─[[FOLDER]/run.toml:42:24]
     41 │ kind = 'recorder'
     42 │ options = { sleep_ms = 'long', fail_inn = 'setup' }
        ·                        ───┬──
        ·                           ╰── expected an integer
        ╰────

      × unknown key `fail_inn` in `plugins.0.options`
        ╭─[[FOLDER]/run.toml:42:32]
     41 │ kind = 'recorder'
     42 │ options = { sleep_ms = 'long', fail_inn = 'setup' }
        ·                                ────┬───
        ·                                    ╰── not known here
        ╰────
      hint: did you mean `fail_in`?
    ");
    assert!(!ran.out.exists(), "nothing was started");
}

#[test]
fn two_instances_of_one_name() {
    let ran = SmallRun::new().recorder("a", "", "").recorder("a", "", "").run();
    assert_eq!(ran.code(), Some(2));
    assert!(ran.stderr().contains("`a`"), "{}", ran.stderr());
}

#[test]
fn a_kind_by_default_does_not_get_a_name_that_is_taken() {
    let ran = SmallRun::with_libraries(&["recorder", "standard"])
        .set("run.by_default=true")
        .set("train.epochs=1")
        .recorder("progress", "", "")
        .run()
        .succeeded();
    insta::assert_snapshot!(order(&ran.stderr()), @"callbacks, in order: progress, print-metrics, json-lines");
}

#[test]
fn what_a_hook_puts_comes_before_the_next_callbacks_hook() {
    let ran = SmallRun::new()
        .recorder("first", "", "")
        .recorder("puts", "", "record_in = 'train_start', emit_in = 'train_start'")
        .recorder("last", "", "")
        .run()
        .succeeded();
    insta::assert_debug_snapshot!(ran.told(&["train_start", "record", "custom"]), @r#"
    [
        "first train_start",
        "puts train_start",
        "first record",
        "puts record",
        "last record",
        "first custom",
        "puts custom",
        "last custom",
        "last train_start",
    ]
    "#);
}

#[test]
fn events_after_a_record_come_round_by_round() {
    let ran = SmallRun::new()
        .recorder("begins", "", "record_in = 'train_start'")
        .recorder("answers", "", "emit_in = 'record'")
        .recorder("last", "", "")
        .run()
        .succeeded();
    // `last` sees the record before the custom event that `answers` sent while it saw the record.
    insta::assert_debug_snapshot!(ran.told(&["train_start", "record", "custom"]), @r#"
    [
        "begins train_start",
        "begins record",
        "answers record",
        "last record",
        "begins custom",
        "answers custom",
        "last custom",
        "answers train_start",
        "last train_start",
    ]
    "#);
}

#[test]
fn callbacks_that_answer_each_other_forever() {
    let ran = SmallRun::new()
        .recorder("begins", "", "emit_in = 'train_start'")
        .recorder("left", "", "record_in = 'custom'")
        .recorder("right", "", "emit_in = 'record'")
        .run();
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: begins, left, right
    error: × plugin `right` failed in `custom`: callbacks still answer each other after 8 rounds: `right` sends `recorder`, `left` puts the record `recorder/left`
      hint: kind `recorder` of `[PLUGINS]/librecorder.so`; `on_error = "disable"` would let the run continue without it
    failed: 0 epochs, 0 steps in [TIME] s
    results: [FOLDER]/out
    "#);
    let rounds = ran.lines_of("begins", "custom").len() + ran.lines_of("begins", "record").len();
    assert_eq!(rounds, 8);
    assert_eq!(text(&ran.lines_of("begins", "train_end")[0]["texts"], "outcome"), "failed");
}
