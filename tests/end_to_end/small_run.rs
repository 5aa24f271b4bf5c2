//! A run of a second: a small network on the digits, three steps an epoch, two batches an evaluation.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fixture::{
    TempDir, build_test_plugins, build_workspace_plugins, folder_of, host, lines, shown, temporary_folder,
    workspace_root,
};
use regex::Regex;
use serde_json::Value;

/// A run that is being set up. Its recorders write to one journal.
pub struct SmallRun {
    folder: TempDir,
    plugins: TempDir,
    sections: String,
    instances: String,
    arguments: Vec<String>,
}

/// A run that has ended, and its output.
pub struct Ran {
    /// The output of the command.
    pub output: Output,
    /// The run folder.
    pub out: PathBuf,
    folder: TempDir,
    plugins: TempDir,
}

impl SmallRun {
    /// Two epochs of three steps, with an evaluation each; only the named callbacks.
    pub fn new() -> Self {
        Self::with_libraries(&["recorder"])
    }

    /// As [`Self::new`], with these libraries in the plugin folder: test plugins or shipped ones.
    pub fn with_libraries(names: &[&str]) -> Self {
        let find = |name: &&str| {
            let test_plugin = build_test_plugins().get(*name);
            test_plugin.unwrap_or_else(|| &build_workspace_plugins()[*name]).as_path()
        };
        let sections = r#"
            [run]
            name = "small"
            seed = 7
            device = "cpu"
            threads = 1
            by_default = false

            [data]
            format = "csv"
            path = "[DATA]"
            header = false
            target = 64
            shape = [64]
            classes = 10
            normalize = "range"

            [data.splits]
            val = { fraction = 0.2, stratified = true }

            [model]
            layers = [
              { type = "linear", out_features = 16 },
              { type = "relu" },
              { type = "linear", out_features = 10 },
            ]

            [train]
            epochs = 2
            batch_size = 480
            loss = { type = "cross_entropy" }
            optimizer = { type = "adamw", learning_rate = 1e-2 }

            [eval]
            split = "val"
            metrics = ["accuracy"]
            batch_size = 256
        "#;
        let data = workspace_root().join("examples/digits/digits.csv.gz");
        Self {
            folder: temporary_folder(),
            plugins: folder_of(names.iter().map(find)),
            // Without indentation, as users write it: messages show its lines.
            sections: unindented(&sections.replace("[DATA]", &data.display().to_string())),
            instances: String::new(),
            arguments: Vec::new(),
        }
    }

    /// Declares a recorder: `entry` has lines of its `[[plugins]]`, `options` those of its options.
    pub fn recorder(self, name: &str, entry: &str, options: &str) -> Self {
        let journal = self.folder.path().join("journal.jsonl");
        let separator = if options.is_empty() { "" } else { ", " };
        let options = format!("options = {{ path = '{}'{separator}{options} }}", journal.display());
        self.instance(&format!("kind = 'recorder'\nname = '{name}'\n{}\n{options}", unindented(entry)))
    }

    /// Declares an instance: the lines of its `[[plugins]]`.
    pub fn instance(mut self, entry: &str) -> Self {
        write!(self.instances, "\n[[plugins]]\n{}\n", unindented(entry).trim()).expect("a text can be written to");
        self
    }

    /// Takes out `[eval]`.
    pub fn without_evaluation(mut self) -> Self {
        let at = self.sections.find("[eval]").expect("there is an evaluation");
        self.sections.truncate(at);
        self
    }

    /// Replaces a line of the run file.
    pub fn with(mut self, line: &str, other: &str) -> Self {
        assert!(self.sections.contains(line), "the run file has `{line}`");
        self.sections = self.sections.replacen(line, other, 1);
        self
    }

    /// Adds arguments to the command.
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Overrides a key.
    pub fn set(self, assignment: &str) -> Self {
        self.arguments(["--set", assignment])
    }

    /// The folder of plugins, for more files.
    pub fn plugins(&self) -> &Path {
        self.plugins.path()
    }

    /// The run file, once it is written, and the run folder.
    fn paths(&self) -> (PathBuf, PathBuf) {
        (self.folder.path().join("run.toml"), self.folder.path().join("out"))
    }

    /// The run folder.
    pub fn out(&self) -> PathBuf {
        self.paths().1
    }

    fn command(&self, out: &Path) -> Command {
        let (run_file, _) = self.paths();
        std::fs::write(&run_file, format!("{}{}", self.sections, self.instances)).expect("the run file can be written");
        let mut command = host();
        command.arg("run").arg(run_file).arg("--plugins").arg(self.plugins.path());
        command.args(&self.arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        if !self.arguments.iter().any(|argument| argument == "--try") {
            command.arg("--out").arg(out);
        }
        command
    }

    /// Runs it to its end.
    pub fn run(self) -> Ran {
        let out = self.out();
        self.run_in(out)
    }

    /// Runs it to its end in a run folder of another.
    pub fn run_in(self, out: PathBuf) -> Ran {
        let output = self.command(&out).output().expect("the host starts");
        Ran { out, ..self.ended(output) }
    }

    /// Starts it; [`Self::ended`] takes its output.
    pub fn start(&self) -> Child {
        self.start_with(|_| {})
    }

    /// As [`Self::start`], with a command that is `changed` before.
    pub fn start_with(&self, changed: impl FnOnce(&mut Command)) -> Child {
        let mut command = self.command(&self.out());
        changed(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        command.spawn().expect("the host starts")
    }

    /// Waits until the journal has a line of this event.
    ///
    /// # Panics
    ///
    /// When it does not come within a minute.
    pub fn wait_for(&self, event: &str) {
        let journal = self.folder.path().join("journal.jsonl");
        let wanted = format!("\"event\":\"{event}\"");
        for _ in 0..6000 {
            if std::fs::read_to_string(&journal).is_ok_and(|text| text.contains(&wanted)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("no `{event}` came");
    }

    /// Waits for the end of a run that was started.
    ///
    /// # Panics
    ///
    /// When the system cannot wait for it.
    pub fn wait(self, child: Child) -> Ran {
        let output = child.wait_with_output().expect("the host ends");
        self.ended(output)
    }

    /// The results of a run that was started.
    pub fn ended(self, output: Output) -> Ran {
        let (_, out) = self.paths();
        Ran { output, out, folder: self.folder, plugins: self.plugins }
    }
}

impl Ran {
    /// The exit code.
    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// What it wrote to stderr.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Code, stdout and stderr, without what differs between runs, and without the warning that nothing keeps the
    /// weights: these runs are watched, not kept.
    pub fn shown(&self) -> String {
        let root = workspace_root();
        let folders = [(self.plugins.path(), "[PLUGINS]"), (self.folder.path(), "[FOLDER]"), (root, "[ROOT]")];
        static TIMES: OnceLock<Regex> = OnceLock::new();
        let times = TIMES.get_or_init(|| {
            Regex::new(r"(?m)\d+\.\d+ s\b|^callbacks took .*\n|^warning: × nothing keeps the weights.*\n  hint: .*\n")
                .expect("a pattern")
        });
        times
            .replace_all(&shown(&self.output, &folders), |found: &regex::Captures<'_>| {
                if found[0].ends_with('\n') { String::new() } else { "[TIME] s".to_owned() }
            })
            .into_owned()
    }

    /// The same for a run that must succeed.
    ///
    /// # Panics
    ///
    /// When it did not, with its output.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code(), Some(0), "{}", self.shown());
        self
    }

    /// The journal's lines, of all recorders.
    pub fn journal(&self) -> Vec<Value> {
        let path = self.folder.path().join("journal.jsonl");
        if path.exists() { lines(&path) } else { Vec::new() }
    }

    /// The instances that got these events, in order: `a epoch_end`. No `events` means all.
    pub fn told(&self, events: &[&str]) -> Vec<String> {
        let wanted = |line: &&Value| events.is_empty() || events.contains(&text(line, "event"));
        self.journal()
            .iter()
            .filter(wanted)
            .map(|line| format!("{} {}", text(line, "instance"), text(line, "event")))
            .collect()
    }

    /// The events of one instance, in order, without their positions.
    pub fn events_of(&self, instance: &str) -> Vec<String> {
        let journal = self.journal();
        let of = journal.iter().filter(|line| text(line, "instance") == instance);
        of.map(|line| text(line, "event").to_owned()).collect()
    }

    /// The lines of one instance and event.
    pub fn lines_of(&self, instance: &str, event: &str) -> Vec<Value> {
        let is = |line: &Value| text(line, "instance") == instance && text(line, "event") == event;
        self.journal().into_iter().filter(is).collect()
    }

    /// The names of the files beside the run file.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the folder can be read");
        let mut names: Vec<String> =
            entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
        names.sort();
        names
    }

    /// `status.json`.
    pub fn status(&self) -> Value {
        let text = std::fs::read(self.out.join("status.json")).expect("there is a status");
        serde_json::from_slice(&text).expect("the status is JSON")
    }

    /// The events of one instance as a text for snapshots: a line a position, `epoch.step (global step)`, and for each
    /// event its data. No `events` means all.
    ///
    /// # Panics
    ///
    /// When none of them came: two empty lists must not count as equal.
    pub fn sequence(&self, instance: &str, events: &[&str]) -> String {
        let mut sequence = String::new();
        let mut at = String::new();
        let wanted = |line: &&Value| {
            text(line, "instance") == instance && (events.is_empty() || events.contains(&text(line, "event")))
        };
        for line in self.journal().iter().filter(wanted) {
            let here = format!("{}.{} ({})", line["epoch"], line["step"], line["global_step"]);
            if here != at {
                let end = if sequence.is_empty() { "" } else { "\n" };
                write!(sequence, "{end}{here}:").expect("a text can be written to");
                at = here;
            }
            write!(sequence, " {}", text(line, "event")).expect("a text can be written to");
            if let Some(texts) = line["texts"].as_object() {
                let texts: Vec<String> = texts.values().map(plain).collect();
                write!(sequence, "[{}]", texts.join(", ")).expect("a text can be written to");
            }
        }
        assert!(!sequence.is_empty(), "`{instance}` was told of none of {events:?}: {}", self.shown());
        sequence
    }
}

/// Asks for the status again and again until `is` holds for it.
///
/// # Panics
///
/// When that takes longer than a minute and a half.
pub fn wait_for_status(status: impl Fn() -> Value, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let status = status();
        if is(&status) {
            return status;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "no {what}: {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A text of a journal's line.
pub fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line[key].as_str().unwrap_or_default()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn unindented(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim_start())).collect::<String>()
}
