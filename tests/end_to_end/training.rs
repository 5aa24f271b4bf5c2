//! A short training of a small network with batch norm and dropout: 23 steps an epoch.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fixture::{
    TempDir, build_test_plugins, build_workspace_plugins, host, lines, program, temporary_folder, workspace_root,
};
use serde_json::Value;

const RUN: &str = r#"
[run]
name = "small"
seed = 7
threads = 1
by_default = false

[data]
format = "csv"
path = "DIGITS"
target = 64
shape = [1, 8, 8]
classes = 10
normalize = "standard"

[data.splits]
val = { fraction = 0.2, stratified = true }

[model]
layers = [
  { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1 },
  { type = "batch_norm" },
  { type = "relu" },
  { type = "max_pool2d", kernel_size = 2 },
  { type = "flatten" },
  { type = "dropout", p = 0.25 },
  { type = "linear", out_features = 16 },
  { type = "relu" },
  { type = "linear", out_features = 10 },
]

[train]
epochs = 2
batch_size = 64
loss = { type = "cross_entropy" }
metrics = ["accuracy"]
optimizer = { type = "adamw", learning_rate = 3e-3, weight_decay = 0.01 }
schedule = { type = "cosine" }

[eval]
split = "val"
metrics = ["accuracy"]
batch_size = 256
"#;

/// Optimizer steps of an epoch: 1,438 samples in batches of 64.
pub const STEPS_PER_EPOCH: u64 = 23;

/// A run file and a folder for all its output.
pub struct Training {
    folder: TempDir,
    libraries: Vec<PathBuf>,
    /// The program, if it is not `host`.
    program: Option<PathBuf>,
}

impl Training {
    /// The training with these `[[plugins]]`; `JOURNAL` stands for the path of [`Self::journal`].
    pub fn new(plugins: &str) -> Self {
        let folder = temporary_folder();
        let (test, shipped) = (build_test_plugins(), build_workspace_plugins());
        let test = ["probe", "recorder", "services", "stale-handle"].map(|name| test[name].clone());
        let libraries = shipped.values().cloned().chain(test).collect();
        let digits = workspace_root().join("examples/digits/digits.csv.gz");
        let training = Self { folder, libraries, program: None };
        let text = format!("{RUN}{plugins}").replace("DIGITS", &toml_path(&digits));
        training.write(&text.replace("JOURNAL", &toml_path(&training.path("journal.jsonl"))));
        training
    }

    /// A training of one's own, with these libraries alone.
    pub fn of(run_file: &str, libraries: &[&str]) -> Self {
        let (test, shipped) = (build_test_plugins(), build_workspace_plugins());
        let library = |name: &&str| shipped.get(*name).unwrap_or_else(|| &test[*name]).clone();
        let libraries = libraries.iter().map(library).collect();
        let training = Self { folder: temporary_folder(), libraries, program: None };
        let example = |name: &str| toml_path(&workspace_root().join("examples").join(name));
        let text = run_file.replace("DIGITS", &example("digits/digits.csv.gz"));
        training.write(&text.replace("EXAMPLES", &example("")));
        training
    }

    /// The same with a part of the run file replaced.
    ///
    /// # Panics
    ///
    /// When the run file has no such part.
    pub fn with(self, part: &str, replacement: &str) -> Self {
        let text = std::fs::read_to_string(self.path("run.toml")).expect("the run file can be read");
        assert!(text.contains(part), "the run file has no `{part}`");
        self.write(&text.replace(part, replacement));
        self
    }

    /// The same without a model.
    pub fn without_model(self) -> Self {
        let text = std::fs::read_to_string(self.path("run.toml")).expect("the run file can be read");
        let (before, rest) = text.split_once("[model]").expect("there is a model");
        let (_, after) = rest.split_once("[train]").expect("the training follows");
        self.write(&format!("{before}[train]{after}"));
        self
    }

    /// The same with a program that takes the arguments of `host run`.
    pub fn by(self, program: &Path) -> Self {
        Self { program: Some(program.to_owned()), ..self }
    }

    /// The same with a further library.
    pub fn with_library(mut self, library: &Path) -> Self {
        self.libraries.push(library.to_owned());
        self
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("run.toml"), text).expect("the run file can be written");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder, as [`fixture::shown`] replaces it.
    pub fn folder(&self) -> (&Path, &'static str) {
        (self.folder.path(), "[FOLDER]")
    }

    /// `host run`, or the other program, into the folder `out`.
    pub fn command(&self, out: &str) -> Command {
        let mut command = self.command_without_folder();
        command.arg("--out").arg(self.path(out));
        command
    }

    /// The same into a folder that the host chooses, within [`Self::folder`].
    pub fn command_without_folder(&self) -> Command {
        let mut command = match &self.program {
            Some(path) => program(path),
            None => host(),
        };
        if self.program.is_none() {
            command.arg("run");
        }
        command.arg(self.path("run.toml")).current_dir(self.folder.path());
        for library in &self.libraries {
            command.arg("--plugins").arg(library);
        }
        command
    }

    /// Runs it into `out`, with more arguments.
    pub fn output(&self, out: &str, arguments: &[&str]) -> Output {
        self.command(out).args(arguments).output().expect("the host starts")
    }

    /// The same, and it must succeed.
    ///
    /// # Panics
    ///
    /// When it does not, with the host's output.
    pub fn run(&self, out: &str, arguments: &[&str]) -> Output {
        let output = self.output(out, arguments);
        assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        output
    }

    /// What plugins wrote to `JOURNAL`.
    pub fn journal(&self) -> Vec<Value> {
        lines(&self.path("journal.jsonl"))
    }

    /// A run's `status.json`.
    pub fn status(&self, out: &str) -> Value {
        read_json(&self.path(out).join("status.json"))
    }

    /// A run's `metrics.jsonl` without what differs from one run to the next: the seconds.
    pub fn metrics(&self, out: &str) -> Vec<Value> {
        let mut lines = lines(&self.path(out).join("metrics.jsonl"));
        for line in &mut lines {
            if let Some(line) = line.as_object_mut() {
                line.retain(|name, _| !name.ends_with("_seconds"));
            }
        }
        lines
    }

    /// The names of the checkpoints in a folder of a run, oldest first.
    pub fn checkpoints(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = self.path(folder).read_dir() else { return Vec::new() };
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| name.starts_with("epoch-"))
            .collect();
        names.sort();
        names
    }

    /// Asserts that two checkpoints hold the same training, bit for bit.
    ///
    /// # Panics
    ///
    /// When they do not, with the file in which they differ.
    pub fn assert_same(&self, first: &str, second: &str) {
        for file in ["model", "optimizer", "copies", "rng"] {
            let file = format!("{file}.safetensors");
            let bytes = |checkpoint: &str| std::fs::read(self.path(checkpoint).join(&file)).expect("a tensor file");
            assert!(bytes(first) == bytes(second), "{first} and {second} differ in {file}");
        }
        let state = |checkpoint: &str| read_json(&self.path(checkpoint).join("state.json"));
        let (first, second) = (state(first), state(second));
        for part in ["position", "threads", "hyper_parameters"] {
            assert_eq!(first[part], second[part], "{part}");
        }
        assert_eq!(series(&first), series(&second));
        assert_eq!(first["history"]["positions"], second["history"]["positions"]);
    }
}

/// The history of a checkpoint by name, without the seconds.
fn series(state: &Value) -> Vec<(&str, &Value)> {
    let numbers = state["history"]["numbers"].as_array().expect("a list");
    let named = numbers.iter().map(|series| (series["name"].as_str().unwrap_or_default(), &series["values"]));
    let mut named: Vec<_> = named.filter(|(name, _)| !name.ends_with("_seconds")).collect();
    named.sort_by_key(|(name, _)| *name);
    named
}

pub fn read_json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_slice(&text).expect("the file is JSON")
}

/// A path as quoted text in TOML.
fn toml_path(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\")
}

/// Asserts that every check of a journal passed, and returns their names and the messages of refusals.
///
/// # Panics
///
/// When one did not, or there is none.
pub fn checks(journal: &[Value]) -> String {
    let checks: Vec<&Value> = journal.iter().filter(|line| line["check"].is_string()).collect();
    let failed: Vec<_> = checks.iter().filter(|line| line["passed"] != true).collect();
    assert!(!checks.is_empty() && failed.is_empty(), "{failed:#?}");
    let mut names = Vec::new();
    for line in checks {
        let refusal = line["detail"].as_str().filter(|detail| detail.contains(": "));
        let name = line["check"].as_str().unwrap_or_default();
        let line = refusal.map_or_else(|| name.to_owned(), |refusal| format!("{name}: {refusal}"));
        if !names.contains(&line) {
            names.push(line);
        }
    }
    names.join("\n")
}
