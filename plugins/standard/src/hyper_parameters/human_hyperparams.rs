//! `human-hyperparams`: sets what a person writes into a file during the run, as tensorpack's `HumanHyperParamSetter` does.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use plugin_api::event::{At, Trigger};
use plugin_api::{Callback, Creation, Error, Ranks, Result, Run, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

use super::hyper_file::{self, Line};
use super::told::{Told, run_folder};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Options of `human-hyperparams`.
#[plugin]
pub(crate) struct Options {
    /// The file, relative to the run folder. It is read when it is there: a line `learning_rate: 0.001` sets the
    /// hyper-parameter in each parameter group that has it, `head.learning_rate: 0.01` in the group `head`. `#` begins a
    /// comment.
    file: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { file: "hyper.txt".to_owned() }
    }
}

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// What the file said last, by group and hyper-parameter. What the file still says is not set again, so that what other
    /// callbacks set afterwards stays.
    said: BTreeMap<String, BTreeMap<String, f64>>,
}

pub(crate) struct HumanHyperparams {
    file: String,
    /// The file in the run folder.
    path: PathBuf,
    /// In a run of several ranks, rank zero reads the file for all.
    told: Option<Told>,
    state: State,
    /// The content that was read last by this process, so that each content is read, and complained about, once.
    read: Option<Content>,
}

/// What is at the file's path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Content {
    Missing,
    Unreadable(String),
    Text(String),
}

#[plugin]
impl Callback for HumanHyperparams {
    const KIND: &'static str = "human-hyperparams";
    const SUMMARY: &'static str = "Sets the hyper-parameters that a person writes into a file during the run";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.file.is_empty() {
            return Err(Error::new("`file` is empty: name a file in the run folder, such as `hyper.txt`"));
        }
        Ok(Self { file: options.file, path: PathBuf::new(), told: None, state: State::default(), read: None })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        self.path = run_folder(&info).join(&self.file);
        self.told = Told::of_run(&info)?;
        Ok(())
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.state)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        let content = match &mut self.told {
            Some(told) => told.tell(run, || read(&self.path))?,
            None => read(&self.path),
        };
        if self.read.as_ref() == Some(&content) {
            return Ok(());
        }
        match &content {
            // A person who deletes a line and writes it again wants it to be set again.
            Content::Missing => self.state.said.clear(),
            Content::Unreadable(reason) => {
                plugin_api::tracing::warn!("`{}` cannot be read: {reason}; nothing is set", self.file);
            }
            Content::Text(text) => self.obey(run, text)?,
        }
        self.read = Some(content);
        Ok(())
    }
}

/// Everything that a file can be is a content: no file ends a run.
fn read(path: &Path) -> Content {
    let read = || -> std::io::Result<Content> {
        let metadata = std::fs::metadata(path)?;
        // Opening a pipe would wait for a writer.
        if !metadata.is_file() {
            return Ok(Content::Unreadable("it is not a file".to_owned()));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Ok(Content::Unreadable(format!("it is larger than {} KiB", LARGEST / 1024)));
        }
        Ok(Content::Text(String::from_utf8_lossy(&bytes).into_owned()))
    };
    match read() {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => Content::Missing,
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

impl HumanHyperparams {
    /// Sets what the file says now and did not say before, and warns of each line that is wrong.
    fn obey(&mut self, run: &mut Run<'_>, text: &str) -> Result<()> {
        let groups = run.hyper_parameters()?;
        let (mut of_all, mut of_groups): (Vec<Line>, Vec<Line>) = (Vec::new(), Vec::new());
        for line in hyper_file::lines(text) {
            match line {
                Ok(line) if line.group.is_none() => of_all.push(line),
                Ok(line) => of_groups.push(line),
                Err((number, reason)) => self.warn(number, &reason),
            }
        }
        // A line about one group goes before one about all, wherever it stands.
        let mut says: BTreeMap<String, BTreeMap<String, (f64, usize)>> = BTreeMap::new();
        for line in of_all.into_iter().chain(of_groups) {
            let of_line = groups.iter().filter(|group| line.group.as_ref().is_none_or(|name| *name == group.name));
            let mut having = of_line.filter(|group| group.values.contains_key(&line.name)).peekable();
            if having.peek().is_none() {
                // There is none to set, so that this only fetches the host's error, which names the nearest ones.
                if let Err(error) = run.set_hyper_parameter(line.group.as_deref(), &line.name, line.value) {
                    self.warn(line.number, error.message());
                }
            }
            for group in having {
                let values = says.entry(group.name.clone()).or_default();
                values.insert(line.name.clone(), (line.value, line.number));
            }
        }
        let said = std::mem::take(&mut self.state.said);
        for (group, values) in says {
            for (name, (value, number)) in values {
                if said.get(&group).and_then(|values| values.get(&name)) != Some(&value) {
                    let shown = match groups.len() {
                        1 => format!("`{name}`"),
                        _ => format!("`{name}` of the group `{group}`"),
                    };
                    match run.set_hyper_parameter(Some(&group), &name, value) {
                        Ok(()) => {
                            run.console_line(&format!("{shown} is {value} from now on, as `{}` says", self.file))?
                        }
                        Err(error) => self.warn(number, error.message()),
                    }
                }
                self.state.said.entry(group.clone()).or_default().insert(name, value);
            }
        }
        Ok(())
    }

    fn warn(&self, number: usize, reason: &str) {
        plugin_api::tracing::warn!("`{}`, line {number}: {reason}; this line sets nothing", self.file);
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    fn host() -> FakeHost {
        let mut host = FakeHost::new::<HumanHyperparams>(json!({})).unwrap();
        for group in ["body", "head"] {
            host.put_hyper_parameter(group, "learning_rate", 1.0);
        }
        host.put_hyper_parameter("head", "weight_decay", 0.01);
        host.setup().unwrap();
        host
    }

    /// The learning rates of both groups after a trigger with this file.
    fn trigger(host: &mut FakeHost, text: &str) -> [f64; 2] {
        std::fs::write(host.folder().join("hyper.txt"), text).unwrap();
        host.trigger("epoch").unwrap();
        rates(host)
    }

    fn rates(host: &FakeHost) -> [f64; 2] {
        ["body", "head"].map(|group| host.hyper_parameter_of(group, "learning_rate").unwrap())
    }

    #[test]
    fn without_a_file_nothing_is_set() {
        let mut host = host();
        host.trigger("epoch").unwrap();
        assert_eq!((rates(&host), host.logs().len(), host.lines().len()), ([1.0, 1.0], 0, 0));
    }

    #[test]
    fn lines_set_all_groups_or_one_with_comments_and_blank_lines_between() {
        let mut host = host();
        let text = "\u{feff}# slower\r\n\r\n  head.learning_rate : 0.5  # the new layers\r\nlearning_rate: 0.25\n\n";
        assert_eq!(trigger(&mut host, text), [0.25, 0.5]);
        assert_eq!(host.logs(), [""; 0]);
        assert_eq!(host.lines()[0], "`learning_rate` of the group `body` is 0.25 from now on, as `hyper.txt` says");
    }

    #[test]
    fn a_bad_line_is_named_and_the_rest_counts() {
        let mut host = host();
        let text = "learning_rat: 0.5\nlearning_rate 0.5\nweight_decay: much\nhed.learning_rate: 1\nlearning_rate: nan\n\
                    learning_rate: 0.25\nlearning_rate: 0.75\n";
        assert_eq!(trigger(&mut host, text), [0.25, 0.25]);
        let mut logs = host.logs().to_vec();
        logs.sort();
        assert_eq!(
            logs,
            [
                "`hyper.txt`, line 1: there is no hyper-parameter `learning_rat`; did you mean `learning_rate`?",
                "`hyper.txt`, line 2: it is not `name: value`",
                "`hyper.txt`, line 3: `much` is not a number",
                "`hyper.txt`, line 4: there is no parameter group `hed`; did you mean `head`?",
                "`hyper.txt`, line 5: `nan` is not a finite number",
                "`hyper.txt`, line 7: line 6 has set `learning_rate` already",
            ]
            .map(|line| format!("WARN {line}; this line sets nothing"))
        );
        // They are not named again while the file is the same.
        host.trigger("epoch").unwrap();
        assert_eq!(host.logs().len(), 6);
    }

    #[test]
    fn what_the_host_refuses_is_a_warning() {
        let mut host = host();
        host.fail(plugin_api::ServiceKind::HYPER_PARAMETER_SET, "`learning_rate` must be at least 0");
        assert_eq!(trigger(&mut host, "body.learning_rate: -1"), [1.0, 1.0]);
        let warning = "WARN `hyper.txt`, line 1: `learning_rate` must be at least 0; this line sets nothing";
        assert_eq!(host.logs(), [warning]);
    }

    #[test]
    fn a_value_is_set_only_when_the_file_says_another() {
        let mut host = host();
        trigger(&mut host, "learning_rate: 0.5");
        host.put_hyper_parameter("body", "learning_rate", 0.1);
        assert_eq!(trigger(&mut host, "learning_rate: 0.5 # as before"), [0.1, 0.5]);
        assert_eq!(trigger(&mut host, "learning_rate: 0.4"), [0.4, 0.4]);
        // A change for all does not undo what a line says of one group.
        assert_eq!(trigger(&mut host, "head.learning_rate: 0.3\nlearning_rate: 0.4"), [0.4, 0.3]);
        assert_eq!(trigger(&mut host, "head.learning_rate: 0.3\nlearning_rate: 0.2"), [0.2, 0.3]);
    }

    #[test]
    fn a_file_that_was_away_counts_anew() {
        let mut host = host();
        trigger(&mut host, "learning_rate: 0.5");
        std::fs::remove_file(host.folder().join("hyper.txt")).unwrap();
        host.trigger("epoch").unwrap();
        host.put_hyper_parameter("body", "learning_rate", 0.1);
        assert_eq!(trigger(&mut host, "learning_rate: 0.5"), [0.5, 0.5]);
    }

    #[test]
    fn after_a_resume_the_same_file_sets_nothing() {
        let mut first = host();
        trigger(&mut first, "learning_rate: 0.5");
        let mut resumed = host();
        resumed.load_state(&first.save_state().unwrap()).unwrap();
        assert_eq!(trigger(&mut resumed, "learning_rate: 0.5"), [1.0, 1.0]);
        assert_eq!(trigger(&mut resumed, "learning_rate: 0.25"), [0.25, 0.25]);
    }

    #[test]
    fn what_is_no_text_file_is_a_warning() {
        let mut host = host();
        let path = host.folder().join("hyper.txt");
        std::fs::create_dir(&path).unwrap();
        host.trigger("epoch").unwrap();
        host.trigger("epoch").unwrap();
        assert_eq!(host.logs(), ["WARN `hyper.txt` cannot be read: it is not a file; nothing is set"]);
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, b"\xff\xfe\x00: 1\nlearning_rate: 0.5").unwrap();
        host.trigger("epoch").unwrap();
        assert_eq!(rates(&host), [0.5, 0.5]);
        let large = "#".repeat(LARGEST as usize + 1);
        assert_eq!(trigger(&mut host, &large), [0.5, 0.5]);
        assert!(host.logs().last().unwrap().ends_with("it is larger than 64 KiB; nothing is set"), "{:?}", host.logs());
    }

    #[test]
    fn an_empty_name_of_the_file_is_refused() {
        assert!(FakeHost::new::<HumanHyperparams>(json!({ "file": "" })).is_err());
    }
}
