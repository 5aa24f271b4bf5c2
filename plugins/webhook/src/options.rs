//! Options of `webhook`.

use notice::Event;
use plugin_api::plugin;

use crate::payload::Format;

/// Options of `webhook`.
///
/// There is none for the URL itself: who has it may post, and the run file is copied into the run folder. The patterns
/// refuse one that stands where its place should, before there is a folder to copy it to.
#[plugin]
pub struct Options {
    /// The environment variable that holds the URL.
    #[schemars(extend("pattern" = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub url_env: Option<String>,
    /// The file that holds the URL and nothing else; relative to the folder that the host was started in.
    #[schemars(extend("pattern" = "^(?!.*://)"))]
    pub url_file: Option<String>,
    /// What the server at the URL reads.
    pub format: Format,
    /// Of what to tell. `trigger` and `improved` come when the instance's `when` says so; without one, never before the end.
    pub events: Vec<Event>,
    /// The text, in place of a summary of the event. `{val_loss:.4}` stands for a metric with four decimals; `{run}`,
    /// `{run_folder}`, `{event}`, `{epoch}`, `{best_checkpoint}`, `{exports}`, `{error}` and others for what they say.
    pub text: Option<String>,
    /// The environment variable that holds the secret to sign with: `whsec_` and Base64.
    #[schemars(extend("pattern" = "^(?!whsec_)[A-Za-z_][A-Za-z0-9_]*$"))]
    pub secret_env: Option<String>,
    /// The file that holds this secret and nothing else.
    #[schemars(extend("pattern" = "^(?!whsec_)"))]
    pub secret_file: Option<String>,
    /// How long one attempt may take.
    pub timeout_seconds: f64,
    /// How often a notice is sent again that the server could not take.
    pub retries: u32,
    /// The wait before the first retry; each further one is twice as long, up to a minute.
    pub backoff_seconds: f64,
    /// How many notices may wait to be sent; more are left out.
    pub queue: u16,
    /// How long the end of the run may wait for notices that are not sent.
    pub drain_seconds: f64,
    /// Whether a notice that could not be delivered fails the run, as its `on_error` says. Then none is left out: the
    /// run waits until there is room in the queue.
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
