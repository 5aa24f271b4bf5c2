//! What a file contains about the run of its weights.

use std::collections::BTreeMap;

use plugin_api::event::Position;
use plugin_api::{Result, Run};
use serde::Serialize;

/// Names and texts, for safetensors' `__metadata__`.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Metadata {
    texts: BTreeMap<&'static str, String>,
}

impl Metadata {
    /// The run's name, the position, and the metrics that were measured there. Those of an earlier step belong to other
    /// weights; times are omitted, so that equal runs write equal files.
    ///
    /// # Errors
    ///
    /// Those of the services.
    pub(crate) fn read(run: &Run<'_>, name: &str, position: &Position) -> Result<Metadata> {
        let mut metrics = BTreeMap::new();
        for (metric, value) in run.metrics()? {
            let measured_here =
                run.history(&metric)?.last().is_some_and(|point| point.global_step == position.global_step);
            if measured_here && !metric.ends_with("_seconds") {
                metrics.insert(metric, value);
            }
        }
        let texts = BTreeMap::from([
            // The layout of the tensors is PyTorch's; readers that know several look for this key.
            ("format", "pt".to_owned()),
            ("run", name.to_owned()),
            ("epoch", position.epoch.to_string()),
            ("step", position.global_step.to_string()),
            ("metrics", serde_json::to_string(&metrics)?),
        ]);
        Ok(Metadata { texts })
    }
}
