//! A run on data of a test's own.

use std::process::{Command, Output};

use fixture::{TempDir, build_workspace_plugins, folder_of, host, lines, shown, temporary_folder, workspace_root};
use serde_json::Value;

/// The rest of every run file, after `[data]`.
pub const REST: &str = r#"
[model]
layers = [
  { type = "flatten" },
  { type = "linear", out_features = 16 },
  { type = "relu" },
  { type = "linear", out_features = 10 },
]

[train]
epochs = 2
batch_size = 200
loss = { type = "cross_entropy" }
metrics = ["accuracy"]
optimizer = { type = "adamw", learning_rate = 1e-2 }

[eval]
metrics = ["accuracy"]
"#;

/// Files and what is trained on them.
pub struct DataRun {
    pub folder: TempDir,
}

impl DataRun {
    pub fn new() -> Self {
        let folder = temporary_folder();
        std::fs::copy(workspace_root().join("examples/digits/digits.csv.gz"), folder.path().join("digits.csv.gz"))
            .expect("the digits are there");
        Self { folder }
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("the folder is made");
        std::fs::write(path, content).expect("the file is written");
        self
    }

    /// Runs with this `[data]`; the run folder is `name`.
    pub fn run(&self, name: &str, data: &str, arguments: &[&str]) -> Output {
        self.run_with(name, data, REST, arguments)
    }

    /// The same with another `rest` of the run file.
    pub fn run_with(&self, name: &str, data: &str, rest: &str, arguments: &[&str]) -> Output {
        let run_file =
            format!("[run]\nname = \"data\"\nseed = 5\nthreads = 1\ndevice = \"cpu\"\n\n[data]\n{data}\n{rest}");
        self.write("run.toml", run_file);
        let plugins = ["standard", "checkpoint"].map(|name| build_workspace_plugins()[name].as_path());
        let plugins = folder_of(plugins);
        let mut command = host();
        command
            .current_dir(self.folder.path())
            .args(["run", "run.toml", "--out", name, "--plugins"])
            .arg(plugins.path());
        command.args(["--set", "run.by_default=false", "--plugin", "json-lines"]).args(arguments);
        command.output().expect("the host starts")
    }

    /// The metrics of a run that must succeed, without times.
    pub fn metrics(&self, name: &str, data: &str) -> Vec<Value> {
        let output = self.run(name, data, &[]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let mut lines = lines(&self.folder.path().join(name).join("metrics.jsonl"));
        for line in &mut lines {
            line.as_object_mut().expect("an object").retain(|key, _| !key.ends_with("_seconds"));
        }
        lines
    }

    /// The message of a run that cannot start.
    pub fn refusal(&self, data: &str) -> String {
        let output = self.run("refused", data, &[]);
        assert!(!self.folder.path().join("refused").exists(), "nothing was created");
        shown(&output, &[(self.folder.path(), "[FOLDER]")])
    }

    /// Runs a program in Python with the packages of `tests/requirements.txt`; false, with a message, without them.
    pub fn python(&self, program: &str) -> bool {
        let Some(python) = fixture::python() else { return false };
        let output = Command::new(python).args(["-c", program]).current_dir(self.folder.path()).output();
        let output = output.expect("Python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        true
    }
}
