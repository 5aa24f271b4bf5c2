//! Answers about the run that are the same for every implementation of the services.

use std::collections::BTreeMap;

use plugin_api::abi::kinds::ServiceKind;
use plugin_api::protocol::{ArrayPoint, Point, RunInfo, WeightsInfo};
use plugin_api::services::typed;

use super::{Call, Reply, Screen, ServiceError};
use crate::expression::{Expression, Surroundings};
use crate::history::{self, Array, HistoryView, Metric, Metrics, Position};

/// Answers the latest value of every metric that has one.
///
/// # Errors
///
/// Those of [`Reply::value`].
pub fn metrics(metrics: &Metrics, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    reply.value(&metrics.iter().map(|(name, metric)| (name, metric.value)).collect::<BTreeMap<_, _>>())
}

/// Answers the value of each of these metrics with its position; of two with one name, the last.
///
/// # Errors
///
/// Those of [`Reply::value`].
pub fn metric_points<'m>(
    metrics: impl Iterator<Item = (&'m str, Metric)>,
    reply: &mut Reply<'_>,
) -> Result<(), ServiceError> {
    let points = metrics.map(|(name, Metric { value, position })| {
        (name, Point { epoch: position.epoch, global_step: position.global_step, value })
    });
    reply.value(&points.collect::<BTreeMap<_, _>>())
}

/// Answers the latest value of one metric.
///
/// # Errors
///
/// When the run does not have it, or it has no value yet.
pub fn metric(metrics: &Metrics, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    let name = call.request(typed::METRIC)?.name;
    reply.answer(typed::METRIC, &metrics.get(&name)?.value)
}

/// Answers the services of the history.
///
/// # Errors
///
/// An unknown name, or one of another kind.
pub fn history(history: &HistoryView, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    match call.service {
        ServiceKind::HISTORY_SERIES => {
            let name = call.request(typed::HISTORY_SERIES)?.name;
            reply.answer(typed::HISTORY_SERIES, &history.series(&name)?.into_iter().map(number).collect())
        }
        ServiceKind::HISTORY_LATEST => {
            let name = call.request(typed::HISTORY_LATEST)?.name;
            reply.answer(typed::HISTORY_LATEST, &number(history.latest(&name)?))
        }
        ServiceKind::HISTORY_ARRAYS => {
            let name = call.request(typed::HISTORY_ARRAYS)?.name;
            reply.answer(typed::HISTORY_ARRAYS, &history.arrays(&name)?.into_iter().map(point).collect())
        }
        ServiceKind::LATEST_ARRAYS => {
            let latest = history.latest_arrays().into_iter().map(|(name, array)| (name, point(array)));
            reply.answer(typed::LATEST_ARRAYS, &latest.collect())
        }
        _ => reply.answer(typed::HISTORY_NAMES, &history.names()),
    }
}

/// Where the weights of a model come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightsOrigin {
    /// When they were those of the training.
    pub position: Position,
    /// If they are back: the first entry of the history that is of them again.
    pub since: Option<u64>,
}

/// Answers where the weights come from, and what was measured of them.
///
/// # Errors
///
/// Those of [`Reply::answer`].
pub fn weights_info(history: &HistoryView, origin: WeightsOrigin, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    let WeightsOrigin { position: Position { epoch, global_step, .. }, since } = origin;
    let metrics = history.of_weights(global_step, since);
    reply.answer(typed::WEIGHTS_INFO, &WeightsInfo { epoch, global_step, metrics })
}

fn number(point: history::Point) -> Point {
    let history::Point { position: Position { epoch, global_step, .. }, value } = point;
    Point { epoch, global_step, value }
}

fn point(array: Array) -> ArrayPoint {
    ArrayPoint {
        epoch: array.position.epoch,
        global_step: array.position.global_step,
        shape: array.shape.iter().map(|&size| size as u64).collect(),
        values: array.values,
    }
}

/// Answers the services of the console.
///
/// # Errors
///
/// A request that cannot be decoded.
pub fn console(screen: &dyn Screen, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    match call.service {
        ServiceKind::CONSOLE_LINES => {
            let after = call.request(typed::CONSOLE_LINES)?.after;
            reply.answer(typed::CONSOLE_LINES, &screen.lines_after(after))
        }
        ServiceKind::CONSOLE_STATUS => {
            let status = call.request(typed::CONSOLE_STATUS)?;
            screen.status(&status.name, &status.text, status.progress);
            Ok(())
        }
        _ => {
            screen.line(&call.request(typed::CONSOLE_LINE)?.text);
            Ok(())
        }
    }
}

/// Answers the value of an expression whose metrics the run has.
///
/// # Errors
///
/// Those of [`Reply::answer`].
pub fn evaluate(
    expression: &Expression,
    surroundings: &mut dyn Surroundings,
    variables: &BTreeMap<String, f64>,
    reply: &mut Reply<'_>,
) -> Result<(), ServiceError> {
    reply.answer(typed::EVALUATE, &expression.evaluate(surroundings, variables))
}

/// Answers with the description of the run, for the instance that calls.
///
/// # Errors
///
/// Those of [`Reply::value`].
pub fn run_info(info: &RunInfo, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    reply.answer(typed::RUN_INFO, &RunInfo { instance: call.instance.to_owned(), ..info.clone() })
}
