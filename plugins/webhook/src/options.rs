//! Options of `webhook`.

use notice::Event;
use plugin_api::plugin;

use crate::payload::Format;

/// Options of `webhook`.
///
/// None of them is the URL itself: whoever has it can post, and the run file is copied into the run folder. The
/// patterns reject a URL in place of its location, before there is a folder to copy it to.
#[plugin]
pub struct Options {
    /// The environment variable that contains the URL.
    #[schemars(extend("pattern" = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub url_env: Option<String>,
    /// The file that contains only the URL; relative to the folder that the host was started in.
    #[schemars(extend("pattern" = "^(?!.*://)"))]
    pub url_file: Option<String>,
    /// The format that the server at the URL expects.
    pub format: Format,
    /// The events to report. `trigger` and `improved` follow the instance's `when`; without a `when`, they never occur.
    pub events: Vec<Event>,
    /// The text, in place of a summary of the event. `{val_loss:.4}` stands for a metric with four decimals. Other
    /// fields are `{run}`, `{run_folder}`, `{event}`, `{epoch}`, `{best_checkpoint}`, `{exports}` and `{error}`.
    pub text: Option<String>,
    /// The environment variable that contains the signing secret: `whsec_` and Base64.
    #[schemars(extend("pattern" = "^(?!whsec_)[A-Za-z_][A-Za-z0-9_]*$"))]
    pub secret_env: Option<String>,
    /// The file that contains only this secret.
    #[schemars(extend("pattern" = "^(?!whsec_)"))]
    pub secret_file: Option<String>,
    /// The time limit of one attempt.
    pub timeout_seconds: f64,
    /// How often a notice is retried that the server could not accept.
    pub retries: u32,
    /// The wait before the first retry; it doubles with each further one, up to a minute.
    pub backoff_seconds: f64,
    /// How many notices may wait to be sent; further ones are dropped.
    pub queue: u16,
    /// How long the end of the run waits for unsent notices.
    pub drain_seconds: f64,
    /// Whether an undelivered notice fails the run, as its `on_error` says. Then none is dropped: the run waits until
    /// the queue has room.
    pub required: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url_env: None,
            url_file: None,
            format: Format::Generic,
            events: vec![
                Event::Start,
                Event::Trigger,
                Event::Improved,
                Event::Stopped,
                Event::Failed,
                Event::Interrupted,
                Event::Finished,
            ],
            text: None,
            secret_env: None,
            secret_file: None,
            timeout_seconds: 10.0,
            retries: 5,
            backoff_seconds: 1.0,
            queue: 64,
            drain_seconds: 15.0,
            required: false,
        }
    }
}
