//! What a resumed run takes along: states of plugins that it does not have, and changes that the command accepts.

use crate::small_run::SmallRun;

fn run(instances: &[&str]) -> SmallRun {
    let run = SmallRun::with_libraries(&["checkpoint", "standard"]);
    let all = ["kind = 'checkpoint'\noptions = { keep_last = 0 }"].into_iter().chain(instances.iter().copied());
    all.fold(run, |run, instance| run.instance(instance))
}

#[test]
fn the_state_of_a_plugin_that_is_missing_is_carried_on() {
    const WRITER: &str = "kind = 'json-lines'";
    let first = run(&[WRITER]).set("train.epochs=1").run().succeeded();
    let state =
        |checkpoint: &str| std::fs::read(first.out.join("checkpoints").join(checkpoint).join("plugins/json-lines.bin"));
    let saved = state("epoch-0001-step-00000003").expect("it has a state");
    run(&[]).set("train.epochs=2").run_in(first.out.clone()).succeeded();
    assert_eq!(state("epoch-0002-step-00000006").expect("it is carried on"), saved);
    run(&[WRITER]).set("train.epochs=3").run_in(first.out.clone()).succeeded();
    let epochs: Vec<u64> =
        fixture::lines(&first.out.join("metrics.jsonl")).iter().filter_map(|line| line["epoch"].as_u64()).collect();
    assert_eq!(epochs, [1, 3], "it goes on where it was");
}

#[test]
fn a_change_is_refused_unless_it_is_accepted() {
    let first = run(&[]).set("train.epochs=1").run().succeeded();
    let changed = || run(&[]).set("train.epochs=2").set("run.seed=8").set("train.loss.label_smoothing=0.1");
    let refused = changed().run_in(first.out.clone());
    let folder = first.out.canonicalize().expect("there is a run folder").display().to_string();
    let told = |text: String| text.replace(&folder, "[OUT]");
    insta::assert_snapshot!(told(refused.shown()), @"
    exit code: 2
    -- stderr
      × this run cannot resume from `[OUT]/checkpoints/epoch-0001-step-00000003`: it would not be the same run
      ├─▶ `run.seed` was `7` and is `8`
      ╰─▶ `train.loss.label_smoothing` was `0.0` and is `0.1`
      hint: use the run file that it was written with, `[OUT]/checkpoints/epoch-0001-step-00000003/run.toml`, or begin a new run: `--resume never --out DIR`, with `[model] init_from` for these weights; or accept what differs: `--accept seed,loss`
    ");
    let half = changed().arguments(["--accept", "seed"]).run_in(first.out.clone());
    assert_eq!(half.code(), Some(2), "{}", half.shown());
    let accepted = changed().arguments(["--accept", "seed,loss"]).run_in(first.out.clone()).succeeded();
    assert!(
        accepted.stderr().contains("since the checkpoint: `run.seed` was `7` and is `8` (accepted: `seed`)"),
        "{}",
        accepted.stderr()
    );
    assert_eq!(first.status()["position"]["epoch"], 2);
}

#[test]
fn a_checkpoint_of_another_name_is_told() {
    let first = run(&[]).set("train.epochs=1").run().succeeded();
    let checkpoints = first.out.join("checkpoints");
    let [own, other] = ["epoch-0001-step-00000003", "epoch-0009-step-00000027"].map(|name| checkpoints.join(name));
    std::fs::rename(own, other).expect("it can be renamed");
    let resumed = run(&[]).set("train.epochs=2").run_in(first.out.clone()).succeeded();
    assert!(resumed.stderr().contains("is of epoch 1 and step 3, which its name does not say"), "{}", resumed.stderr());
}
