//! What the ranks of a run have measured, merged.
//!
//! Every rank gets what each has, and merges all of it in the order of the ranks, its own as well: so all have the same values
//! to the last bit.

use serde::{Deserialize, Serialize};

use super::{Accumulator, AccumulatorState, Average, AverageState, Metric};
use crate::distributed::{DistributedError, ProcessGroup};
use crate::report::Report;
use crate::torch::TorchError;
use crate::train::TrainError;

/// What one rank has measured.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RankState {
    loss: AverageState,
    /// In the order of the metrics.
    metrics: Vec<AccumulatorState>,
}

/// The loss and the metrics over the samples of all ranks, from those of this rank; for a single process its own, as they are.
/// It is collective: every rank measures the same metrics in the same order.
///
/// # Errors
///
/// A device that fails, a rank that is gone, or one that has measured something else.
pub(in crate::train) fn over_ranks(
    group: &ProcessGroup,
    loss: Average,
    mut accumulators: Vec<Accumulator>,
) -> Result<(Average, Vec<Accumulator>), TrainError> {
    if group.is_single() {
        return Ok((loss, accumulators));
    }
    let metrics: Vec<Metric> = accumulators.iter().map(Accumulator::metric).collect();
    let parts = group.exchange(encoded(loss, &mut accumulators)?)?;
    Ok(merged(&metrics, &parts)?)
}

/// What this rank sends.
fn encoded(loss: Average, accumulators: &mut [Accumulator]) -> Result<Vec<u8>, TrainError> {
    let metrics = accumulators.iter_mut().map(Accumulator::state).collect::<Result<_, TorchError>>()?;
    let state = RankState { loss: loss.state(), metrics };
    Ok(rmp_serde::to_vec_named(&state).map_err(|error| cannot_merge(error.to_string()))?)
}

/// The loss and `metrics` of all ranks, from what each sent, in their order.
fn merged(metrics: &[Metric], parts: &[Vec<u8>]) -> Result<(Average, Vec<Accumulator>), DistributedError> {
    let (mut loss, mut accumulators) =
        (Average::default(), metrics.iter().map(|metric| metric.accumulator()).collect());
    for (rank, part) in parts.iter().enumerate() {
        merge(&mut loss, &mut accumulators, part).map_err(|problem| cannot_merge(format!("rank {rank}: {problem}")))?;
    }
    Ok((loss, accumulators))
}

/// Adds what one rank sent, or says what is wrong with it.
fn merge(loss: &mut Average, accumulators: &mut Vec<Accumulator>, part: &[u8]) -> Result<(), String> {
    let other = "it runs another version of the host";
    let part: RankState = rmp_serde::from_slice(part).map_err(|error| format!("{other}: {error}"))?;
    if part.metrics.len() != accumulators.len() {
        return Err(format!("it measures {} metrics, and rank 0 measures {}", part.metrics.len(), accumulators.len()));
    }
    loss.merge(part.loss);
    for (accumulator, state) in accumulators.iter_mut().zip(&part.metrics) {
        accumulator.merge(state).map_err(|error| match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => format!("`{}` is another metric there; {other}", accumulator.metric().name()),
        })?;
    }
    Ok(())
}

fn cannot_merge(message: String) -> DistributedError {
    DistributedError::Merge { message }
}
