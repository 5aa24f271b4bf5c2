use crate::small_run::{Ran, SmallRun, text};

/// The triggers of the recorder `a`: epoch, global step and cause.
fn triggers(ran: &Ran) -> Vec<String> {
    let lines = ran.lines_of("a", "trigger");
    lines
        .iter()
        .map(|line| format!("{} {} {}", line["epoch"], line["global_step"], text(&line["texts"], "cause")))
        .collect()
}

/// The same for five epochs of three steps with these lines in its `[[plugins]]`.
fn triggers_of(entry: &str) -> Vec<String> {
    let run = SmallRun::new().set("train.epochs=5").recorder("puts", "", "puts = 'told'").recorder("a", entry, "");
    triggers(&run.run().succeeded())
}

#[test]
fn by_epochs() {
    assert_eq!(triggers_of("when = { every = '2 epochs' }"), ["2 6 epoch", "4 12 epoch"]);
    assert_eq!(triggers_of("when = { every = '1 epoch', skip_first = 3 }"), ["4 12 epoch", "5 15 epoch"]);
    assert_eq!(triggers_of("").len(), 5, "after each epoch where nothing is said");
}

#[test]
fn by_steps() {
    assert_eq!(triggers_of("when = { every = '6 steps' }"), ["2 6 step", "4 12 step"]);
    assert_eq!(triggers_of("when = { every = '4 steps', skip_first = 4 }"), ["3 8 step", "4 12 step"]);
}

#[test]
fn at_points() {
    let at = "when = { at = ['epoch 2', 'step 4', 'end'] }";
    assert_eq!(triggers_of(at), ["2 4 at", "2 6 at", "5 15 end"]);
    // Several causes at one moment are one trigger.
    assert_eq!(triggers_of("when = { every = '3 epochs', at = ['epoch 3'] }"), ["3 9 at"]);
}

#[test]
fn at_the_best() {
    assert_eq!(triggers_of("when = { best = { told = 'min' } }"), ["1 3 best told"]);
    assert_eq!(triggers_of("when = { best = { told = 'max' } }").len(), 5);
}

#[test]
fn by_time() {
    // At least 2.4 seconds in six steps.
    let ran = SmallRun::new().recorder("a", "when = { every = '1 s' }", "sleep_ms = 400, sleep_in = 'step_end'").run();
    let causes = triggers(&ran.succeeded());
    assert!(!causes.is_empty() && causes.iter().all(|cause| cause.ends_with("time")), "{causes:?}");
}

#[test]
fn aliases_fill_when() {
    assert_eq!(triggers_of("frequency = 4\nbasis = 'step'\nskip_from_start = 4"), ["3 8 step", "4 12 step"]);
    assert_eq!(triggers_of("frequency = 2"), ["2 6 epoch", "4 12 epoch"]);
}

#[test]
fn a_condition_gates_all_hooks_but_those_that_keep_a_callback_consistent() {
    let ran = SmallRun::new()
        .recorder("puts", "", "puts = 'told', ask_in = 'step_end', asks = 'checkpoint', at_step = 1")
        .recorder("a", "if = 'told >= 1'", "")
        .recorder("stops", "", "stop_in = 'step_end', at_step = 5")
        .run()
        .succeeded();
    insta::assert_snapshot!(ran.sequence("a", &[]), @"
    0.0 (0): new setup train_start
    1.1 (1): save_state[2]
    1.3 (3): epoch_end trigger[epoch]
    2.0 (3): epoch_start
    2.1 (4): step_start gradients step_end
    2.2 (5): step_start gradients step_end stopping[stops, the recorder was told to] train_end[stopped, `stops`: the recorder was told to] teardown
    ");
}

#[test]
fn a_failure_of_another_is_told_whatever_the_condition() {
    let ran = SmallRun::new()
        .recorder("fails", "on_error = 'ignore'", "fail_in = 'step_end', at_step = 2")
        .recorder("a", "if = 'val_loss < 0'", "")
        .run()
        .succeeded();
    assert_eq!(ran.events_of("a"), ["new", "setup", "train_start", "error", "train_end", "teardown"]);
}

#[test]
fn all_epoch_ends_come_before_any_trigger() {
    let ran = SmallRun::new().set("train.epochs=1").recorder("a", "", "").recorder("b", "", "").run().succeeded();
    assert_eq!(ran.told(&["epoch_end", "trigger"]), ["a epoch_end", "b epoch_end", "a trigger", "b trigger"]);
}

/// A gate on a metric that changes with each step, without and with a callback that reads metrics at each step.
#[test]
fn a_read_never_changes_a_run() {
    const GATE: f64 = 2.0;
    let run = |reads: bool| {
        let run = SmallRun::with_libraries(&["recorder", "standard", "checkpoint"])
            .set("train.epochs=5")
            .recorder("a", &format!("when = {{ every = '1 step' }}\nif = 'train_loss < {GATE}'"), "")
            .instance("kind = 'checkpoint'\nwhen = { at = ['step 8'] }");
        let run = if reads { run.instance("kind = 'json-lines'\noptions = { every_steps = 1 }") } else { run };
        run.run().succeeded()
    };
    let (alone, beside) = (run(false), run(true));
    assert_eq!(triggers(&alone), triggers(&beside));

    // The gate saw what the reader recorded.
    let below: Vec<_> = fixture::lines(&beside.out.join("metrics.jsonl"))
        .iter()
        .filter(|line| line["kind"] == "step" && line["train_loss"].as_f64().is_some_and(|loss| loss < GATE))
        .map(|line| format!("{} {} step", line["epoch"], line["step"]))
        .collect();
    assert_eq!(triggers(&alone), below);
    assert!((1..15).contains(&below.len()), "the gate must open in the middle of the run: {below:?}");

    // In the middle of an epoch, a checkpoint keeps the values that were put, not those that were read.
    let latest = |ran: &Ran| {
        let path = ran.out.join("checkpoints/epoch-0003-step-00000008/state.json");
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).expect("a checkpoint")).expect("JSON");
        ["train_loss", "learning_rate"].map(|name| state["modules"]["train"]["latest"][name].clone())
    };
    assert_eq!(latest(&alone), latest(&beside));
    assert!(latest(&alone).iter().all(|metric| !metric.is_null()));
}
