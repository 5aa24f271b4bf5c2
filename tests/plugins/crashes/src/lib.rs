//! Wrong: ends the process, or never returns.

use std::time::Duration;

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Kind, Result, Run, plugin};

/// What it does.
#[plugin]
struct Options {
    /// `abort`, `segfault`, `exit` (with a code that says success) or `hang`.
    how: String,
    /// In which epoch.
    epoch: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { how: "abort".to_owned(), epoch: 1 }
    }
}

struct Crashes {
    how: String,
    epoch: u64,
}

#[plugin]
impl Callback for Crashes {
    const KIND: &'static str = "crashes";
    const SUMMARY: &'static str = "Ends the process in `epoch_end`";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { how: options.how, epoch: options.epoch })
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if event.epoch < self.epoch {
            return Ok(());
        }
        match self.how.as_str() {
            "exit" => std::process::exit(0),
            "hang" => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            "segfault" => {
                // SAFETY: none: this is the fault.
                unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() };
                Ok(())
            }
            _ => std::process::abort(),
        }
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Crashes>()];
