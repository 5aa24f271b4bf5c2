//! What the plan knows is told before the training: names of metrics, their directions, files that two callbacks write.

use fixture::lines;
use serde_json::Value;

use crate::small_run::SmallRun;

/// The lines of `metrics.jsonl` of these kinds.
fn rows(path: &std::path::Path, kind: &str) -> Vec<Value> {
    lines(path).into_iter().filter(|line| line["kind"] == kind).collect()
}

#[test]
fn metrics_that_the_run_does_not_give_are_errors_at_their_place() {
    let ran = SmallRun::with_libraries(&["recorder", "standard", "checkpoint", "tensorboard"])
        .recorder("a", "when = { best = { val_acuracy = 'max' } }", "")
        .recorder("b", "if = 'val_f1 < 0.5'", "")
        .instance("kind = 'early-stopping'\noptions = { metric = 'val_los' }")
        .instance(
            "kind = 'checkpoint'\noptions = { keep_best = [{ metric = 'val_loss' }, { metric = 'nothing_like_it' }] }",
        )
        .instance("kind = 'tensorboard'\noptions = { basis = { val_confusion_matrix = 'max' } }")
        .run();
    assert_eq!(ran.code(), Some(2));
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 2
    -- stderr
      × `a` waits for the metric `val_acuracy`, which this run does not give
        ╭─[[FOLDER]/run.toml:43:19]
     42 │ name = 'a'
     43 │ when = { best = { val_acuracy = 'max' } }
        ·                   ─────┬─────
        ·                        ╰── unknown
     44 │ 
        ╰────
      hint: did you mean `val_accuracy`?

      × `b` waits for the metric `val_f1`, which this run does not give
        ╭─[[FOLDER]/run.toml:50:6]
     49 │ name = 'b'
     50 │ if = 'val_f1 < 0.5'
        ·      ───────┬──────
        ·             ╰── unknown
     51 │ 
        ╰────
      hint: let the run measure it: add `f1` to `eval.metrics`

      × `early-stopping` waits for the metric `val_los`, which this run does not give
        ╭─[[FOLDER]/run.toml:56:22]
     55 │ kind = 'early-stopping'
     56 │ options = { metric = 'val_los' }
        ·                      ────┬────
        ·                          ╰── unknown
     57 │ 
        ╰────
      hint: did you mean `val_loss`?

      × `checkpoint` waits for the metric `nothing_like_it`, which this run does not give
        ╭─[[FOLDER]/run.toml:60:62]
     59 │ kind = 'checkpoint'
     60 │ options = { keep_best = [{ metric = 'val_loss' }, { metric = 'nothing_like_it' }] }
        ·                                                              ────────┬────────
        ·                                                                      ╰── unknown
     61 │ 
        ╰────
      hint: the run gives `data_wait_seconds`, `epoch_seconds`, `learning_rate`, `step_loss`, `step_seconds`, `train_loss`, `val_accuracy`, `val_loss`; a plugin that puts a metric says so in its descriptor's `produces`

      × `tensorboard` waits for the metric `val_confusion_matrix`, which this run does not give
        ╭─[[FOLDER]/run.toml:64:46]
     63 │ kind = 'tensorboard'
     64 │ options = { basis = { val_confusion_matrix = 'max' } }
        ·                                              ──┬──
        ·                                                ╰── unknown
        ╰────
      hint: `confusion_matrix` is a table of numbers: name a metric that is one number
    "#);
}

#[test]
fn a_default_that_names_a_metric_is_checked_and_a_wish_in_a_list_is_not() {
    let run = |kind: &str| {
        let run = SmallRun::with_libraries(&["standard", "checkpoint"]).instance(&format!("kind = '{kind}'"));
        run.without_evaluation().run()
    };
    let ran = run("early-stopping");
    assert_eq!(ran.code(), Some(2));
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 2
    -- stderr
      × `early-stopping` waits for the metric `val_loss`, which this run does not give
        ╭─[[FOLDER]/run.toml:36:8]
     35 │ [[plugins]]
     36 │ kind = 'early-stopping'
        ·        ────────┬───────
        ·                ╰── unknown
        ╰────
      hint: nothing is evaluated: add `[eval]` with the split to evaluate
    "#);
    run("checkpoint").succeeded();
}

#[test]
fn what_a_plugin_says_that_it_puts_is_known() {
    SmallRun::new().recorder("puts", "", "puts = 'told'").recorder("a", "if = 'told >= 1'", "").run().succeeded();
    let ran = SmallRun::new().recorder("puts", "", "puts = 'told'").recorder("a", "if = 'tolt >= 1'", "").run();
    assert!(ran.shown().contains("did you mean `told`?"), "{}", ran.shown());
}

#[test]
fn early_stopping_waits_for_a_first_value() {
    let ran = SmallRun::with_libraries(&["standard"])
        .instance("kind = 'early-stopping'\noptions = { patience = 1 }")
        .set("eval.every=\"3 epochs\"")
        .set("train.epochs=4")
        .run();
    ran.succeeded();
}

#[test]
fn accuracy_is_better_higher_without_a_word() {
    let ran = SmallRun::with_libraries(&["standard", "checkpoint"])
        .instance("kind = 'json-lines'")
        .instance("kind = 'checkpoint'\noptions = { keep_last = 1, keep_best = [{ metric = 'val_accuracy' }] }")
        .instance("kind = 'early-stopping'\noptions = { metric = 'val_accuracy', patience = 3 }")
        .set("train.epochs=5")
        .run()
        .succeeded();
    let rows = rows(&ran.out.join("metrics.jsonl"), "epoch");
    let accuracy = |row: &Value| row["val_accuracy"].as_f64().expect("a number");
    let best = rows.iter().rev().max_by(|left, right| accuracy(left).total_cmp(&accuracy(right))).expect("rows");
    assert!(accuracy(best) > accuracy(&rows[0]), "the run improves: {rows:?}");
    let pointed = std::fs::read_link(ran.out.join("checkpoints/best")).expect("there is a best checkpoint");
    assert!(pointed.display().to_string().contains(&format!("step-{:08}", best["step"].as_u64().expect("a step"))));
}

#[test]
fn a_strangers_metric_needs_its_direction() {
    let run = |mode: &str| {
        SmallRun::with_libraries(&["recorder", "standard"])
            .recorder("puts", "", "puts = 'told'")
            .instance(&format!("kind = 'early-stopping'\noptions = {{ metric = 'told'{mode} }}"))
            .run()
    };
    let ran = run("");
    assert!(
        ran.shown().contains("whether `told` is better lower or higher is not known: set `mode`"),
        "{}",
        ran.shown()
    );
    run(", mode = 'max'").succeeded();
}

#[test]
fn two_callbacks_do_not_write_one_file() {
    let ran = SmallRun::with_libraries(&["standard", "checkpoint"])
        .instance("kind = 'json-lines'\noptions = { file = 'm.jsonl' }")
        .instance("kind = 'json-lines'\nname = 'steps'\noptions = { file = './m.jsonl', every_steps = 1 }")
        .instance("kind = 'checkpoint'")
        .instance("kind = 'checkpoint'\nname = 'other'\noptions = { folder = 'checkpoints/' }")
        .run();
    assert_eq!(ran.code(), Some(2));
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 2
    -- stderr
      × `json-lines` and `steps` both write `./m.jsonl`
        ╭─[[FOLDER]/run.toml:42:20]
     41 │ kind = 'json-lines'
     42 │ options = { file = 'm.jsonl' }
        ·                    ────┬────
        ·                        ╰── the first
     43 │ 
     44 │ [[plugins]]
     45 │ kind = 'json-lines'
     46 │ name = 'steps'
     47 │ options = { file = './m.jsonl', every_steps = 1 }
        ·                    ─────┬─────
        ·                         ╰── the second
     48 │ 
        ╰────
      hint: give one of them another `file`: `file = "./m-steps.jsonl"`

      × `checkpoint` and `other` both write `checkpoints/`
        ╭─[[FOLDER]/run.toml:49:1]
     48 │ 
     49 │ [[plugins]]
        · ─────┬─────
        ·      ╰── the first
     50 │ kind = 'checkpoint'
     51 │ 
     52 │ [[plugins]]
     53 │ kind = 'checkpoint'
     54 │ name = 'other'
     55 │ options = { folder = 'checkpoints/' }
        ·                      ───────┬──────
        ·                             ╰── the second
        ╰────
      hint: give one of them another `folder`: `folder = "checkpoints-other"`
    "#);
}

#[test]
fn an_instance_with_a_name_writes_files_with_its_name() {
    let ran = SmallRun::with_libraries(&["standard", "onnx", "checkpoint"])
        .instance("kind = 'json-lines'")
        .instance("kind = 'json-lines'\nname = 'steps'\noptions = { every_steps = 1 }")
        .instance("kind = 'onnx'")
        .instance("kind = 'onnx'\nname = 'small'\noptions = { quantize = 'fp16' }")
        .instance("kind = 'checkpoint'\nname = 'second'")
        .run()
        .succeeded();
    let size = |name: &str| std::fs::metadata(ran.out.join(name)).expect(name).len();
    assert!(size("exports/model.onnx") > size("exports/model-small.onnx"), "two files, of which one is smaller");
    assert!(size("metrics-steps.jsonl") > size("metrics.jsonl"));
    assert!(ran.out.join("checkpoints-second/last").exists());
}

#[test]
fn evaluations_within_an_epoch_are_rows_of_their_own_and_no_value_comes_twice() {
    let ran = SmallRun::with_libraries(&["standard"])
        .instance("kind = 'json-lines'\noptions = { every_steps = 1 }")
        .instance("kind = 'csv'")
        .set("eval.every=\"2 steps\"")
        .run()
        .succeeded();
    // Six steps in two epochs of three: evaluations after the steps 2, 4 and 6, the last at the end of an epoch.
    let path = ran.out.join("metrics.jsonl");
    let steps_with_loss = |kind: &str| {
        rows(&path, kind)
            .iter()
            .filter(|row| row.get("val_loss").is_some())
            .map(|row| row["step"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(steps_with_loss("evaluation"), [2, 4]);
    assert_eq!(steps_with_loss("epoch"), [6]);
    assert_eq!(steps_with_loss("step"), Vec::<Value>::new());
    assert_eq!(rows(&path, "epoch").len(), 2);
    assert_eq!(rows(&path, "step").len(), 6);
    let csv = std::fs::read_to_string(ran.out.join("metrics.csv")).expect("there is a file");
    let kinds: Vec<&str> = csv.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!(kinds, ["evaluation", "epoch", "evaluation", "epoch"]);
}

#[test]
fn a_checkpoint_of_a_step_is_the_best_once_it_is_evaluated() {
    let ran = SmallRun::with_libraries(&["standard", "checkpoint"])
        .instance("kind = 'json-lines'")
        .instance(
            "kind = 'checkpoint'\nwhen = { every = '1 steps' }\n\
             options = { keep_last = 1, keep_best = [{ metric = 'val_loss', mode = 'max' }] }",
        )
        .set("train.epochs=4")
        .run()
        .succeeded();
    // The loss falls, so that the first epoch's is the largest; its checkpoint is of step 3.
    let first = "epoch-0001-step-00000003";
    let losses: Vec<f64> =
        rows(&ran.out.join("metrics.jsonl"), "epoch").iter().filter_map(|row| row["val_loss"].as_f64()).collect();
    assert!(losses.len() == 4 && losses.iter().all(|loss| *loss <= losses[0]), "{losses:?}");
    assert!(ran.out.join("checkpoints").join(first).is_dir(), "the one with the largest val_loss is kept");
}

#[test]
fn batch_normalization_of_one_sample_is_refused_and_its_hint_cures_it() {
    let layers = "model.layers=[{ type = \"linear\", out_features = 10 }, { type = \"batch_norm\" }]";
    let run =
        |settings: &[&str]| settings.iter().fold(SmallRun::new().set(layers), |run, setting| run.set(setting)).run();
    // The training split has 1438 samples.
    let ran = run(&["train.batch_size=479"]);
    assert_eq!(ran.code(), Some(2));
    insta::assert_snapshot!(ran.shown(), @r"
    exit code: 2
    -- stderr
      × `bn1` (batch_norm) cannot train on the last batch of an epoch: one sample of 1438 is left, and one value has no deviation
       ╭─[--set:1:18]
     1 │ train.batch_size=479
       ·                  ─┬─
       ·                   ╰── of 1438 samples
       ╰────
      hint: set `drop_last = true` in `[data]`, or another `batch_size`
    ");
    let ran = run(&["train.batch_size=479", "data.drop_last=true"]);
    let position = &ran.succeeded().status()["position"];
    assert_eq!((&position["global_step"], &position["samples"]), (&Value::from(6), &Value::from(2 * 3 * 479)));
    run(&["train.batch_size=480"]).succeeded();
    let ran = run(&["train.batch_size=1"]);
    assert!(ran.shown().contains("cannot train on batches of one sample"), "{}", ran.shown());
}

#[test]
fn a_model_without_parameters_is_refused() {
    let ran = SmallRun::new().set("model.layers=[{ type = \"relu\" }]").set("data.classes=64").run();
    assert_eq!(ran.code(), Some(2));
    assert!(ran.shown().contains("the model has no parameters: there is nothing to train"), "{}", ran.shown());
}
