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
    let mut loss = Average::default();
    let mut accumulators: Vec<Accumulator> = metrics.iter().map(|metric| metric.accumulator()).collect();
    for (rank, part) in parts.iter().enumerate() {
        merge(&mut loss, &mut accumulators, part).map_err(|problem| cannot_merge(format!("rank {rank}: {problem}")))?;
    }
    Ok((loss, accumulators))
}

/// Adds what one rank sent, or says what is wrong with it.
fn merge(loss: &mut Average, accumulators: &mut [Accumulator], part: &[u8]) -> Result<(), String> {
    let other = "it runs another version of the host";
    let part: RankState = rmp_serde::from_slice(part).map_err(|error| format!("{other}: {error}"))?;
    if part.metrics.len() != accumulators.len() {
        return Err(format!("it measures {} metrics, and this one {}", part.metrics.len(), accumulators.len()));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::Tensor;

    use super::*;
    use crate::distributed::Share;
    use crate::train::metrics::{Averaging, MetricValue};

    const METRICS: [Metric; 4] = [Metric::Accuracy, Metric::F1(Averaging::Macro), Metric::Auc, Metric::Perplexity];

    /// Batches of outputs for three classes, and of classes.
    fn batches() -> impl Strategy<Value = Vec<(Tensor, Tensor)>> {
        let batch = prop::collection::vec((prop::array::uniform3(-40i8..40), 0i64..3), 0..6).prop_map(|rows| {
            let outputs: Vec<f32> = rows.iter().flat_map(|(row, _)| row.map(|value| f32::from(value) / 8.0)).collect();
            let targets: Vec<i64> = rows.iter().map(|(_, target)| *target).collect();
            (Tensor::from_slice(&outputs).reshape([rows.len() as i64, 3]), Tensor::from_slice(&targets))
        });
        prop::collection::vec(batch, 0..12)
    }

    /// The measurements over batches, whose losses are the numbers from 1 on.
    fn measure(batches: &[(Tensor, Tensor)], first: usize) -> (Average, Vec<Accumulator>) {
        let (mut loss, mut accumulators) = (Average::default(), METRICS.map(Metric::accumulator));
        for (index, (outputs, targets)) in batches.iter().enumerate() {
            loss.add((first + index + 1) as f64, targets.size()[0] as f64);
            accumulators.iter_mut().for_each(|accumulator| accumulator.add(outputs, targets).unwrap());
        }
        (loss, accumulators.into())
    }

    fn values(accumulators: &mut [Accumulator]) -> Vec<Option<MetricValue>> {
        accumulators.iter_mut().map(|accumulator| accumulator.value().unwrap()).collect()
    }

    fn sent(metrics: &[Metric]) -> Vec<u8> {
        let mut accumulators: Vec<_> = metrics.iter().map(|metric| metric.accumulator()).collect();
        let outputs = Tensor::from_slice2(&[[1.0f32, 2.0, 0.0]]);
        accumulators
            .iter_mut()
            .for_each(|accumulator| accumulator.add(&outputs, &Tensor::from_slice(&[1i64])).unwrap());
        encoded(Average::default(), &mut accumulators).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn the_measurements_of_all_ranks_are_those_of_one_process(batches in batches(), world_size in 1usize..6) {
            let (loss, mut whole) = measure(&batches, 0);
            let parts: Vec<Vec<u8>> = (0..world_size)
                .map(|rank| {
                    let own = Share::new(rank, world_size).range(batches.len());
                    let (loss, mut accumulators) = measure(&batches[own.clone()], own.start);
                    encoded(loss, &mut accumulators).unwrap()
                })
                .collect();
            let (merged_loss, mut merged) = merged(&METRICS, &parts).unwrap();
            // Sums of whole numbers are exact.
            prop_assert_eq!(merged_loss, loss);
            let (mut found, mut expected) = (values(&mut merged), values(&mut whole));
            let [found_perplexity, perplexity] = [&mut found, &mut expected].map(Vec::pop);
            prop_assert_eq!(found, expected);
            match (found_perplexity.flatten(), perplexity.flatten()) {
                (Some(MetricValue::Number(found)), Some(MetricValue::Number(expected))) => {
                    prop_assert!((found - expected).abs() <= 1e-12 * expected, "{} {}", found, expected);
                }
                (found, expected) => prop_assert_eq!(found, expected),
            }
        }

        #[test]
        fn what_no_rank_sends_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), cut: prop::sample::Index) {
            let whole = sent(&METRICS);
            for part in [bytes, whole[..cut.index(whole.len())].to_vec()] {
                let error = merged(&METRICS, &[whole.clone(), part]).unwrap_err();
                prop_assert!(error.to_string().contains("rank 1: it runs another version of the host: "), "{}", error);
            }
        }
    }

    #[test]
    fn a_single_process_keeps_its_own() {
        let measured = measure(&[(Tensor::from_slice2(&[[1.0f32, 2.0, 0.0]]), Tensor::from_slice(&[1i64]))], 0);
        let (loss, mut accumulators) = over_ranks(&ProcessGroup::single(), measured.0, measured.1).unwrap();
        assert_eq!((loss.value(), values(&mut accumulators)[0].clone()), (Some(1.0), Some(MetricValue::Number(1.0))));
    }

    #[test]
    fn a_rank_that_measures_something_else_is_named() {
        let told = |other: &[Metric]| merged(&METRICS, &[sent(&METRICS), sent(other)]).unwrap_err().to_string();
        let two_classes = {
            let mut accumulators = METRICS.map(Metric::accumulator);
            let (outputs, targets) = (Tensor::from_slice2(&[[1.0f32, 2.0]]), Tensor::from_slice(&[1i64]));
            accumulators.iter_mut().for_each(|accumulator| accumulator.add(&outputs, &targets).unwrap());
            encoded(Average::default(), &mut accumulators).unwrap()
        };
        let found = [
            told(&METRICS[..3]),
            told(&[Metric::ConfusionMatrix, METRICS[1], METRICS[2], METRICS[3]]),
            merged(&METRICS, &[sent(&METRICS), sent(&METRICS), two_classes]).unwrap_err().to_string(),
        ];
        insta::assert_snapshot!(found.join("\n"), @"
        the ranks cannot merge what they have measured: rank 1: it measures 3 metrics, and this one 4
        the ranks cannot merge what they have measured: rank 1: `accuracy` is another metric there; it runs another version of the host
        the ranks cannot merge what they have measured: rank 2: the metric `f1_macro` of two ranks is of outputs of different shapes; give all ranks the same run file, model and data, and the same version of the host
        ");
    }
}
