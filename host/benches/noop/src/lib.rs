//! Callbacks that do nothing, so that only the host is measured.
//!
//! The environment variable `NOOP_KIND`, read at compile time, names the kind, so that one source makes as many
//! different libraries as a measurement loads. Without it, the library also has the kinds that measure the stall of
//! a checkpoint.

use plugin_api::event::{At, Checkpoint, Trigger};
use plugin_api::protocol::{Control, TensorSet};
use plugin_api::{Callback, Creation, Dispatch, Error, Kind, Need, NoOptions, Result, Run, When, plugin};

#[plugin]
const KINDS: &[Kind] = match option_env!("NOOP_KIND") {
    Some(_) => &[Kind::of::<Noop>()],
    None => &[Kind::of::<Noop>(), Kind::of::<Marker>(), Kind::of::<Reader>(), Kind::of::<ParameterReader>()],
};

/// Every event of a step, and the end of the epoch, which the log times.
struct Noop;

#[plugin]
impl Callback for Noop {
    const KIND: &'static str = match option_env!("NOOP_KIND") {
        Some(kind) => kind,
        None => "noop",
    };
    const SUMMARY: &'static str = "Does nothing at every event of a step";

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_step_start(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        Ok(())
    }

    fn on_gradients(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        Ok(())
    }

    fn on_step_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        Ok(())
    }

    fn on_epoch_trained(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        Ok(())
    }
}

/// Marks on the host's screen when a step starts and ends, and requests a checkpoint when it is triggered.
struct Marker;

#[plugin]
impl Callback for Marker {
    const KIND: &'static str = "marker";
    const SUMMARY: &'static str = "Marks the steps on the console and asks for checkpoints";
    const BY_DEFAULT: bool = false;
    const WHEN: When = When { every: Some("2 steps"), at: &[] };

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        run.console_line("step_start")
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        run.console_line("step_end")
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        run.request(Control::Checkpoint, "to measure it")
    }
}

/// In the background, with a copy of the training state that it does not use.
struct Reader;

#[plugin]
impl Callback for Reader {
    const KIND: &'static str = "reader";
    const SUMMARY: &'static str = "Gets a copy of the training state and does not write it";
    const BY_DEFAULT: bool = false;
    const DISPATCH: Dispatch = Dispatch::Background;
    const NEEDS: &'static [Need] = &[Need::TRAINING_STATE];

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_checkpoint(&mut self, _: &mut Run<'_>, _: &Checkpoint<'_>) -> Result<()> {
        Ok(())
    }
}

/// Reads all parameters when it is triggered, and looks at the last element.
struct ParameterReader;

#[plugin]
impl Callback for ParameterReader {
    const KIND: &'static str = "parameter-reader";
    const SUMMARY: &'static str = "Reads the parameters";
    const BY_DEFAULT: bool = false;

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        let tensors = run.tensors(TensorSet::Parameters)?;
        for tensor in &tensors {
            if tensor.as_slice::<f32>()?.last() != Some(&1.0) {
                return Err(Error::new("it is another tensor"));
            }
        }
        Ok(())
    }
}
