use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fixture::{cargo, cargo_artifacts, program, shown, target_folder, unoptimized, workspace_root};
use serde_json::Value;

use crate::resume;
use crate::small_run::SmallRun;
use crate::training::{Training, checks};

const LOSS: &str = "loss = { type = \"cross_entropy\" }\n";

fn example(file: &str) -> PathBuf {
    workspace_root().join("examples/custom-trainer").join(file)
}

/// The example's programs, in the folder and with the versions of the workspace, so that libtorch's binding is not
/// compiled again.
fn program_called(name: &str) -> &'static Path {
    static BUILT: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        fixture::build_workspace_plugins();
        let mut build = cargo("build");
        build.args(["--release", "--locked", "--manifest-path"]).arg(example("Cargo.toml"));
        build.arg("--target-dir").arg(target_folder());
        let artifacts = cargo_artifacts(unoptimized(&mut build)).into_iter();
        artifacts.filter_map(|artifact| Some((artifact.target, artifact.executable?))).collect()
    });
    built.get(name).unwrap_or_else(|| panic!("no `{name}` among {built:?}"))
}

pub fn trainer() -> &'static Path {
    program_called("custom-trainer")
}

/// The small training without a model and a loss, by the example's program.
pub fn training(plugins: &str) -> Training {
    Training::new(plugins).without_model().with(LOSS, "").by(trainer())
}

/// The versions of a lock file's packages, except those in the repository.
fn locked(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).expect("the lock file can be read");
    let lock: toml::Table = text.parse().expect("the lock file is TOML");
    let packages = lock["package"].as_array().expect("packages").iter();
    let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    packages
        .filter(|package| package.get("source").is_some())
        .map(|package| (text(package, "name"), text(package, "version")))
        .collect()
}

#[test]
fn its_versions_are_the_workspaces() {
    // With another version of anything that they have in common, the binding would be compiled for minutes.
    let (own, workspace) = (locked(&example("Cargo.lock")), locked(&workspace_root().join("Cargo.lock")));
    assert!(own.len() > 10 && workspace.len() > 10, "{own:?} {workspace:?}");
    let other: Vec<_> = own.iter().filter(|package| !workspace.contains(package)).collect();
    assert!(other.is_empty(), "not in the workspace's `Cargo.lock`: {other:?}; copy that file over the example's");
}

#[test]
fn it_trains_and_callbacks_come_after_its_own_step() {
    let training = training(
        "[[plugins]]\nkind = \"recorder\"\noptions = { path = \"JOURNAL\" }\n[[plugins]]\nkind = \"json-lines\"\n",
    );
    training.run("run", &["--set", "train.epochs=4"]);
    let journal = training.journal();
    let of_step = |step: u64| -> Vec<&str> {
        let lines = journal.iter().filter(|line| line["global_step"] == step && line["step"] != 0);
        lines.filter_map(|line| line["event"].as_str()).collect()
    };
    assert_eq!(of_step(9), ["step_start", "gradients", "step_end"]);
    assert_eq!(of_step(10), ["step_start", "custom", "gradients", "step_end"]);
    let custom: Vec<&Value> = journal.iter().filter(|line| line["event"] == "custom").collect();
    assert_eq!(custom.len(), 8, "{custom:?}");
    let texts = &custom[0]["texts"];
    assert_eq!((&texts["name"], &texts["author"]), (&"mixup".into(), &"program".into()));
    let payload: Value = serde_json::from_str(texts["payload"].as_str().unwrap_or_default()).expect("JSON");
    assert!(payload["mean_share"].as_f64().is_some_and(|share| (0.0..1.0).contains(&share)), "{payload}");

    let metrics = training.metrics("run");
    let of = |name: &str| metrics.iter().map(|line| line[name].as_f64().unwrap_or(f64::NAN)).collect::<Vec<_>>();
    let (loss, accuracy) = (of("train_loss"), of("val_accuracy"));
    assert!(loss[3] < 0.8 * loss[0] && accuracy[3] > 0.7, "{loss:?} {accuracy:?}");
}

#[test]
fn it_resumes_bit_for_bit() {
    let training = training(&resume::PLUGINS.replace("take_over = 9", "take_over = 0"));
    let checkpoints = ["checkpoints/epoch-0001-step-00000005", "epochs/epoch-0001-step-00000023"];
    resume::goes_on(&training, &checkpoints, "checkpoints/epoch-0002-step-00000046");
    let graph = training.path("unbroken/checkpoints/epoch-0002-step-00000046/graph.json");
    assert_eq!(std::fs::read_to_string(graph).expect("a file"), "null");
    let weights = std::fs::read(training.path("unbroken/checkpoints/epoch-0002-step-00000046/model.safetensors"));
    let weights = weights.expect("a file");
    let tensors = safetensors::SafeTensors::deserialize(&weights).expect("safetensors");
    let mut names = tensors.names();
    names.sort_unstable();
    assert_eq!(names[..5], ["bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.weight", "bn2.bias"]);

    // Starting from the same weights: all of them are found.
    let weights = training.path("unbroken/checkpoints/epoch-0002-step-00000046/model.safetensors");
    let output = training.run("started", &["--set", &format!("model.init_from={}", weights.display())]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("weights: 14 of 14 tensors"), "{stderr}");
}

#[test]
fn what_its_step_remembers_is_in_checkpoints() {
    let training = training(
        "[[plugins]]\nkind = \"recorder\"\noptions = { path = \"JOURNAL\" }\n[[plugins]]\nkind = \"checkpoint\"\n",
    );
    // The event at step 33 is about the steps since 20; the second run has them from two processes.
    let at_33 = || -> Vec<String> {
        let journal = training.journal();
        let events = journal.iter().filter(|line| line["event"] == "custom" && line["global_step"] == 33);
        events.map(|line| line["texts"]["payload"].to_string()).collect()
    };
    training.run("unbroken", &["--set", "train.epochs=2"]);
    let unbroken = at_33();
    training.run("broken", &["--set", "train.epochs=1"]);
    training.run("broken", &["--set", "train.epochs=2", "--resume", "auto"]);
    assert_eq!((unbroken.len(), at_33()), (1, [unbroken.clone(), unbroken.clone()].concat()));
}

#[test]
fn a_program_evaluates_a_checkpoint_and_sees_how_far_it_is() {
    let ran = SmallRun::with_libraries(&["checkpoint"]).instance("kind = 'checkpoint'").run().succeeded();
    let evaluate = |path: &Path| program(program_called("evaluate")).arg(path).output().expect("it starts");
    let output = evaluate(&ran.out);
    assert!(output.status.success(), "{}", shown(&output, &[]));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let told: Vec<(&str, f64)> = told
        .lines()
        .map(|line| line.split_once(' ').expect("a name and a value"))
        .map(|(name, value)| (name, value.parse().expect("a number")))
        .collect();
    let status = ran.status();
    let of = |name: &str| status["metrics"][name].as_f64().expect("a number");
    assert_eq!(told, [("loss", of("val_loss")), ("accuracy", of("val_accuracy"))]);
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("\r100 %\n"), "{}", shown(&output, &[]));
    let nothing = evaluate(&ran.out.join("nothing"));
    assert_eq!(nothing.status.code(), Some(2), "{}", shown(&nothing, &[]));
}

#[test]
fn callbacks_are_told_that_there_is_no_graph() {
    let training = training(
        "[[plugins]]\nkind = \"graph-reader\"\noptions = { path = \"JOURNAL\", gradient = \"head.weight\" }\n",
    );
    training.run("run", &["--set", "train.epochs=1"]);
    insta::assert_snapshot!(checks(&training.journal()), @"
    a model without a graph can be told by the error's kind
    graph: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    tap of an activation: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    graph at the end of an epoch: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    recalibrate_batch_norm: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    predictions with a node: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    predictions
    ");
}

#[test]
fn missing_and_duplicate_parts_are_reported() {
    let bare = Training::new("").without_model();
    let shown = |training: &Training, out: &str| shown(&training.output(out, &[]), &[training.folder()]);
    insta::assert_snapshot!(shown(&bare, "no-model"), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/run.toml` has no model
      hint: give `[model]` its `layers`, or an exported program: `exported = "model.pt2"`
    "#);
    insta::assert_snapshot!(shown(&Training::new("").with(LOSS, ""), "no-loss"), @r#"
    exit code: 2
    -- stderr
      × `train` has no `loss`
        ╭─[[FOLDER]/run.toml:32:2]
     31 │ 
     32 │ [train]
        ·  ──┬──
        ·    ╰── `loss` is missing
     33 │ epochs = 2
        ╰────
      hint: say what to minimize, as in `loss = { type = "cross_entropy" }`
    "#);
    insta::assert_snapshot!(shown(&Training::new("").by(trainer()), "twice"), @r#"
    exit code: 2
    -- stderr
      × there are two models: the run file's and the program's own
        ╭─[[FOLDER]/run.toml:20:1]
     19 │ [model]
     20 │ layers = [
        · ───┬──
        ·    ╰── a model
     21 │   { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1 },
        ╰────
      hint: remove `layers`, since this program trains a model of its own

      × there are two losses: the run file's and the program's own
        ╭─[[FOLDER]/run.toml:35:1]
     34 │ batch_size = 64
     35 │ loss = { type = "cross_entropy" }
        · ──┬─
        ·   ╰── a loss
     36 │ metrics = ["accuracy"]
        ╰────
      hint: remove it: this program minimizes a loss of its own
    "#);
}

#[test]
fn its_own_run_file_does_what_the_readme_says() {
    let folder = fixture::temporary_folder();
    let mut command = program(trainer());
    command.arg(example("run.toml")).arg("--out").arg(folder.path().join("run")).arg("--json");
    command.arg("--plugins").arg(&fixture::build_workspace_plugins()["standard"]);
    let output = command.current_dir(folder.path()).output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("model: no graph, ") && stderr.contains("about"), "{stderr}");
    let status = fixture::events(&output.stdout).pop().expect("the last event is the status");
    let accuracy = status["metrics"]["val_accuracy"].as_f64();
    assert!(accuracy > Some(0.95), "{accuracy:?}");
}
