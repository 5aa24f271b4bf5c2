//! `command`: runs your command when something happens to a run.
//!
//! ```toml
//! [[plugins]]
//! kind = "command"
//! when = { best = { val_loss = "min" } }
//! options = { command = ["notify-send", "{title}", "val_loss {val_loss:.4}"] }
//! ```
//!
//! Commands wait in a bounded queue for a thread that runs one at a time, so that none delays the training. A command
//! that fails or takes too long is a warning.
//!
//! # What a command gets
//!
//! `{…}` in its arguments stands for a field of [`notice::Notice::field`]. The environment has the same fields:
//! `HOST_EVENT`, `HOST_TITLE`, `HOST_SUMMARY`, `HOST_RUN`, `HOST_RUN_FOLDER`, `HOST_TIME`, `HOST_EPOCH`, `HOST_EPOCHS`,
//! `HOST_STEP`, `HOST_STEPS`, `HOST_SECONDS`; those of a single event, such as `HOST_ERROR`, `HOST_PLUGIN`,
//! `HOST_REASON`, `HOST_PATH`; the latest artifacts, as `HOST_BEST_CHECKPOINT`, `HOST_EXPORTS`; and each metric, as
//! `HOST_METRIC_VAL_LOSS`. Letters are upper-case; any character that is neither a letter nor a digit becomes `_`.

mod environment;
mod process;

use notice::{Event, Notice, Notifier, Notify, Queue, Settings, Template, seconds};
use plugin_api::{Creation, Error, Kind, Result, plugin};

pub use crate::process::Program;

/// Options of `command`.
#[plugin]
pub struct Options {
    /// The program and its arguments. In each, `{val_loss:.4}` stands for a metric with four decimals. Other fields are
    /// `{event}`, `{title}`, `{run}`, `{run_folder}`, `{epoch}`, `{best_checkpoint}`, `{exports}` and `{error}`. The
    /// environment has the same fields: `HOST_METRIC_VAL_LOSS`, `HOST_EVENT`, `HOST_RUN_FOLDER`, ….
    pub command: Vec<String>,
    /// Whether the first element is a script for `sh`, and the others are its `$1`, `$2`, …. Fields in a script are not
    /// replaced: it reads the environment.
    pub shell: bool,
    /// When to run it. `trigger` and `improved` follow the instance's `when`; without a `when`, they never occur.
    pub events: Vec<Event>,
    /// The time limit of one command; after it, the command and everything that it started are killed.
    pub timeout_seconds: f64,
    /// How many commands may wait; further ones are dropped.
    pub queue: u16,
    /// How long the end of the run waits for unfinished commands.
    pub drain_seconds: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            shell: false,
            events: vec![
                Event::Trigger,
                Event::Improved,
                Event::Stopped,
                Event::Failed,
                Event::Interrupted,
                Event::Finished,
            ],
            timeout_seconds: 60.0,
            queue: 64,
            drain_seconds: 60.0,
        }
    }
}

/// Runs the command.
pub type Command = Notifier<Program>;

impl Notify for Program {
    const KIND: &'static str = "command";
    const SUMMARY: &'static str = "Runs your command when something happens to the run";
    const TOO_MANY: &'static str = "commands take longer than the time between their events: some are dropped";
    const LEFT: &'static str = "commands not finished";
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<(Self, Settings)> {
        let timeout = seconds("timeout_seconds", options.timeout_seconds)?;
        let drain = seconds("drain_seconds", options.drain_seconds)?;
        if timeout.is_zero() {
            return Err(Error::new("`timeout_seconds` must be more than 0"));
        }
        let Some((first, arguments)) = options.command.split_first().filter(|(first, _)| !first.is_empty()) else {
            return Err(Error::new("`command` must say what to run, as `command = [\"notify-send\", \"{title}\"]`"));
        };
        let parse = |argument: &String| Template::parse(argument).map_err(|error| error.context("`command`"));
        let arguments = arguments.iter().map(parse).collect::<Result<_>>()?;
        let program = if options.shell {
            Program::script(creation.instance, first, arguments, timeout)?
        } else {
            Program::new(creation.instance, first, arguments, timeout)
        };
        let Options { events, queue, .. } = options;
        Ok((program, Settings { events, queue, drain, required: false }))
    }

    fn start(self, capacity: usize) -> Result<Queue<Notice>> {
        Queue::start("command", capacity, move |notice: Notice, deadline: &_| self.run(&notice, deadline))
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Command>()];
