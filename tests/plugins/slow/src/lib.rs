//! Wrong: sleeps in a hook of every step, and after every epoch.

use std::time::Duration;

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Kind, Result, Run, plugin};

/// How slow it is.
#[plugin]
struct Options {
    /// Milliseconds that each hook takes.
    milliseconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { milliseconds: 80 }
    }
}

struct Slow {
    pause: Duration,
}

#[plugin]
impl Callback for Slow {
    const KIND: &'static str = "slow";
    const SUMMARY: &'static str = "Sleeps on the training thread";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { pause: Duration::from_millis(options.milliseconds) })
    }

    fn on_step_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        std::thread::sleep(self.pause);
        Ok(())
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        std::thread::sleep(self.pause);
        Ok(())
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Slow>()];
