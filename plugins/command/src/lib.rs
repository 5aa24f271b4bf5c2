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

use std::time::Duration;

use notice::{Event, Notice, Queue, Template, Watch, seconds};
use plugin_api::event::{ArtifactPublished, At, Failed, Stopping, TrainEnd, Trigger};
use plugin_api::{Callback, Creation, Dispatch, Error, Kind, Result, Run, When, plugin};

use crate::process::Program;

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
pub struct Command {
    watch: Watch,
    /// Held here until `setup` moves it into the queue.
    program: Option<Program>,
    /// `None` in a trial.
    queue: Option<Queue<Notice>>,
    capacity: usize,
    drain: Duration,
    left_out: usize,
}

#[plugin]
impl Callback for Command {
    const KIND: &'static str = "command";
    const SUMMARY: &'static str = "Runs your command when something happens to the run";
    // With nothing to say between start and end: a `when` cannot be empty.
    const WHEN: When = When { every: None, at: &["end"] };
    const DISPATCH: Dispatch = Dispatch::Background;
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        let watch = Watch::new(options.events)?;
        let timeout = seconds("timeout_seconds", options.timeout_seconds)?;
        let drain = seconds("drain_seconds", options.drain_seconds)?;
        if options.queue == 0 || timeout.is_zero() {
            return Err(Error::new("`queue` and `timeout_seconds` must be more than 0"));
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
        let capacity = usize::from(options.queue);
        Ok(Self { watch, program: Some(program), queue: None, capacity, drain, left_out: 0 })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if let (true, Some(program)) = (self.watch.setup(run)?, self.program.take()) {
            let work = move |notice: Notice, deadline: &_| program.run(&notice, deadline);
            self.queue = Some(Queue::start("command", self.capacity, work)?);
        }
        Ok(())
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, at: &At<'_>) -> Result<()> {
        let notice = self.watch.train_start(run, at)?;
        self.send(notice);
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, trigger: &Trigger<'_>) -> Result<()> {
        let notice = self.watch.trigger(run, trigger)?;
        self.send(notice);
        Ok(())
    }

    fn on_artifact(&mut self, run: &mut Run<'_>, artifact: &ArtifactPublished<'_>) -> Result<()> {
        let notice = self.watch.artifact(run, artifact)?;
        self.send(notice);
        Ok(())
    }

    fn on_stopping(&mut self, _: &mut Run<'_>, stopping: &Stopping<'_>) -> Result<()> {
        self.watch.stopping(stopping);
        Ok(())
    }

    fn on_error(&mut self, _: &mut Run<'_>, failed: &Failed<'_>) -> Result<()> {
        self.watch.error(failed);
        Ok(())
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, end: &TrainEnd<'_>) -> Result<()> {
        let notice = self.watch.train_end(run, end)?;
        self.send(notice);
        Ok(())
    }

    fn on_teardown(&mut self, run: &mut Run<'_>, at: &At<'_>) -> Result<()> {
        let notice = self.watch.teardown(run, at)?;
        self.send(notice);
        if let Some(queue) = self.queue.take() {
            let left = queue.drain(self.drain).left;
            if left > 0 {
                let limit = self.drain.as_secs_f64();
                plugin_api::tracing::warn!("commands not finished within the {limit} s of `drain_seconds`: {left}");
            }
        }
        Ok(())
    }
}

impl Command {
    fn send(&mut self, notice: Option<Notice>) {
        let (Some(queue), Some(notice)) = (&self.queue, notice) else { return };
        if !queue.offer(notice) {
            if self.left_out == 0 {
                plugin_api::tracing::warn!("commands take longer than the time between their events: some are dropped");
            }
            self.left_out += 1;
        }
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Command>()];
