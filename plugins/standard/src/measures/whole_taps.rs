//! Taps of whole values.
//!
//! Whoever reads taps reduces all of the run's at each read; a whole one is only lent. So what is measured rarely is tapped whole
//! and reduced when it is measured.

use plugin_api::protocol::{Tap, TapOf, TapReduce};
use plugin_api::{Error, ErrorKind, Result, Run};

/// In `setup`: taps a node or the gradient of a parameter, and gives the tap's name.
pub(crate) fn request(run: &mut Run<'_>, of: TapOf, node: &str) -> Result<String> {
    let what = if of == TapOf::Gradient { "gradient" } else { "activation" };
    // The same name in all instances: the host keeps equal taps once.
    let name = format!("whole.{what}.{node}");
    run.tap(&Tap { name: name.clone(), node: node.to_owned(), of, reduce: TapReduce::Whole })?;
    Ok(name)
}

/// The names of the model's nodes. A model without a graph is an error, which says what to do `instead`.
pub(crate) fn nodes(run: &Run<'_>, instead: &str) -> Result<Vec<String>> {
    let graph = run.graph().map_err(|error| match error.kind() {
        ErrorKind::NoSuchName => Error::new(format!("{}: {instead}", error.message())),
        _ => error,
    })?;
    Ok(graph.nodes.into_iter().map(|node| node.name).collect())
}
