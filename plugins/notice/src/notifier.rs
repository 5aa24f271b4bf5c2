//! The callback that every notifier is: hooks become notices, and a queue takes them to where they go.

use std::time::Duration;

use plugin_api::event::{ArtifactPublished, At, Failed, Stopping, TrainEnd, Trigger};
use plugin_api::schemars::JsonSchema;
use plugin_api::serde::de::DeserializeOwned;
use plugin_api::{Callback, Creation, Dispatch, Error, Result, Run, When, plugin};

use crate::{Event, Notice, Queue, Watch};

/// A kind of notifier: its name, its options, and where its notices go.
pub trait Notify: Sized + Send + 'static {
    /// See [`Callback::KIND`].
    const KIND: &'static str;
    /// See [`Callback::SUMMARY`].
    const SUMMARY: &'static str;
    /// Said once when notices are dropped because the queue is full.
    const TOO_MANY: &'static str;
    /// What has happened to notices that are left when `drain_seconds` are over, as in `commands not finished`.
    const LEFT: &'static str;
    /// See [`Callback::Options`].
    type Options: DeserializeOwned + JsonSchema;

    /// Checks the options.
    ///
    /// # Errors
    ///
    /// Options that the schema allows and the notifier does not.
    fn new(options: Self::Options, creation: &Creation<'_>) -> Result<(Self, Settings)>;

    /// Starts the queue of `capacity` notices, unless the run is a trial.
    ///
    /// # Errors
    ///
    /// When the system cannot start a thread.
    fn start(self, capacity: usize) -> Result<Queue<Notice>>;
}

/// What a notifier's options say about its notices.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The events to report.
    pub events: Vec<Event>,
    /// How many notices may wait.
    pub queue: u16,
    /// How long the end of the run waits for them.
    pub drain: Duration,
    /// Whether a notice that is lost fails the run; then a full queue holds the callback up.
    pub required: bool,
}

/// A notifier as a callback.
pub struct Notifier<N> {
    watch: Watch,
    settings: Settings,
    /// Held here until `setup` moves it into the queue.
    target: Option<N>,
    /// `None` in a trial.
    queue: Option<Queue<Notice>>,
    /// Notices that found the queue full.
    left_out: usize,
}

#[plugin]
impl<N: Notify> Callback for Notifier<N> {
    const KIND: &'static str = N::KIND;
    const SUMMARY: &'static str = N::SUMMARY;
    // With nothing to say between start and end: a `when` cannot be empty.
    const WHEN: When = When { every: None, at: &["end"] };
    const DISPATCH: Dispatch = Dispatch::Background;
    const BY_DEFAULT: bool = false;
    type Options = N::Options;

    fn new(options: N::Options, creation: &Creation<'_>) -> Result<Self> {
        let (target, settings) = N::new(options, creation)?;
        if settings.queue == 0 {
            return Err(Error::new("`queue` must be more than 0"));
        }
        let watch = Watch::new(settings.events.clone())?;
        Ok(Self { watch, settings, target: Some(target), queue: None, left_out: 0 })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if let (true, Some(target)) = (self.watch.setup(run)?, self.target.take()) {
            self.queue = Some(target.start(usize::from(self.settings.queue))?);
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
        let Some(queue) = self.queue.take() else { return Ok(()) };
        let unfinished = queue.drain(self.settings.drain);
        if unfinished.left > 0 {
            let (left, limit, what) = (unfinished.left, self.settings.drain.as_secs_f64(), N::LEFT);
            plugin_api::tracing::warn!("{what} within the {limit} s of `drain_seconds`: {left}");
        }
        match unfinished.left + unfinished.failed + self.left_out {
            lost if self.settings.required && lost > 0 => {
                Err(Error::new(format!("notices not delivered, which `required` does not allow: {lost}")))
            }
            _ => Ok(()),
        }
    }
}

impl<N: Notify> Notifier<N> {
    fn send(&mut self, notice: Option<Notice>) {
        let (Some(queue), Some(notice)) = (&self.queue, notice) else { return };
        if self.settings.required {
            queue.push(notice);
        } else if !queue.offer(notice) {
            if self.left_out == 0 {
                plugin_api::tracing::warn!("{}", N::TOO_MANY);
            }
            self.left_out += 1;
        }
    }
}
