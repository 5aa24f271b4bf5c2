//! `webhook`: sends notices of a run to chats and servers.
//!
//! Events of the run are reported at once; `trigger` and `improved` follow the instance's `when`:
//!
//! ```toml
//! [[plugins]]
//! kind = "webhook"
//! when = { best = { val_loss = "min" } }
//! options = { format = "slack", url_env = "SLACK_URL", events = ["improved", "failed", "finished"] }
//! ```
//!
//! Notices wait in a bounded queue for a thread that sends them, so that no server delays the training. A failure is a
//! warning. Neither the URL nor the signing secret reaches a log, the console or the run folder.

mod delivery;
mod endpoint;
mod options;
mod payload;
mod secret;
mod signature;

use std::time::Duration;

use notice::{Notice, Queue, Template, Watch, seconds};
use plugin_api::event::{ArtifactPublished, At, Failed, Stopping, TrainEnd, Trigger};
use plugin_api::{Callback, Creation, Dispatch, Error, Kind, Result, Run, When, plugin};

pub use crate::options::Options;
pub use crate::payload::Format;

use crate::delivery::Delivery;
use crate::endpoint::Endpoint;
use crate::signature::Signer;

/// Sends notices to a URL.
pub struct Webhook {
    watch: Watch,
    /// Held here until `setup` moves it into the queue.
    delivery: Option<Delivery>,
    /// `None` in a trial.
    queue: Option<Queue<Notice>>,
    capacity: usize,
    drain: Duration,
    required: bool,
    /// Notices that found the queue full.
    left_out: usize,
}

#[plugin]
impl Callback for Webhook {
    const KIND: &'static str = "webhook";
    const SUMMARY: &'static str = "Sends notices of the run to chats and servers";
    // With nothing to say between start and end: a `when` cannot be empty.
    const WHEN: When = When { every: None, at: &["end"] };
    const DISPATCH: Dispatch = Dispatch::Background;
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let watch = Watch::new(options.events)?;
        let text = options.text.as_deref().map(Template::parse).transpose();
        let text = text.map_err(|error| error.context("`text`"))?;
        let timeout = seconds("timeout_seconds", options.timeout_seconds)?;
        let (backoff, drain) =
            (seconds("backoff_seconds", options.backoff_seconds)?, seconds("drain_seconds", options.drain_seconds)?);
        if options.queue == 0 || timeout.is_zero() {
            return Err(Error::new("`queue` and `timeout_seconds` must be more than 0"));
        }
        let url = secret::read("url", options.url_env.as_deref(), options.url_file.as_deref())?;
        let url = url.ok_or_else(|| {
            Error::new(
                "`url_env` or `url_file` must say where the URL is; it is a secret, so it does not belong in the run file",
            )
        })?;
        let endpoint = Endpoint::new(url)?;
        let key = secret::read("secret", options.secret_env.as_deref(), options.secret_file.as_deref())?;
        let signer = key.as_ref().map(Signer::new).transpose()?;
        let delivery = Delivery {
            agent: delivery::agent(&endpoint),
            endpoint,
            signer,
            format: options.format,
            text,
            timeout,
            retries: options.retries,
            backoff,
            warned: false,
            gone: false,
        };
        let (capacity, required) = (usize::from(options.queue), options.required);
        Ok(Self { watch, delivery: Some(delivery), queue: None, capacity, drain, required, left_out: 0 })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if let (true, Some(mut delivery)) = (self.watch.setup(run)?, self.delivery.take()) {
            if delivery.endpoint.is_exposed() {
                let place = &delivery.endpoint.place;
                plugin_api::tracing::warn!("the URL in {place} starts with `http://`: notices are sent unencrypted");
            }
            let work = move |notice: Notice, deadline: &_| delivery.deliver(&notice, deadline);
            self.queue = Some(Queue::start("webhook", self.capacity, work)?);
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
        let unfinished = queue.drain(self.drain);
        if unfinished.left > 0 {
            let (left, limit) = (unfinished.left, self.drain.as_secs_f64());
            plugin_api::tracing::warn!("notices not sent within the {limit} s of `drain_seconds`: {left}");
        }
        match unfinished.left + unfinished.failed + self.left_out {
            lost if self.required && lost > 0 => {
                Err(Error::new(format!("notices not delivered, which `required` does not allow: {lost}")))
            }
            _ => Ok(()),
        }
    }
}

impl Webhook {
    fn send(&mut self, notice: Option<Notice>) {
        let (Some(queue), Some(notice)) = (&self.queue, notice) else { return };
        if self.required {
            queue.push(notice);
        } else if !queue.offer(notice) {
            if self.left_out == 0 {
                plugin_api::tracing::warn!("notices come faster than they can be sent: some are dropped");
            }
            self.left_out += 1;
        }
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Webhook>()];
