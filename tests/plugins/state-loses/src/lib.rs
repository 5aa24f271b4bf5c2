//! Wrong: one kind forgets a part of its state when it is loaded, one saves state and cannot load it.

use plugin_api::event::At;
use plugin_api::{plugin, Callback, Creation, Kind, NoOptions, Result, Run};

/// Saves two counts and loads one.
struct Forgets {
    epochs: u8,
    steps: u8,
}

#[plugin]
impl Callback for Forgets {
    const KIND: &'static str = "state-loses";
    const SUMMARY: &'static str = "Forgets a part of its state";
    const BY_DEFAULT: bool = false;

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { epochs: 0, steps: 0 })
    }

    fn on_step_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.steps = self.steps.wrapping_add(1);
        Ok(())
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.epochs = self.epochs.wrapping_add(1);
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        Ok(vec![self.epochs, self.steps])
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.epochs = state.first().copied().unwrap_or(0);
        Ok(())
    }
}

/// Saves what it never loads.
struct SavesOnly;

#[plugin]
impl Callback for SavesOnly {
    const KIND: &'static str = "state-saved-only";
    const SUMMARY: &'static str = "Saves state that it cannot load";
    const BY_DEFAULT: bool = false;

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        Ok(vec![1])
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Forgets>(), Kind::of::<SavesOnly>()];
