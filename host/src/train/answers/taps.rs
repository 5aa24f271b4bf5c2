//! Values that are fetched with each step for callbacks.

use plugin_api::protocol::{Tap, TapOf};

use super::super::error::TrainError;
use super::super::learner::{Learner, PlannedTap};
use crate::services::ServiceError;

/// Adds a tap; callbacks that want the same value share it.
pub(super) fn add(learner: &mut Learner, tap: Tap) -> Result<(), ServiceError> {
    let node = match tap.of {
        TapOf::Activation => {
            let graph = learner.network.graph().map_err(TrainError::from)?;
            let names = graph.nodes().iter().map(|node| node.name.as_str());
            let index = graph.nodes().iter().position(|node| node.name == tap.node);
            Some(index.ok_or_else(|| ServiceError::no_such_name("node", &tap.node, names))?)
        }
        TapOf::Gradient => {
            let mut names = learner.network.parameters().iter().map(|parameter| parameter.name.as_str());
            if !names.clone().any(|name| name == tap.node) {
                return Err(ServiceError::no_such_name("parameter", &tap.node, &mut names));
            }
            None
        }
    };
    match learner.taps.iter().find(|planned| planned.tap.name == tap.name) {
        // Callbacks that want the same value share it.
        Some(planned) if planned.tap == tap => Ok(()),
        Some(_) => Err(ServiceError::Failed(format!("another tap has the name `{}`", tap.name))),
        None => {
            learner.taps.push(PlannedTap { tap, node });
            Ok(())
        }
    }
}
