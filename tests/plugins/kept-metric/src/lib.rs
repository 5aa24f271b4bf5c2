//! Well-behaved: reads and puts a metric, and counts epochs over a resume. Kept as a binary in `tests/kept`: this source
//! stays as it was when the binary was built.

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Error, Kind, Result, Run, decode_state, encode_state, plugin};

/// What a run file may say.
#[plugin]
struct Options {
    /// What the loss is multiplied by.
    factor: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { factor: 2.0 }
    }
}

struct KeptMetric {
    factor: f64,
    epochs: u64,
}

#[plugin]
impl Callback for KeptMetric {
    const KIND: &'static str = "kept-metric";
    const SUMMARY: &'static str = "Puts a multiple of the loss";
    const PRODUCES: &'static [&'static str] = &["kept"];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if !options.factor.is_finite() {
            return Err(Error::new("`factor` must be finite"));
        }
        Ok(Self { factor: options.factor, epochs: 0 })
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, epoch: &At<'_>) -> Result<()> {
        self.epochs += 1;
        let value = run.metric("train_loss")? * self.factor;
        run.put_metric("kept", value)?;
        run.console_line(&format!("kept-metric: epoch {}, {} in all, {value:.4}", epoch.epoch, self.epochs))
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.epochs)
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.epochs = decode_state(state)?;
        Ok(())
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<KeptMetric>()];
