//! What a person meets first: a command without options, a run that saves nothing, a loss that is NaN.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fixture::{TempDir, build_workspace_plugins, install_host, program, shown, temporary_folder, workspace_root};

use crate::small_run::{Ran, SmallRun};

/// The commands of the README's tour, as somebody copies them.
#[test]
fn the_tour_can_be_copied() {
    let readme = std::fs::read_to_string(workspace_root().join("README.md")).expect("there is a README");
    let tour = readme.split("## A tour").nth(1).and_then(|rest| rest.split("```sh\n").nth(1)?.split("```").next());
    let folder = temporary_folder();
    std::os::unix::fs::symlink(workspace_root().join("examples"), folder.path().join("examples")).expect("a link");
    let plugins = fixture::folder_of(build_workspace_plugins().values().map(PathBuf::as_path));
    let mut command = program(Path::new("/bin/sh"));
    let path = std::env::var("PATH").unwrap_or_default();
    let of_host = fixture::host_binary().parent().expect("a folder").display().to_string();
    command.args(["-e", "-x", "-c", tour.expect("there is a tour")]).current_dir(folder.path());
    command.env("PATH", format!("{of_host}:{path}")).env("HOST_PLUGINS", plugins.path());
    let output = command.output().expect("the shell starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("train.optimizer.learning_rate") && shown.contains("runs/second  finished"), "{shown}");
    let is_there = |path: &str| folder.path().join(path).exists();
    assert!(is_there("curves.svg") && is_there("runs/first/evaluations") && is_there("runs/first/predictions"));
}

/// A copy of the host without a `plugins` beside it, whatever the workspace has been built into.
struct Installed {
    folder: TempDir,
}

impl Installed {
    fn new() -> Self {
        let folder = temporary_folder();
        install_host(&folder.path().join("bin"));
        Self { folder }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Puts shipped libraries into one of its folders.
    fn with_plugins(self, folder: &str, names: &[&str]) -> Self {
        let folder = self.path(folder);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        for name in names {
            let library = &build_workspace_plugins()[*name];
            std::fs::copy(library, folder.join(library.file_name().expect("a name"))).expect("it can be copied");
        }
        self
    }

    /// A run file that declares no plugin, in `project`.
    fn with_run_file(self) -> Self {
        let data = workspace_root().join("examples/digits/digits.csv.gz");
        let text = format!(
            "[run]\nname = \"bare\"\ndevice = \"cpu\"\nthreads = 1\n\n[data]\nformat = \"csv\"\npath = '{}'\n\
             header = false\ntarget = 64\nclasses = 10\nnormalize = \"range\"\n\n\
             [model]\nlayers = [{{ type = \"linear\", out_features = 10 }}]\n\n\
             [train]\nepochs = 1\nbatch_size = 600\nloss = {{ type = \"cross_entropy\" }}\n\
             optimizer = {{ type = \"sgd\", learning_rate = 0.1 }}\n",
            data.display()
        );
        std::fs::create_dir_all(self.path("project")).expect("a folder can be made");
        std::fs::write(self.path("project/run.toml"), text).expect("the run file can be written");
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        std::fs::create_dir_all(self.path("project")).expect("a folder can be made");
        let mut command = program(&self.path("bin/host"));
        command.args(arguments).current_dir(self.path("project"));
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the host starts")
    }

    fn shown(&self, output: &Output) -> String {
        let folder = self.folder.path().canonicalize().expect("the folder exists");
        let text = shown(output, &[(&folder, "[FOLDER]"), (self.folder.path(), "[FOLDER]")]);
        let times = regex::Regex::new(r"(?m)\d+\.\d+ s\b|\(auto: .*cores\)|^callbacks took .*\n").expect("a pattern");
        times
            .replace_all(
                &text,
                |found: &regex::Captures<'_>| {
                    if found[0].ends_with('\n') { String::new() } else { "[TIME]".to_owned() }
                },
            )
            .into_owned()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_bare_run_is_the_example_with_the_plugins_beside_the_program() {
    let installed = Installed::new().with_plugins("bin/plugins", &["standard", "checkpoint", "onnx", "tflite"]);
    let output = installed.output(&["run", "--out", "out", "--set", "train.epochs=1", "--set", "run.device=cpu"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let folder = installed.path("bin/plugins").canonicalize().expect("the folder exists");
    assert!(told.starts_with(&format!("plugins: {} (found beside the program)\n", folder.display())), "{told}");
    assert!(installed.path("project/out/checkpoints/last/model.safetensors").is_file());
    assert!(!told.contains("warning"), "{told}");
}

#[test]
fn the_working_folder_is_searched_only_when_it_is_asked_for() {
    let installed = Installed::new().with_plugins("project/plugins", &["standard", "checkpoint"]).with_run_file();
    insta::assert_snapshot!(installed.shown(&installed.output(&["run", "run.toml", "--out", "out"])), @"
    exit code: 0
    -- stdout
    [FOLDER]/project/out
    -- stderr
    run `bare`: cpu, threads 1 (as the run file says), seed 0
    kernels: [KERNELS]
    model: 1 node, 650 parameters; data: train 1797
    callbacks, in order: none
    warning: × nothing keeps the weights of this run: no plugin writes checkpoints or exports
      hint: give the folder of a plugin that keeps them, such as `checkpoint`: `--plugins DIR`, or set `HOST_PLUGINS`
    finished: 1 epoch, 3 steps in [TIME]
    results: [FOLDER]/project/out
    warning: × nothing keeps the weights of this run: no plugin writes checkpoints or exports
      hint: give the folder of a plugin that keeps them, such as `checkpoint`: `--plugins DIR`, or set `HOST_PLUGINS`
    ");
    let asked = installed.output(&["run", "run.toml", "--out", "asked", "--plugins"]);
    assert!(stderr(&asked).contains("callbacks, in order: checkpoint"), "{}", stderr(&asked));
}

#[test]
fn a_variable_names_the_plugins() {
    let installed = Installed::new()
        .with_plugins("mine", &["checkpoint"])
        .with_plugins("bin/plugins", &["standard"])
        .with_run_file();
    let told = |arguments: &[&str], variable: &Path| {
        let output = installed.command(arguments).env("HOST_PLUGINS", variable).output().expect("the host starts");
        installed.shown(&output)
    };
    let mine = installed.path("mine");
    insta::assert_snapshot!(told(&["config", "check", "run.toml"], &mine), @"
    exit code: 0
    -- stdout
    `run.toml` is valid: 1 node, 650 parameters, callbacks checkpoint
    -- stderr
    plugins: [FOLDER]/mine (from `HOST_PLUGINS`)
    ");
    insta::assert_snapshot!(told(&["plugins", "list"], &mine), @"
    exit code: 0
    -- stdout
    KIND        VERSION  BY DEFAULT  DISPATCH  LIBRARY           SUMMARY
    checkpoint  0.1.0    yes         inline    libcheckpoint.so  Writes checkpoints, keeps the last and the best
    -- stderr
    plugins: [FOLDER]/mine (from `HOST_PLUGINS`)
    ");
    insta::assert_snapshot!(told(&["config", "check", "run.toml"], Path::new("nowhere")), @"
    exit code: 0
    -- stdout
    `run.toml` is valid: 1 node, 650 parameters, callbacks progress, print-metrics, json-lines
    -- stderr
      × `HOST_PLUGINS` names `nowhere`, where there is no plugin library
      hint: correct it, or unset it
    plugins: [FOLDER]/bin/plugins (found beside the program)
    ");
    // An option goes before the variable.
    let option = told(&["config", "check", "run.toml", "--plugins", "../bin/plugins"], &mine);
    assert!(option.contains("print-metrics") && !option.contains("HOST_PLUGINS"), "{option}");
}

#[test]
fn a_command_that_needs_a_library_says_where_it_looked() {
    let installed = Installed::new();
    insta::assert_snapshot!(installed.shown(&installed.output(&["plugins", "list"])), @"
    exit code: 2
    -- stderr
      × no plugins were named, and none were found
      hint: give the folder that holds the plugin libraries: `--plugins DIR`, or set `HOST_PLUGINS`; searched: [FOLDER]/bin/plugins
    ");
    let describe = installed.output(&["plugins", "describe", "checkpoint"]);
    assert_eq!(describe.status.code(), Some(2));
    assert!(stderr(&describe).contains("no plugins were named"), "{}", stderr(&describe));
}

/// The warnings of `status.json`.
fn warnings(ran: &Ran) -> Vec<String> {
    let status = ran.status();
    let warnings = status["warnings"].as_array().expect("there is a list of warnings");
    warnings.iter().map(|warning| warning.as_str().expect("a text").to_owned()).collect()
}

const LOST: &str = "nothing keeps the weights of this run: no plugin writes checkpoints or exports";

#[test]
fn a_run_that_keeps_no_weights_says_so_before_and_after() {
    let ran = SmallRun::with_libraries(&["recorder", "checkpoint"]).recorder("a", "", "").run().succeeded();
    let told = ran.stderr();
    let warning =
        format!("warning: × {LOST}\n  hint: let a plugin keep them, such as `checkpoint`: `--plugin checkpoint`\n");
    assert_eq!(told.matches(&warning).count(), 2, "{told}");
    assert!(told.ends_with(&warning) && told.find(&warning) < told.find("finished:"), "{told}");
    assert_eq!(warnings(&ran), [LOST]);
    // A trial keeps nothing anyway.
    let trial = SmallRun::new().recorder("a", "", "").arguments(["--try"]).run().succeeded();
    assert!(!trial.stderr().contains("warning"), "{}", trial.stderr());
}

#[test]
fn whoever_writes_weights_down_keeps_them() {
    let kept = |library: &str, entry: &str| {
        let run = SmallRun::with_libraries(&[library]).instance(entry).set("train.epochs=1");
        warnings(&run.run().succeeded()).is_empty()
    };
    assert!(kept("checkpoint", "kind = 'checkpoint'"));
    assert!(kept("weights", "kind = 'weights'"));
    assert!(kept("weights", "kind = 'weights'\nwhen = { every = '1 epoch' }"));
    // It looks at the weights, and needs them for its histograms.
    assert!(!kept("tensorboard", "kind = 'tensorboard'"));
}

#[test]
fn a_loss_that_is_nan_is_the_last_that_is_said() {
    let run = || {
        let run = SmallRun::with_libraries(&["checkpoint", "standard"]).instance("kind = 'checkpoint'");
        run.set("train.optimizer={ type = \"sgd\", learning_rate = 1e30 }")
    };
    let ran = run().run().succeeded();
    let expected =
        ["`train_loss` has been NaN or infinite since epoch 1", "`val_loss` has been NaN or infinite since epoch 1"];
    assert_eq!(warnings(&ran), expected);
    assert_eq!(ran.status()["outcome"], "finished");
    insta::assert_snapshot!(ran.shown(), @"
    exit code: 0
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: checkpoint
    finished: 2 epochs, 6 steps in [TIME] s
    results: [FOLDER]/out
    warning: × `train_loss` has been NaN or infinite since epoch 1
    warning: × `val_loss` has been NaN or infinite since epoch 1
      hint: lower the learning rate, or set `clip_gradient_norm`; the plugin `terminate-on-nan` stops such a run
    ");
    // A run that was stopped in its first epoch has no average yet.
    let stopped = SmallRun::with_libraries(&["recorder"])
        .set("train.optimizer={ type = \"sgd\", learning_rate = 1e30 }")
        .recorder("a", "", "stop_in = 'step_end', at_step = 3")
        .run()
        .succeeded();
    assert!(warnings(&stopped).contains(&expected[0].to_owned()), "{}", stopped.status());
}

#[test]
fn the_run_folder_is_told_once() {
    let run = SmallRun::new().recorder("a", "", "").set("train.epochs=1");
    let out = run.out();
    let ran = run.run().succeeded();
    let out = out.canonicalize().expect("the run folder exists").display().to_string();
    // To two places, each has it; `2>&1` is one place.
    assert_eq!(String::from_utf8_lossy(&ran.output.stdout), format!("{out}\n"));
    assert!(ran.stderr().contains(&format!("results: {out}\n")), "{}", ran.stderr());
    let installed = Installed::new().with_run_file();
    let script = format!("'{}' run run.toml --out out 2>&1", installed.path("bin/host").display());
    let output = program(Path::new("/bin/sh")).args(["-c", &script]).current_dir(installed.path("project")).output();
    let output = output.expect("a shell starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told.matches("project/out").count(), 1, "{told}");
}

/// What the built-in run shows on a terminal of so many columns, as the bytes that it is sent.
fn on_terminal(columns: u32, arguments: &str) -> Option<String> {
    let installed = Installed::new().with_plugins("bin/plugins", &["standard", "checkpoint", "onnx", "tflite"]);
    std::fs::create_dir_all(installed.path("project")).expect("a folder can be made");
    let script = format!("stty cols {columns} rows 40; '{}' {arguments}", installed.path("bin/host").display());
    let mut command = program(Path::new("script"));
    command.args(["-qec", &script, "/dev/null"]).env("TERM", "xterm").current_dir(installed.path("project"));
    match command.stdin(std::process::Stdio::null()).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(_) => {
            fixture::skipped("there is no `script`, which makes a terminal");
            None
        }
    }
}

/// The lines that stay on a terminal, without the moves of its cursor.
fn kept_lines(told: &str) -> Vec<String> {
    let moves = regex::Regex::new("\u{1b}\\[[0-9;?]*[A-Za-z]").expect("a pattern");
    let told = moves.replace_all(told, "");
    told.split(['\n', '\r'])
        .filter(|line| line.starts_with("epoch") && line.contains("val_loss"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn on_a_terminal_an_epoch_is_a_line_that_fits() {
    let Some(told) = on_terminal(80, "run --out out --set train.epochs=3 --set run.device=cpu") else { return };
    let epochs: Vec<String> = kept_lines(&told).into_iter().filter(|line| !line.contains('%')).collect();
    assert_eq!(epochs.len(), 3, "{told}");
    for line in &epochs {
        assert!(line.chars().count() <= 80 && line.contains("val_accuracy"), "{line}");
    }
    assert!(told.contains("\u{1b}[32m"), "what improved is green: {told}");
    assert!(!told.contains("also available"), "{told}");
    // Both streams are one terminal.
    assert_eq!(told.matches("project/out").count(), 1, "{told}");
}

#[test]
fn on_a_narrow_terminal_tables_and_hints_break_between_words() {
    let plain = |told: String| {
        regex::Regex::new("\u{1b}\\[[0-9;?]*[A-Za-z]").expect("a pattern").replace_all(&told, "").into_owned()
    };
    let Some(told) = on_terminal(100, "plugins list --plugins ../bin/plugins").map(plain) else { return };
    assert!(told.lines().count() > 10 && told.lines().all(|line| line.trim_end().chars().count() <= 100), "{told}");
    let Some(told) = on_terminal(50, "run --plugins nowhere").map(plain) else { return };
    assert!(told.lines().all(|line| line.trim_end().chars().count() <= 50), "{told}");
    assert!(told.contains("libraries: `--plugins DIR`"), "{told}");
}
