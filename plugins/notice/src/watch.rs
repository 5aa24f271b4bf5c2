//! Turns the hooks of a run into notices.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use plugin_api::event::{ArtifactPublished, At, Failed, Position, Stopping, TrainEnd, Trigger};
use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, Run};

use crate::event::Event;
use crate::notice::Notice;

/// The most characters of an error or a reason; chat messages allow a few thousand.
const LONGEST_DETAIL: usize = 2000;

/// The most exports in a notice, the latest ones; a run of many epochs may export at each.
const MOST_EXPORTS: usize = 20;

/// What the host says when a cause is a metric that improved.
const BEST: &str = "best ";

/// What the host says when the cause is the end of the training.
const END: &str = "end";

type Details = BTreeMap<&'static str, String>;

/// What a notifier knows of a run. Each hook of the notifier asks it for the notice to send, if any.
#[derive(Debug)]
pub struct Watch {
    wanted: Vec<Event>,
    /// Known from `setup` on.
    info: RunInfo,
    started: Option<Instant>,
    artifacts: BTreeMap<String, Vec<String>>,
    /// The last failure: the reason, when the run fails.
    failure: Option<Details>,
    stopping: Details,
}

impl Watch {
    /// Watches for these events.
    ///
    /// # Errors
    ///
    /// When there are none: such a notifier would do nothing.
    pub fn new(wanted: Vec<Event>) -> Result<Self> {
        if wanted.is_empty() {
            return Err(Error::new(
                "`events` is empty: list the events to report, as `events = [\"failed\", \"finished\"]`",
            ));
        }
        let (info, stopping) = (RunInfo::default(), Details::new());
        Ok(Self { wanted, info, started: None, artifacts: BTreeMap::new(), failure: None, stopping })
    }

    /// In `on_setup`: whether there will be any notices. A trial sends none.
    ///
    /// # Errors
    ///
    /// Those of every service.
    pub fn setup(&mut self, run: &Run<'_>) -> Result<bool> {
        self.info = run.info()?;
        Ok(!self.info.trial)
    }

    /// In `on_train_start`.
    ///
    /// # Errors
    ///
    /// Those of every service, here and below.
    pub fn train_start(&mut self, run: &Run<'_>, at: &At<'_>) -> Result<Option<Notice>> {
        self.started = Some(Instant::now());
        let resumed = self.info.resumed_from.clone().map(|path| ("resumed_from", path));
        self.notice(run, Event::Start, at, Details::from_iter(resumed))
    }

    /// In `on_trigger`. The trigger at the end is reported only if the end itself is not.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn trigger(&mut self, run: &Run<'_>, trigger: &Trigger<'_>) -> Result<Option<Notice>> {
        if trigger.cause == END && self.wanted.contains(&Event::Finished) {
            return Ok(None);
        }
        let mut details = Details::from([("cause", trigger.cause.to_string())]);
        let event = match trigger.cause.strip_prefix(BEST) {
            Some(metric) => {
                details.insert("metric", metric.to_owned());
                Event::Improved
            }
            None => Event::Trigger,
        };
        self.notice(run, event, trigger, details)
    }

    /// In `on_artifact`.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn artifact(&mut self, run: &Run<'_>, artifact: &ArtifactPublished<'_>) -> Result<Option<Notice>> {
        let path = Path::new(&self.info.folder).join(&*artifact.path).display().to_string();
        // Exports are added; a checkpoint replaces the one before.
        let is_export = artifact.kind == "export";
        let kind = if is_export { "exports".to_owned() } else { artifact.kind.to_string() };
        let paths = self.artifacts.entry(kind).or_default();
        paths.retain(|known| is_export && *known != path);
        paths.push(path.clone());
        paths.drain(..paths.len().saturating_sub(MOST_EXPORTS));
        let plugin = artifact.author.to_string();
        let details = Details::from([("artifact", artifact.kind.to_string()), ("path", path), ("plugin", plugin)]);
        self.notice(run, Event::Artifact, artifact, details)
    }

    /// In `on_stopping`: the end of the run reports who stopped it.
    pub fn stopping(&mut self, stopping: &Stopping<'_>) {
        self.stopping = Details::from([("plugin", stopping.by.to_string()), ("reason", clipped(&stopping.reason))]);
    }

    /// In `on_error`: the failure is reported if it fails the run.
    pub fn error(&mut self, failed: &Failed<'_>) {
        let (plugin, hook) = (failed.by.to_string(), failed.hook.to_string());
        self.failure = Some(Details::from([("plugin", plugin), ("hook", hook), ("error", clipped(&failed.message))]));
    }

    /// In `on_train_end`.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn train_end(&mut self, run: &Run<'_>, end: &TrainEnd<'_>) -> Result<Option<Notice>> {
        let event = Event::from(end.outcome);
        let details = match event {
            Event::Failed => self.failure.take().unwrap_or_else(|| {
                let error = clipped(&end.reason);
                Details::from([("plugin", "host".to_owned()), ("hook", String::new()), ("error", error)])
            }),
            Event::Stopped | Event::Interrupted => std::mem::take(&mut self.stopping),
            _ => Details::new(),
        };
        self.failure = None;
        self.notice(run, event, end, details)
    }

    /// In `on_teardown`: a run that fails before it trains has no other end.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn teardown(&mut self, run: &Run<'_>, at: &At<'_>) -> Result<Option<Notice>> {
        match self.failure.take() {
            Some(details) if self.started.is_none() => self.notice(run, Event::Failed, at, details),
            _ => Ok(None),
        }
    }

    fn notice(&self, run: &Run<'_>, event: Event, at: &Position, details: Details) -> Result<Option<Notice>> {
        if self.info.trial || !self.wanted.contains(&event) {
            return Ok(None);
        }
        Ok(Some(Notice {
            event,
            time: Timestamp::now(),
            run: self.info.name.clone(),
            run_folder: self.info.folder.clone(),
            epoch: at.epoch,
            epochs: self.info.epochs,
            step: at.global_step,
            steps: self.info.total_steps,
            seconds: self.started.map_or(0.0, |started| started.elapsed().as_secs_f64()),
            metrics: run.metrics()?,
            artifacts: self.artifacts.clone(),
            details,
        }))
    }
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(LONGEST_DETAIL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
