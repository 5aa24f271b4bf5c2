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

use notice::{Notice, Notifier, Notify, Queue, Settings, Template, seconds};
use plugin_api::{Creation, Error, Kind, Result, plugin};

pub use crate::options::Options;
pub use crate::payload::Format;

pub use crate::delivery::Delivery;
use crate::endpoint::Endpoint;
use crate::signature::Signer;

/// Sends notices to a URL.
pub type Webhook = Notifier<Delivery>;

impl Notify for Delivery {
    const KIND: &'static str = "webhook";
    const SUMMARY: &'static str = "Sends notices of the run to chats and servers";
    const TOO_MANY: &'static str = "notices come faster than they can be sent: some are dropped";
    const LEFT: &'static str = "notices not sent";
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<(Self, Settings)> {
        let text = options.text.as_deref().map(Template::parse).transpose();
        let text = text.map_err(|error| error.context("`text`"))?;
        let timeout = seconds("timeout_seconds", options.timeout_seconds)?;
        let (backoff, drain) =
            (seconds("backoff_seconds", options.backoff_seconds)?, seconds("drain_seconds", options.drain_seconds)?);
        if timeout.is_zero() {
            return Err(Error::new("`timeout_seconds` must be more than 0"));
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
        let Options { events, queue, required, .. } = options;
        Ok((delivery, Settings { events, queue, drain, required }))
    }

    fn start(mut self, capacity: usize) -> Result<Queue<Notice>> {
        if self.endpoint.is_exposed() {
            let place = &self.endpoint.place;
            plugin_api::tracing::warn!("the URL in {place} starts with `http://`: notices are sent unencrypted");
        }
        Queue::start("webhook", capacity, move |notice: Notice, deadline: &_| self.deliver(&notice, deadline))
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Webhook>()];
