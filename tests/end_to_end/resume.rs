#[cfg(unix)]
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fixture::{shown, temporary_folder};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::small_run::SmallRun;
use crate::training::{STEPS_PER_EPOCH, Training, read_json};

/// What a resume must restore, and two folders of checkpoints: of steps, and of epochs.
pub const PLUGINS: &str = r#"
[[plugins]]
kind = "keeper"
options = { path = "JOURNAL", take_over = 9 }

[[plugins]]
kind = "recorder"
options = { puts = "recorded" }

[[plugins]]
kind = "early-stopping"
options = { metric = "val_loss", patience = 40 }

[[plugins]]
kind = "json-lines"
options = { every_steps = 3 }

[[plugins]]
kind = "checkpoint"
name = "steps"
when = { every = "5 steps", at = ["step 23", "end"] }
options = { folder = "checkpoints", keep_last = 0, only_own_requests = true }

[[plugins]]
kind = "checkpoint"
name = "epochs"
options = { folder = "epochs", keep_last = 0, only_own_requests = true }
"#;

const ADAMW: &str = r#"{ type = "adamw", learning_rate = 3e-3, weight_decay = 0.01 }"#;
const SGD: &str = r#"{ type = "sgd", learning_rate = 0.05, momentum = 0.9, nesterov = true, weight_decay = 0.001 }"#;

/// Trains without a break as `unbroken`, then resumes from each of its `checkpoints` in a folder of its own, which must
/// end like the first one.
pub fn goes_on(training: &Training, checkpoints: &[&str], end: &str) {
    assert!(!checkpoints.is_empty());
    training.run("unbroken", &[]);
    let state = read_json(&training.path("unbroken").join(end).join("state.json"));
    let history = &state["history"]["numbers"];
    assert!(history.as_array().is_some_and(|series| series.len() >= 4), "{history}");
    for checkpoint in checkpoints {
        let from = training.path("unbroken").join(checkpoint);
        assert!(from.is_dir(), "{checkpoint}: {:?}", training.checkpoints("unbroken/checkpoints"));
        let out = checkpoint.replace('/', "-");
        training.run(&out, &["--resume", &from.display().to_string()]);
        training.assert_same(&format!("unbroken/{end}"), &format!("{out}/{end}"));
        // A folder of its own has the lines from there on.
        let step = read_json(&from.join("state.json"))["position"]["global_step"].as_u64();
        let all = training.metrics("unbroken");
        let lines = training.metrics(&out);
        assert!(!lines.is_empty() && all.ends_with(&lines), "{out}: {lines:#?}\nunbroken: {all:#?}");
        let first = lines[0]["step"].as_u64();
        assert!(first >= step && first <= step.map(|step| step + 3), "{out}: {first:?} {step:?}");
    }
}

#[test]
fn adamw_resumes_from_anywhere() {
    let checkpoints = [
        "checkpoints/epoch-0001-step-00000005",
        "checkpoints/epoch-0001-step-00000010",
        "epochs/epoch-0001-step-00000023",
        "checkpoints/epoch-0002-step-00000040",
    ];
    goes_on(&Training::new(PLUGINS), &checkpoints, "checkpoints/epoch-0002-step-00000046");
}

#[test]
fn the_last_step_of_an_epoch_is_not_its_end() {
    // Taken at the step, before the evaluation and the hooks of the epoch's end.
    let training = Training::new(PLUGINS);
    let checkpoint = ["checkpoints/epoch-0001-step-00000023"];
    goes_on(&training, &checkpoint, "checkpoints/epoch-0002-step-00000046");
    let plain = Training::new(&PLUGINS.replace("take_over = 9", "take_over = 0"))
        .with("schedule = ", "clip_gradient_norm = 0.5\nschedule = ");
    goes_on(&plain, &checkpoint, "checkpoints/epoch-0002-step-00000046");
}

#[test]
fn momentum_accumulation_and_the_background_resume() {
    let training = Training::new(&PLUGINS.replace("take_over = 9", "take_over = 0"))
        .with(ADAMW, SGD)
        .with("batch_size = 64\n", "batch_size = 20\naccumulate = 3\n")
        .with("name = \"steps\"", "name = \"steps\"\ndispatch = \"background\"")
        .with("name = \"epochs\"", "name = \"epochs\"\ndispatch = \"background\"");
    let checkpoints = ["checkpoints/epoch-0001-step-00000005", "checkpoints/epoch-0002-step-00000035"];
    goes_on(&training, &checkpoints, "checkpoints/epoch-0002-step-00000048");
}

#[test]
fn groups_a_warm_up_and_every_kind_of_metric_resume() {
    let rmsprop = r#"{ type = "rmsprop", learning_rate = 1e-3, momentum = 0.9, centered = true, weight_decay = 0.001, groups = [
  { pattern = "fc2.*", name = "head", learning_rate_factor = 0.1 },
] }
warmup = { steps = 30, start = 0.1 }"#;
    let metrics = r#"metrics = ["top2_error", "f1", "auc", "perplexity", "confusion_matrix"]"#;
    let training = Training::new(&PLUGINS.replace("take_over = 9", "take_over = 0"))
        .with(ADAMW, rmsprop)
        .with("metrics = [\"accuracy\"]", metrics)
        .with("{ type = \"cosine\" }", "{ type = \"step\", size = 4, by = \"step\" }")
        .with("{ type = \"cross_entropy\" }", "{ type = \"cross_entropy\", label_smoothing = 0.1 }");
    let checkpoints = ["checkpoints/epoch-0001-step-00000015", "checkpoints/epoch-0002-step-00000035"];
    goes_on(&training, &checkpoints, "checkpoints/epoch-0002-step-00000046");
}

#[test]
fn inline_and_background_write_the_same() {
    let training = Training::new(PLUGINS);
    training.run("inline", &[]);
    let training = training.with("name = \"steps\"", "name = \"steps\"\ndispatch = \"background\"");
    training.run("background", &[]);
    let names = training.checkpoints("inline/checkpoints");
    assert_eq!(names, training.checkpoints("background/checkpoints"));
    assert_eq!(names.len(), 11);
    for name in names {
        training.assert_same(&format!("inline/checkpoints/{name}"), &format!("background/checkpoints/{name}"));
    }
}

#[test]
fn a_hyper_parameter_keeps_its_owner() {
    let training = Training::new(PLUGINS);
    training.run("run", &[]);
    let from = training.path("run/checkpoints/epoch-0001-step-00000015").display().to_string();
    training.run("resumed", &["--resume", &from]);
    let journal = training.journal();
    let starts: Vec<&Value> = journal.iter().filter(|line| line["hook"] == "train_start").collect();
    assert_eq!((&starts[0]["steps"], &starts[1]["steps"]), (&0.into(), &15.into()));
    assert_eq!((&starts[0]["resumed"], &starts[1]["resumed"]), (&false.into(), &true.into()));
    let owned = serde_json::json!({ "weight_decay": "keeper", "learning_rate": "keeper" });
    assert_eq!((&starts[0]["owners"], &starts[1]["owners"]), (&serde_json::json!({}), &owned));
    assert_eq!(starts[1]["values"]["weight_decay"], 0.125);
    assert_eq!(starts[1]["values"]["learning_rate"], 0.002);
    // The schedule did not change it until the end, in either run.
    for run in ["run", "resumed"] {
        assert_eq!(training.status(run)["metrics"]["learning_rate"], 0.002);
    }
}

// --- processes that end at any moment

/// A slow training, so that it can be interrupted.
fn slow() -> Training {
    Training::new(PLUGINS).with("puts = \"recorded\"", "puts = \"recorded\", sleep_ms = 4, sleep_in = \"step_end\"")
}

fn start(training: &Training, out: &str) -> Child {
    training.command(out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the host starts")
}

/// Sends `signal` to a run `delay` after its next checkpoint. Returns whether the signal ended the
/// run; otherwise it had finished before.
#[cfg(unix)]
fn break_off(training: &Training, out: &str, signal: &str, delay: Duration) -> bool {
    let folder = format!("{out}/checkpoints");
    let newest = || training.checkpoints(&folder).pop();
    let before = newest();
    let mut run = start(training, out);
    while newest() == before && run.try_wait().expect("a process").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(delay);
    // A process that nobody has waited for yet keeps its number, whether or not it runs.
    let sent = Command::new("kill").args([signal, &run.id().to_string()]).status().expect("kill is there");
    assert!(sent.success());
    let status = run.wait().expect("a process");
    let ended_by_it = match signal {
        "-KILL" => status.signal() == Some(9),
        _ => status.code() == Some(130),
    };
    assert!(ended_by_it || status.success(), "{signal}: {status}");
    ended_by_it
}

/// Asserts that there are checkpoints, and that every folder with a checkpoint's name is a whole one: what its manifest
/// says is there.
pub fn assert_whole(training: &Training, folder: &str) {
    let names = training.checkpoints(folder);
    assert!(!names.is_empty(), "there is no checkpoint in {folder}");
    for name in names {
        let checkpoint = training.path(folder).join(&name);
        let manifest = read_json(&checkpoint.join("manifest.json"));
        let files = manifest["files"].as_array().expect("the manifest lists files");
        assert!(files.len() >= 7, "{manifest}");
        for file in files {
            let bytes =
                std::fs::read(checkpoint.join(file["path"].as_str().unwrap_or_default())).expect("a listed file");
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(file["sha256"], digest.as_str(), "{name}: {file}");
        }
    }
}

#[cfg(unix)]
fn interrupted_and_resumed(signal: &str) {
    let training = slow();
    training.run("unbroken", &[]);
    let mut broken = 0;
    for attempt in 0..5 {
        broken += u32::from(break_off(&training, "broken", signal, Duration::from_millis(attempt * 13)));
        assert_whole(&training, "broken/checkpoints");
    }
    assert!(broken >= 2, "{signal} ended only {broken} runs");
    training.run("broken", &["--resume", "auto"]);
    training.assert_same("unbroken/checkpoints/last", "broken/checkpoints/last");
    assert_eq!(training.metrics("unbroken"), training.metrics("broken"));
    // A run that is interrupted writes one more checkpoint at its end.
    let (epochs, whole) = (training.checkpoints("broken/epochs"), training.checkpoints("unbroken/epochs"));
    assert_eq!(whole.len(), 2, "{whole:?}");
    assert!(whole.iter().all(|name| epochs.contains(name)), "{epochs:?}");
    let left: Vec<_> = training
        .path("broken/checkpoints")
        .read_dir()
        .expect("a folder")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.starts_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
#[cfg(unix)]
fn a_killed_run_resumes() {
    interrupted_and_resumed("-KILL");
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_resumes() {
    interrupted_and_resumed("-INT");
}

#[test]
#[cfg(unix)]
fn a_kill_while_checkpoints_are_written_leaves_no_partial_one() {
    // A checkpoint after each step: nearly all of the time goes into writing them.
    let training = Training::new(PLUGINS).with("every = \"5 steps\"", "every = \"1 steps\"");
    let mut killed = 0;
    for attempt in 0..6 {
        killed += u32::from(break_off(&training, "run", "-KILL", Duration::from_millis(7 * attempt)));
        assert_whole(&training, "run/checkpoints");
    }
    assert!(killed >= 3, "only {killed} runs were killed");
    training.run("run", &[]);
    assert_whole(&training, "run/checkpoints");
    assert_eq!(training.checkpoints("run/checkpoints").len(), 46);
}

// --- where to resume from

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("the file can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("the file can be written");
}

/// The output of a run, without the first lines, which describe it.
fn told(training: &Training, output: &std::process::Output) -> String {
    let mut text = shown(output, &[training.folder()]);
    for (pattern, name) in [
        ("[0-9a-f]{64}", "[DIGEST]"),
        (r"in \d+\.\d s", "in [TIME]"),
        (r"-\d+-\d+/(\w+)\.safetensors", "-[PROCESS]/$1.safetensors"),
        (r"`/[^`]*/lib(\w+)\.so`", "`[LIBRARIES]/lib$1.so`"),
    ] {
        let pattern = regex::Regex::new(pattern).expect("the pattern is valid");
        text = pattern.replace_all(&text, name).into_owned();
    }
    let is_news = |line: &&str| {
        let lead = ["run `small`", "kernels: ", "model: ", "callbacks, in order", "callbacks took", "finished: "];
        !lead.iter().any(|lead| line.starts_with(lead))
    };
    text.lines().filter(is_news).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_damaged_checkpoint_is_skipped() {
    let training = Training::new(PLUGINS);
    training.run("unbroken", &[]);
    training.run("damaged", &["--set", "train.epochs=2"]);
    for name in ["epoch-0002-step-00000046", "epoch-0002-step-00000045"] {
        damage(&training.path("damaged/checkpoints").join(name).join("model.safetensors"));
    }
    let output = training.run("damaged", &["--resume", "auto"]);
    insta::assert_snapshot!(told(&training, &output), @"
    exit code: 0
    -- stdout
    [FOLDER]/damaged
    -- stderr
    warning: × the checkpoint `[FOLDER]/damaged/checkpoints/epoch-0002-step-00000046` is skipped
      ╰─▶ `[FOLDER]/damaged/checkpoints/epoch-0002-step-00000046/model.safetensors` has been changed since it was written: its SHA-256 is `[DIGEST]` instead of `[DIGEST]`
    warning: × the checkpoint `[FOLDER]/damaged/checkpoints/epoch-0002-step-00000045` is skipped
      ╰─▶ `[FOLDER]/damaged/checkpoints/epoch-0002-step-00000045/model.safetensors` has been changed since it was written: its SHA-256 is `[DIGEST]` instead of `[DIGEST]`
    resuming after epoch 2, step 46 from [FOLDER]/damaged/epochs/epoch-0002-step-00000046
    results: [FOLDER]/damaged
    ");
    training.assert_same("unbroken/checkpoints/last", "damaged/checkpoints/last");
    assert_eq!(training.metrics("unbroken"), training.metrics("damaged"));
}

#[test]
fn a_damaged_checkpoint_that_is_named_is_an_error() {
    let training = Training::new(PLUGINS);
    training.run("run", &[]);
    let last = training.path("run/checkpoints/epoch-0002-step-00000046");
    damage(&last.join("optimizer.safetensors"));
    let output = training.output("other", &["--resume", &last.display().to_string()]);
    insta::assert_snapshot!(told(&training, &output), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/run/checkpoints/epoch-0002-step-00000046/optimizer.safetensors` has been changed since it was written: its SHA-256 is `[DIGEST]` instead of `[DIGEST]`
      hint: the checkpoint is damaged: use an earlier one, or copy it again from its source
    "#);
}

#[test]
fn never_does_not_touch_a_used_folder() {
    let training = Training::new("");
    training.run("run", &[]);
    let output = training.output("run", &["--resume", "never"]);
    insta::assert_snapshot!(told(&training, &output), @r#"
    exit code: 2
    -- stderr
      × the run folder `[FOLDER]/run` already holds a run
      hint: resume it: `--resume auto`; or choose another folder: `--out DIR`
    "#);
}

#[test]
fn a_finished_run_has_nothing_to_resume() {
    let training = Training::new(PLUGINS);
    training.run("run", &[]);
    let (metrics, checkpoints) = (training.metrics("run"), training.checkpoints("run/checkpoints"));
    assert_eq!(checkpoints.len(), 11, "{checkpoints:?}");
    training.run("run", &["--resume", "auto"]);
    assert_eq!(training.metrics("run"), metrics);
    assert_eq!(training.checkpoints("run/checkpoints"), checkpoints);
    let status = training.status("run");
    assert_eq!((&status["state"], &status["position"]["global_step"]), (&"finished".into(), &46.into()));
}

#[test]
fn a_longer_plan_continues_after_the_end() {
    let training =
        Training::new(PLUGINS).with("schedule = { type = \"cosine\" }", "schedule = { type = \"constant\" }");
    training.run("unbroken", &["--set", "train.epochs=3"]);
    training.run("longer", &[]);
    training.run("longer", &["--set", "train.epochs=3"]);
    training.assert_same("unbroken/checkpoints/last", "longer/checkpoints/last");
}

#[test]
fn another_model_is_a_clear_error() {
    let without_state = r#"{ type = "sgd", learning_rate = 0.05 }"#;
    let training = Training::new(&PLUGINS.replace("take_over = 9", "take_over = 0")).with(ADAMW, without_state);
    training.run("run", &["--set", "train.epochs=1"]);
    let words = |training: &Training| told(training, &training.output("run", &["--resume", "auto"]));
    let wider = training.with("out_features = 16", "out_features = 32");
    insta::assert_snapshot!(words(&wider), @"
    exit code: 2
    -- stderr
      × this run cannot resume from `[FOLDER]/run/checkpoints/epoch-0001-step-00000023`: it would not be the same run
      ╰─▶ `model.layers.6.out_features` was `16` and is `32`
      hint: use the run file that it was written with, `[FOLDER]/run/checkpoints/epoch-0001-step-00000023/run.toml`, or begin a new run: `--resume never --out DIR`, with `[model] init_from` for these weights; or accept what differs: `--accept model`
    ");
    let more = "{ type = \"linear\", out_features = 16 },\n  { type = \"relu\" },\n  { type = \"linear\", out_features = 10 },\n  { type = \"linear\", out_features = 10 }";
    let deeper = wider.with(
        "{ type = \"linear\", out_features = 32 },\n  { type = \"relu\" },\n  { type = \"linear\", out_features = 10 }",
        more,
    );
    insta::assert_snapshot!(words(&deeper), @"
    exit code: 2
    -- stderr
      × this run cannot resume from `[FOLDER]/run/checkpoints/epoch-0001-step-00000023`: it would not be the same run
      ╰─▶ `model.layers` had 9 entries and has 10
      hint: use the run file that it was written with, `[FOLDER]/run/checkpoints/epoch-0001-step-00000023/run.toml`, or begin a new run: `--resume never --out DIR`, with `[model] init_from` for these weights; or accept what differs: `--accept model`
    ");
    let shallower = deeper.with(more, "{ type = \"linear\", out_features = 10 }");
    insta::assert_snapshot!(words(&shallower), @"
    exit code: 2
    -- stderr
      × this run cannot resume from `[FOLDER]/run/checkpoints/epoch-0001-step-00000023`: it would not be the same run
      ╰─▶ `model.layers` had 9 entries and has 7
      hint: use the run file that it was written with, `[FOLDER]/run/checkpoints/epoch-0001-step-00000023/run.toml`, or begin a new run: `--resume never --out DIR`, with `[model] init_from` for these weights; or accept what differs: `--accept model`
    ");
}

#[test]
fn another_optimizer_is_a_clear_error() {
    let training = Training::new(PLUGINS);
    training.run("run", &["--set", "train.epochs=1"]);
    let training = training.with(ADAMW, SGD);
    insta::assert_snapshot!(told(&training, &training.output("run", &["--resume", "auto"])), @r#"
    exit code: 2
    -- stderr
      × this run cannot resume from `[FOLDER]/run/checkpoints/epoch-0001-step-00000023`: it would not be the same run
      ╰─▶ `train.optimizer.type` was `"adamw"` and is `"sgd"`
      hint: use the run file that it was written with, `[FOLDER]/run/checkpoints/epoch-0001-step-00000023/run.toml`, or begin a new run: `--resume never --out DIR`, with `[model] init_from` for these weights; or accept what differs: `--accept optimizer`
    "#);
}

// --- what is kept

fn checkpointing(options: &str) -> Training {
    Training::new(&format!(
        "[[plugins]]\nkind = \"recorder\"\noptions = {{ puts = \"epoch_number\" }}\n
         [[plugins]]\nkind = \"checkpoint\"\noptions = {{ {options} }}\n"
    ))
}

fn pointer(training: &Training, name: &str) -> Option<String> {
    let pointer = training.path("run/checkpoints").join(name);
    let text = std::fs::read_link(&pointer).map(|link| link.display().to_string());
    text.or_else(|_| std::fs::read_to_string(&pointer)).ok()
}

#[test]
fn the_last_and_the_best_are_kept() {
    let rules = "keep_last = 1, keep_best = [{ metric = \"epoch_number\", mode = \"min\", top = 2 }, { metric = \"val_loss\", mode = \"min\", top = 1 }]";
    let training = checkpointing(rules);
    training.run("run", &["--set", "train.epochs=5"]);
    let losses: Vec<f64> = read_json(&training.path("run/checkpoints/last/state.json"))["history"]["numbers"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|series| series["name"] == "val_loss")
        .and_then(|series| series["values"].as_array())
        .expect("a series")
        .iter()
        .filter_map(|value| value.as_str()?.parse().ok())
        .collect();
    assert_eq!(losses.len(), 5);
    let best = (0..5).min_by(|&left, &right| losses[left].total_cmp(&losses[right])).expect("five");
    let mut epochs = vec![1, 2, best + 1, 5];
    epochs.sort_unstable();
    epochs.dedup();
    let names: Vec<String> = epochs.iter().map(|epoch| format!("epoch-{epoch:04}-step-{:08}", epoch * 23)).collect();
    assert_eq!(training.checkpoints("run/checkpoints"), names);
    assert_eq!(pointer(&training, "last").as_deref(), Some("epoch-0005-step-00000115"));
    assert_eq!(pointer(&training, "best").as_deref(), Some("epoch-0001-step-00000023"));
    let artifacts = &training.status("run")["artifacts"];
    assert_eq!(artifacts["best_checkpoint"], "checkpoints/epoch-0001-step-00000023");
    assert_eq!(artifacts["last_checkpoint"], "checkpoints/epoch-0005-step-00000115");
}

/// Two epochs with a checkpoint each; more arguments change the run.
fn checkpointed() -> SmallRun {
    SmallRun::with_libraries(&["checkpoint", "recorder"]).instance("kind = 'checkpoint'")
}

#[test]
fn a_run_that_would_be_another_is_not_resumed() {
    let first = checkpointed().run().succeeded();
    let refused = |changes: &[&str]| {
        let run = changes.iter().fold(checkpointed(), |run, change| run.set(change)).set("train.epochs=3");
        let ran = run.run_in(first.out.clone());
        assert_eq!(ran.code(), Some(2), "{}", ran.shown());
        let shown = ran.shown();
        let causes: Vec<&str> =
            shown.lines().filter_map(|line| line.trim_start().split_once("─▶ ")).map(|(_, cause)| cause).collect();
        causes.join("\n")
    };
    insta::assert_snapshot!(refused(&["run.seed=8"]), @"`run.seed` was `7` and is `8`");
    insta::assert_snapshot!(refused(&["train.batch_size=240", "data.normalize=\"standard\""]), @r#"
    `data.normalize` was `"range"` and is `"standard"`
    `train.batch_size` was `480` and is `240`
    "#);
    insta::assert_snapshot!(refused(&["train.optimizer.learning_rate=0.5", "data.splits.val.fraction=0.3"]), @"
    `data.splits.val.fraction` was `0.2` and is `0.3`
    `train.optimizer.learning_rate` was `0.01` and is `0.5`
    ");
    insta::assert_snapshot!(refused(&["model.layers.0.out_features=8", "train.precision=\"bf16\""]), @r#"
    `model.layers.0.out_features` was `16` and is `8`
    `train.precision` was `"f32"` and is `"bf16"`
    "#);
}

#[test]
fn a_longer_run_and_other_callbacks_are_listed() {
    let first = checkpointed().run().succeeded();
    let ran = checkpointed().recorder("new", "", "").set("train.epochs=3").run_in(first.out.clone()).succeeded();
    let shown = ran.shown();
    let told: Vec<&str> = shown.lines().filter(|line| line.starts_with("since the checkpoint")).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    since the checkpoint: `train.epochs` was `2` and is `3`
    since the checkpoint: new callbacks: `new`
    ");
}

#[test]
fn other_rows_are_not_resumed_and_moved_ones_are() {
    let row = |number: usize| {
        let features: String = (0..64).map(|column| format!("{},", (number * 31 + column * 17) % 97)).collect();
        format!("{features}{}\n", number % 10)
    };
    let text: String = (0..600).map(row).collect();
    let folder = temporary_folder();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        format!("data.path=\"{}\"", path.display())
    };
    let original = write("a.csv", &text);
    let moved = write("b.csv", &text);
    let (first_line, rest) = text.split_once('\n').expect("two lines");
    let reordered = write("c.csv", &format!("{rest}{first_line}\n"));
    let first = checkpointed().set(&original).run().succeeded();
    let refused = checkpointed().set(&reordered).set("train.epochs=3").run_in(first.out.clone());
    assert_eq!(refused.code(), Some(2));
    assert!(
        refused.shown().contains("the data has changed: other rows, another order, or other values"),
        "{}",
        refused.shown()
    );
    let resumed = checkpointed().set(&moved).set("train.epochs=3").run_in(first.out.clone()).succeeded();
    assert!(
        resumed.shown().contains("since the checkpoint: the data has moved; its content is the same"),
        "{}",
        resumed.shown()
    );
}

#[test]
fn retention_resumes_with_the_run() {
    let rules = "keep_last = 1, keep_best = [{ metric = \"epoch_number\", mode = \"min\", top = 1 }]";
    let training = checkpointing(rules);
    training.run("run", &["--set", "train.epochs=2"]);
    // The best of all is from before the break; the checkpoint that the run resumed from stays too.
    training.run("run", &["--set", "train.epochs=4"]);
    let kept = ["epoch-0001-step-00000023", "epoch-0002-step-00000046", "epoch-0004-step-00000092"];
    assert_eq!(training.checkpoints("run/checkpoints"), kept);
    assert_eq!(pointer(&training, "best").as_deref(), Some(kept[0]));
}

#[test]
fn nan_is_never_the_best() {
    let training = checkpointing("keep_last = 1, keep_best = [{ metric = \"val_loss\", mode = \"min\", top = 1 }]")
        .with(ADAMW, "{ type = \"sgd\", learning_rate = 1e30 }");
    training.run("run", &[]);
    assert_eq!(training.status("run")["metrics"]["val_loss"], "NaN");
    assert_eq!(training.checkpoints("run/checkpoints"), ["epoch-0002-step-00000046"]);
    assert_eq!((pointer(&training, "best"), pointer(&training, "last").is_some()), (None, true));
}

// --- a disk that refuses

#[test]
fn a_folder_that_cannot_be_created_follows_on_error() {
    // The log is a file: nothing can be created below it.
    let training = |policy: &str| {
        let on_error = format!("kind = \"checkpoint\"\non_error = \"{policy}\"");
        checkpointing("folder = \"log.jsonl/deep\", background = false").with("kind = \"checkpoint\"", &on_error)
    };
    let stopped = training("stop");
    let output = stopped.output("run", &[]);
    insta::assert_snapshot!(told(&stopped, &output), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/run
    -- stderr
    error: × plugin `checkpoint` failed in `checkpoint`: cannot read `[FOLDER]/run/log.jsonl/deep/epoch-0001-step-00000023`: Not a directory (os error 20)
      hint: kind `checkpoint` of `[LIBRARIES]/libcheckpoint.so`; `on_error = "disable"` would let the run continue without it
    failed: 1 epoch, 23 steps in [TIME]
    results: [FOLDER]/run
    "#);
    let status = stopped.status("run");
    assert_eq!((&status["state"], &status["position"]["epoch"]), (&"failed".into(), &1.into()));

    for (policy, failures) in [("ignore", 3), ("disable", 1)] {
        let training = training(policy);
        let output = training.run("run", &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            stderr.matches("plugin `checkpoint` failed in `checkpoint`").count(),
            failures,
            "{policy}: {stderr}"
        );
        assert_eq!(training.status("run")["state"], "finished");
    }
}

#[test]
fn a_file_in_place_of_the_folder_is_reported_before_the_training() {
    let training = checkpointing("");
    std::fs::create_dir(training.path("run")).expect("a folder");
    // What makes it a run's folder.
    std::fs::write(training.path("run/.host-run"), "").expect("a file");
    std::fs::write(training.path("run/checkpoints"), "in the way").expect("a file");
    insta::assert_snapshot!(told(&training, &training.output("run", &[])), @r#"
    exit code: 2
    -- stderr
      × cannot read `[FOLDER]/run/checkpoints`
      ╰─▶ Not a directory (os error 20)
    "#);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_no_partial_checkpoint() {
    // No file may grow beyond 14 blocks, as on a disk that is full; the signal that comes with it is ignored.
    let training = checkpointing("background = false");
    let host = training.command("run");
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 14; exec \"$0\" \"$@\""])
        .arg(host.get_program())
        .args(host.get_args());
    let output = command.current_dir(training.folder().0).output().expect("sh is there");
    insta::assert_snapshot!(told(&training, &output), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/run
    -- stderr
    error: × plugin `checkpoint` failed in `checkpoint`: cannot write `[FOLDER]/run/checkpoints/.tmp-epoch-0001-step-00000023-[PROCESS]/optimizer.safetensors`: File too large (os error 27)
      hint: kind `checkpoint` of `[LIBRARIES]/libcheckpoint.so`; `on_error = "disable"` would let the run continue without it
    failed: 1 epoch, 23 steps in [TIME]
    results: [FOLDER]/run
    "#);
    let left: Vec<_> = training.path("run/checkpoints").read_dir().expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

// --- other readers

#[test]
fn pythons_safetensors_opens_them() {
    let Some(python) = fixture::python() else { return };
    let training = Training::new(PLUGINS);
    training.run("run", &[]);
    let program = "
import sys, json
from safetensors.numpy import load_file
for name in ['model', 'optimizer', 'copies', 'rng']:
    tensors = load_file(f'{sys.argv[1]}/{name}.safetensors')
    print(name, len(tensors), sorted(tensors)[0], sum(t.size for t in tensors.values()))
";
    let output = Command::new(python).args(["-c", program]).arg(training.path("run/checkpoints/last")).output();
    let output = output.expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stdout), @r#"
    model 11 bn1.bias 1267
    optimizer 24 exp_avg.bn1.bias 2524
    copies 11 average/slow/bn1.bias 1267
    rng 1 cpu 5056
    "#);
}

#[test]
fn an_epoch_has_as_many_steps_as_these_tests_say() {
    let training = Training::new("");
    training.run("run", &[]);
    assert_eq!(training.status("run")["position"]["global_step"], 2 * STEPS_PER_EPOCH);
}
