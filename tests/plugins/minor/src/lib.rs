//! Well-behaved: built with the SDK of this minor version of the ABI and with that of the next one.

use std::fs::File;
use std::io::Write;

use plugin_api::event::{At, TrainEnd};
use plugin_api::{plugin, Callback, Creation, Kind, Need, Result, Run};
use serde_json::{json, Value};

/// Its options.
#[plugin]
#[derive(Default)]
struct Options {
    /// The file to append to; empty: none.
    path: String,
}

struct Minor {
    options: Options,
    safe_points: u64,
}

#[cfg(feature = "needs-service")]
const NEEDED: &[Need] = &[Need::service(plugin_api::ServiceKind::UPTIME)];
#[cfg(not(feature = "needs-service"))]
const NEEDED: &[Need] = &[];

#[cfg(feature = "needs-event")]
#[plugin]
impl Callback for Minor {
    const KIND: &'static str = "minor";
    const SUMMARY: &'static str = "Counts safe points";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = NEEDED;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { options, safe_points: 0 })
    }

    fn on_safe_point(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.safe_points += 1;
        Ok(())
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        self.tell(run, event)
    }
}

#[cfg(not(feature = "needs-event"))]
#[plugin]
impl Callback for Minor {
    const KIND: &'static str = "minor";
    const SUMMARY: &'static str = "Uses what every minor version has";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = NEEDED;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { options, safe_points: 0 })
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        run.put_metric("minor", event.epoch as f64)
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        self.tell(run, event)
    }
}

impl Minor {
    fn tell(&self, run: &Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        if self.options.path.is_empty() {
            return Ok(());
        }
        let line = json!({
            "outcome": event.outcome.name(), "uptime": uptime(run), "safe_points": self.safe_points,
            "train_loss": run.metric("train_loss").is_ok(),
        });
        let mut file = File::options().append(true).create(true).open(&self.options.path)?;
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }
}

/// What a service of the next minor version answers: whether it is a time, or why there is none.
#[cfg(feature = "next-minor")]
fn uptime(run: &Run<'_>) -> Value {
    match run.uptime() {
        Ok(seconds) => json!(seconds >= 0.0),
        Err(error) => json!(format!("{:?}: {}", error.kind(), error.message())),
    }
}

#[cfg(not(feature = "next-minor"))]
fn uptime(_: &Run<'_>) -> Value {
    Value::Null
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Minor>()];
