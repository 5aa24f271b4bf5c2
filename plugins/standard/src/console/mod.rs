//! What a run shows while it goes on.

mod confusion_table;
mod metrics_table;
pub(crate) mod print_metrics;
pub(crate) mod progress;
