//! Well-behaved: two kinds that run without being declared, the reader of a metric listed before its producer.

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Kind, NoOptions, Result, Run, plugin};

struct Reader;

#[plugin]
impl Callback for Reader {
    const KIND: &'static str = "reader";
    const SUMMARY: &'static str = "Prints the metric `told`";
    const READS: &'static [&'static str] = &["told"];
    type Options = NoOptions;

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        match run.metric("told") {
            Ok(value) => run.console_line(&format!("told {value}")),
            Err(_) => run.console_line("told nothing"),
        }
    }
}

struct Producer;

#[plugin]
impl Callback for Producer {
    const KIND: &'static str = "producer";
    const SUMMARY: &'static str = "Puts the metric `told`: the number of the epoch";
    const PRODUCES: &'static [&'static str] = &["told"];
    type Options = NoOptions;

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, epoch: &At<'_>) -> Result<()> {
        run.put_metric("told", epoch.epoch as f64)
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Reader>(), Kind::of::<Producer>()];
