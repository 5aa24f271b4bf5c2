//! Runs of several processes go on from a checkpoint as if they had never ended.

use super::*;

/// Three ranks, and a checkpoint in the midst of epochs of six steps.
fn saved(layers: &str) -> Training {
    let training = digits(layers)
        .with("kind = \"checkpoint\"\n", "kind = \"checkpoint\"\nwhen = { every = \"8 steps\" }\n")
        .with("metrics = [\"accuracy\"]\nopt", "metrics = [\"accuracy\", \"auc\"]\nclip_gradient_norm = 1.0\nopt");
    run(&training, "unbroken", 3, &[]);
    training
}

const MIDST: &str = "unbroken/checkpoints/epoch-0003-step-00000017";

/// The lines of a run's metrics from a step on.
fn metrics_after(training: &Training, out: &str, step: u64) -> Vec<serde_json::Value> {
    let lines = training.metrics(out);
    lines.into_iter().filter(|line| line["step"].as_u64().is_some_and(|at| at > step)).collect()
}

fn resume(training: &Training, from: &str, out: &str, processes: usize, arguments: &[&str]) -> String {
    let from = training.path(from).display().to_string();
    let output = run(training, out, processes, &[&["--resume", &from], arguments].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_told = |line: &&str| line.starts_with("resuming") || line.starts_with("warning: ");
    told.lines().filter(is_told).map(|line| format!("{line}\n")).collect::<String>().replace(&from, "[CHECKPOINT]")
}

/// Each rank has its own generator, and its share of the epoch's metrics.
#[test]
fn the_same_number_of_ranks_goes_on_to_the_last_bit() {
    let training = saved(&MLP.replace("{ type = \"relu\" },", "{ type = \"relu\" }, { type = \"dropout\", p = 0.3 },"));
    insta::assert_snapshot!(training.checkpoints("unbroken/checkpoints").join("\n"), @"
    epoch-0002-step-00000009
    epoch-0003-step-00000017
    epoch-0004-step-00000024
    epoch-0006-step-00000033
    epoch-0007-step-00000041
    epoch-0008-step-00000048
    ");
    insta::assert_snapshot!(resume(&training, MIDST, "broken", 3, &[]), @"resuming after epoch 3, step 17 from [CHECKPOINT]");
    assert_equal(&training, "unbroken", "broken");
    let (unbroken, broken) = (metrics_after(&training, "unbroken", 17), metrics_after(&training, "broken", 17));
    assert!(!broken.is_empty() && unbroken == broken, "{unbroken:#?} {broken:#?}");
}

/// Without dropout the numbers are the same but for rounding, also those of the epoch in whose midst it resumed. What is measured
/// while an epoch lasts is of rank zero's share, and so another one.
#[test]
fn another_number_of_ranks_goes_on_with_a_warning() {
    let training = saved(MLP);
    insta::assert_snapshot!(resume(&training, MIDST, "two", 2, &[]), @"
    resuming after epoch 3, step 17 from [CHECKPOINT]
    warning: × the checkpoint is of 3 ranks and the run has 2: sums are rounded in another order, and dropout draws others
    ");
    insta::assert_snapshot!(resume(&training, MIDST, "one", 1, &[]), @"
    resuming after epoch 3, step 17 from [CHECKPOINT]
    warning: × the checkpoint is of 3 ranks and the run has 1: sums are rounded in another order, and dropout draws others
    ");
    insta::assert_snapshot!(
        resume(&training, "one/checkpoints/last", "more", 2, &["--set", "train.steps=60"]), @"
        resuming after epoch 8, step 48 from [CHECKPOINT]
        warning: × the checkpoint is of 1 process and the run has 2: sums are rounded in another order, and dropout draws others
        ");
    let last = |out: &str| training.path(out).join("checkpoints/last/model.safetensors");
    for out in ["two", "one"] {
        let (largest, tensor) = difference(&last(out), &last("unbroken"));
        assert!(largest <= 1e-6, "{out}: `{tensor}` differs by {largest:e}");
        let [unbroken, resumed] = ["unbroken", out].map(|out| {
            let lines = metrics_after(&training, out, 17);
            lines.into_iter().filter(|line| line["kind"] == "epoch").collect::<Vec<_>>()
        });
        assert_eq!((unbroken.len(), resumed.len()), (7, 7));
        for (unbroken, resumed) in unbroken.iter().zip(&resumed) {
            for (name, value) in unbroken.as_object().expect("an object") {
                let (Some(value), Some(other)) = (value.as_f64(), resumed[name].as_f64()) else {
                    assert_eq!(value, &resumed[name], "{out}: {name}");
                    continue;
                };
                assert!((value - other).abs() <= 1e-5 * value.abs().max(1.0), "{out}: {name}: {unbroken} {resumed}");
            }
        }
    }
}
