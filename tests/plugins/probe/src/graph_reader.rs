//! `graph-reader`: asks for what only a graph can tell, and writes the answers for a model without one.

use plugin_api::event::At;
use plugin_api::protocol::{Tap, TapOf, TapReduce};
use plugin_api::{Callback, Creation, ErrorKind, Result, Run, plugin};
use serde_json::json;

use crate::journal::Journal;

#[plugin]
#[derive(Default)]
pub struct Options {
    /// The journal.
    path: String,
    /// A parameter whose gradient is tapped; empty: none.
    gradient: String,
}

pub struct GraphReader {
    options: Options,
    journal: Journal,
}

fn tap(of: TapOf, node: &str) -> Tap {
    Tap { name: node.to_owned(), of, node: node.to_owned(), reduce: TapReduce::Norm }
}

#[plugin]
impl Callback for GraphReader {
    const KIND: &'static str = "graph-reader";
    const SUMMARY: &'static str = "Reads the model's graph";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { journal: Journal::open(&options.path)?, options })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let journal = &self.journal;
        let graph = run.graph();
        let typed = graph.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoSuchName);
        journal.check("a model without a graph can be told by the error's kind", typed, json!(null))?;
        journal.refused("graph", graph)?;
        journal.refused("tap of an activation", run.tap(&tap(TapOf::Activation, "fc1")))?;
        match self.options.gradient.as_str() {
            "" => Ok(()),
            name => run.tap(&tap(TapOf::Gradient, name)),
        }
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let journal = &self.journal;
        journal.refused("graph at the end of an epoch", run.graph())?;
        journal.refused("recalibrate_batch_norm", run.recalibrate_batch_norm("val", 1))?;
        journal.refused("predictions with a node", run.predict_split("val", 1, &["fc1"]).map(drop))?;
        let inputs = run.batch("val", 0)?[0].to_owned()?;
        let outputs = run.predict(&inputs.view(), &[])?[0].shape().to_vec();
        journal.check("predictions", outputs == [inputs.view().shape()[0], 10], json!(outputs))
    }
}
