//! Wrong: ends the process, or never returns.

use std::time::Duration;

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Kind, Result, Run, plugin};

/// What it does.
#[plugin]
struct Options {
    /// `abort`, `exit` (with a code that says success) or `hang`.
    how: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { how: "abort".to_owned() }
    }
}

struct Crashes {
    how: String,
}

#[plugin]
impl Callback for Crashes {
    const KIND: &'static str = "crashes";
    const SUMMARY: &'static str = "Ends the process in `epoch_end`";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { how: options.how })
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        match self.how.as_str() {
            "exit" => std::process::exit(0),
            "hang" => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            _ => std::process::abort(),
        }
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Crashes>()];
