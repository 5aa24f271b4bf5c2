//! Wrong: panics in a hook.

use plugin_api::event::{At, TrainEnd};
use plugin_api::{plugin, Callback, Creation, Kind, Result, Run};

/// Where it goes wrong.
#[plugin]
struct Options {
    /// `new`, or the name of an event: `setup`, `step_end`, `epoch_end`, `train_end`, `teardown`.
    hook: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { hook: "step_end".to_owned() }
    }
}

struct Panics {
    hook: String,
}

impl Panics {
    fn reach(&self, hook: &str) -> Result<()> {
        if self.hook == hook {
            panic!("it panics in `{hook}`");
        }
        Ok(())
    }
}

#[plugin]
impl Callback for Panics {
    const KIND: &'static str = "panics";
    const SUMMARY: &'static str = "Panics in the hook that its options name";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let callback = Self { hook: options.hook };
        callback.reach("new")?;
        Ok(callback)
    }

    fn on_setup(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.reach("setup")
    }

    fn on_step_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.reach("step_end")
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.reach("epoch_end")
    }

    fn on_train_end(&mut self, _: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        self.reach("train_end")
    }

    fn on_teardown(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.reach("teardown")
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Panics>()];
