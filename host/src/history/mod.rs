//! The numbers of a run: the current metrics and the history of all of them.
//!
//! It does not depend on tensors: an array is a shape and values on the CPU. [`Metrics`] has the latest value of each
//! name, for conditions, schedules and displays. [`History`] has every value with its [`Position`], is part of each
//! checkpoint, and can be read as of an earlier moment ([`HistoryView`]) while the training thread continues.

mod exact;
mod metrics;
mod series;
mod stored;
mod view;

pub use exact::Exact;
pub use metrics::{LiveMetrics, Metric, Metrics};
pub use series::{Array, AsOf, History, HistoryError, Point, SeriesId};
pub use view::HistoryView;

use serde::{Deserialize, Serialize};

/// A point of the training. Numbers that count from 1 are 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The optimizer update within the epoch, from 1.
    pub step: u64,
    /// The optimizer update within the run, from 1.
    pub global_step: u64,
    /// Training samples seen in the run.
    pub samples: u64,
}
