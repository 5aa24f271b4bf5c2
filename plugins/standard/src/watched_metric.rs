//! A metric that a callback watches: which way it improves, its latest value, and what counts as an improvement.

use plugin_api::protocol::Point;
use plugin_api::{Direction, Error, ErrorKind, Result, Run, plugin};

/// Which way `metric` improves: as `mode` says or, without it, as the metric's name implies.
pub(crate) fn direction(metric: &str, mode: Option<Direction>) -> Result<Direction> {
    mode.or_else(|| Direction::of_metric(metric)).ok_or_else(|| {
        Error::new(format!("whether `{metric}` is better lower or higher is not known: set `mode` to `min` or `max`"))
    })
}

/// What `min_delta` counts in.
#[plugin]
#[derive(Copy, PartialEq, Eq)]
pub(crate) enum DeltaMode {
    /// The metric's own units.
    Absolute,
    /// Shares of the best value: 0.01 is one percent of it.
    Relative,
}

impl DeltaMode {
    /// The least change from `best` that counts as an improvement.
    pub(crate) fn least_change(self, min_delta: f64, best: Option<f64>) -> f64 {
        match (self, best) {
            (Self::Relative, Some(best)) => min_delta * best.abs(),
            _ => min_delta,
        }
    }
}

/// Refuses a `min_delta` that is no distance between two values.
pub(crate) fn check_min_delta(min_delta: f64) -> Result<()> {
    if min_delta >= 0.0 && min_delta.is_finite() {
        return Ok(());
    }
    Err(Error::new(format!("`min_delta` must be 0 or more, not {min_delta}")))
}

/// The latest value of `metric`, with the position at which it was put; `None` before the first.
pub(crate) fn latest(run: &Run<'_>, metric: &str) -> Result<Option<Point>> {
    // One that is running but has not been measured has no point in the history.
    if run.latest_metric(metric)?.is_none() {
        return Ok(None);
    }
    match run.history_latest(metric) {
        Err(error) if error.kind() == ErrorKind::NoSuchName => Ok(None),
        point => Ok(Some(point?)),
    }
}

/// Whether `value` is better than `best` by more than `min_delta`. NaN never is, and any number is better than none.
pub(crate) fn is_better(direction: Direction, value: f64, best: Option<f64>, min_delta: f64) -> bool {
    match (best, direction) {
        (None, _) => !value.is_nan(),
        (Some(best), Direction::Min) => direction.better(value, best - min_delta),
        (Some(best), Direction::Max) => direction.better(value, best + min_delta),
    }
}
