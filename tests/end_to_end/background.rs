use crate::small_run::{SmallRun, text};

const BACKGROUND: &str = "dispatch = 'background'";

#[test]
fn the_background_sees_the_same_in_the_same_order() {
    let ran = SmallRun::new().recorder("inline", "", "").recorder("behind", BACKGROUND, "").run().succeeded();
    assert_eq!(ran.sequence("behind", &[]), ran.sequence("inline", &[]));
}

#[test]
fn values_are_visible_from_the_next_event_on() {
    let ran = SmallRun::with_libraries(&["recorder", "default-kinds"])
        // The checkpoint waits for the background.
        .recorder("behind", BACKGROUND, "puts = 'told', ask_in = 'epoch_end', asks = 'checkpoint'")
        .instance("kind = 'reader'")
        .recorder("waits", "", "ask_in = 'epoch_end', asks = 'checkpoint'")
        .run()
        .succeeded();
    let stderr = ran.stderr();
    let told: Vec<&str> = stderr.lines().filter(|line| line.starts_with("told")).collect();
    assert_eq!(told, ["told nothing", "told 1"]);
}

#[test]
fn nothing_is_dropped_and_waiting_is_accounted() {
    let ran = SmallRun::new()
        .set("train.epochs=1")
        .set("train.batch_size=16")
        .recorder("inline", "", "")
        .recorder("behind", BACKGROUND, "sleep_ms = 4, sleep_in = 'step_end'")
        .run()
        .succeeded();
    assert_eq!(ran.lines_of("behind", "step_end").len(), 90);
    assert_eq!(ran.sequence("behind", &[]), ran.sequence("inline", &[]));
    // The queue is finished before the end is announced.
    let told = ran.told(&["step_end", "epoch_end", "train_end"]);
    let position = |line: &str| told.iter().position(|told| told == line).expect("it came");
    assert!(position("behind epoch_end") < position("inline train_end"), "{told:?}");

    let status = ran.status();
    let callbacks = status["callbacks"].as_array().expect("the status accounts for callbacks");
    let waiting = callbacks.iter().find(|entry| entry["plugin"] == "behind" && entry["hook"] == "waiting");
    // The queue holds 64 events, and 90 steps bring 270.
    assert!(waiting.is_some_and(|waiting| waiting["seconds"].as_f64() > Some(0.1)), "{callbacks:?}");
    let slept = callbacks.iter().find(|entry| entry["plugin"] == "behind" && entry["hook"] == "step_end");
    let slept = slept.expect("its own time is there too");
    assert_eq!((&slept["background"], &slept["calls"]), (&true.into(), &90.into()));
    assert!(slept["seconds"].as_f64() >= Some(0.36), "{slept}");
}

#[test]
fn the_last_errors_are_reported_too() {
    for hook in ["epoch_end", "train_end"] {
        let fails = format!("fail_in = '{hook}', at_step = 6");
        let run = |entry: &str| {
            let entry = format!("{BACKGROUND}\n{entry}");
            SmallRun::new().recorder("behind", &entry, &fails).recorder("other", "", "").run()
        };
        let message = format!("plugin `behind` failed in `{hook}`: the recorder was told to fail in `{hook}`");

        let stopped = run("");
        assert_eq!(stopped.code(), Some(1), "{}", stopped.shown());
        assert_eq!(stopped.status()["outcome"], "failed");
        assert_eq!(stopped.status()["error"], message.as_str());
        let ignored = run("on_error = 'ignore'").succeeded();
        assert!(ignored.stderr().contains(&message), "{}", ignored.stderr());
        assert_eq!(ignored.status()["outcome"], "finished");
        for ran in [stopped, ignored] {
            assert_eq!(ran.lines_of("other", "error").len(), 1);
        }
    }
}

#[test]
fn a_kind_that_writes_weights_is_refused() {
    let ran = SmallRun::with_libraries(&["services"]).instance("kind = 'services'\ndispatch = 'background'").run();
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 2
    -- stderr
      × `services` writes weights, gradients or batches: it cannot run in the background
        ╭─[[FOLDER]/run.toml:42:12]
     41 │ kind = 'services'
     42 │ dispatch = 'background'
        ·            ──────┬─────
        ·                  ╰── not for this kind
        ╰────
      hint: leave out `dispatch`, or say `dispatch = "inline"`
    "#);
    assert!(!ran.out.exists(), "nothing was started");
}

#[test]
fn a_disabled_callback_does_not_see_queued_events() {
    let entry = format!("{BACKGROUND}\non_error = 'disable'");
    let ran = SmallRun::new().recorder("behind", &entry, "fail_in = 'step_end'").recorder("other", "", "").run();
    let ran = ran.succeeded();
    assert_eq!(
        ran.events_of("behind"),
        ["new", "setup", "train_start", "epoch_start", "step_start", "gradients", "step_end", "teardown"]
    );
    assert_eq!(ran.lines_of("other", "error").len(), 1);
    assert_eq!(text(&ran.lines_of("other", "train_end")[0]["texts"], "outcome"), "finished");
}
