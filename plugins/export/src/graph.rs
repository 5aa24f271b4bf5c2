//! The model's graph, which exporters of whole models need.

use plugin_api::graph::Graph;
use plugin_api::{Error, ErrorKind, Result, Run};

/// The model's graph.
///
/// # Errors
///
/// The model has none, with what to do; or an operator that this version does not know.
pub fn graph(run: &Run<'_>, format: &str) -> Result<Graph> {
    run.graph().map_err(|error| match error.kind() {
        ErrorKind::NoSuchName => Error::new(format!(
            "{format} files are made from the model's graph, and {}; give the model as `[model] layers`, or export its \
             weights with the kind `weights`",
            error.message()
        )),
        _ => error,
    })
}
