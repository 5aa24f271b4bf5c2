//! Losses that were NaN or infinite: looked for once, when the training is over, in what was measured anyway.

use std::fmt;

use super::session::Session;
use crate::data::TRAIN;
use crate::history::Position;

/// A loss of the run that was NaN or infinite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// The loss: `train_loss`, `val_loss`.
    pub metric: String,
    /// The first epoch in which it was not finite; of a loss that still is not, the first one without a finite one after it.
    pub epoch: u64,
    /// Whether it was finite again later.
    pub recovered: bool,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, epoch, recovered } = self;
        match recovered {
            true => write!(formatter, "`{metric}` was NaN or infinite in epoch {epoch}"),
            false => write!(formatter, "`{metric}` has been NaN or infinite since epoch {epoch}"),
        }
    }
}

impl Session {
    /// The losses of training and evaluations that were not finite at an epoch's end, or are not in the epoch that a
    /// stop has cut short.
    pub fn losses_not_finite(&self) -> Vec<NotFinite> {
        let evaluated = [&self.evaluations.repeated, &self.evaluations.test].into_iter().flatten();
        let splits = std::iter::once(TRAIN).chain(evaluated.map(|plan| &*plan.split));
        splits.filter_map(|split| self.loss_not_finite(split)).collect()
    }

    fn loss_not_finite(&self, split: &str) -> Option<NotFinite> {
        let metric = format!("{split}_loss");
        let history = self.measured.history.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ended: Vec<_> = history.series(&metric).into_iter().flatten().collect();
        let mut values: Vec<(u64, f64)> = ended.iter().map(|point| (point.position.epoch, point.value)).collect();
        if split == TRAIN && !self.progress.epoch_is_over {
            let Position { epoch, .. } = self.progress.position;
            values.extend(self.measured.loss.value().map(|value| (epoch, value)));
        }
        let (epoch, recovered) = first_not_finite(&values)?;
        Some(NotFinite { metric, epoch, recovered })
    }
}

/// The epoch since which no value is finite, or else the first with a value that is not; and whether finite ones followed.
fn first_not_finite(values: &[(u64, f64)]) -> Option<(u64, bool)> {
    let finite = |&(_, value): &(u64, f64)| value.is_finite();
    let since = values.iter().rposition(finite).map_or(0, |last| last + 1);
    match values.get(since) {
        Some(&(epoch, _)) => Some((epoch, false)),
        None => values.iter().find(|value| !finite(value)).map(|&(epoch, _)| (epoch, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_not_finite_counts_from_the_last_finite_value() {
        const NAN: f64 = f64::NAN;
        assert_eq!(first_not_finite(&[]), None);
        assert_eq!(first_not_finite(&[(1, 0.5), (2, 0.1)]), None);
        assert_eq!(first_not_finite(&[(1, NAN), (2, 0.1), (3, f64::INFINITY), (4, NAN)]), Some((3, false)));
        assert_eq!(first_not_finite(&[(1, 0.2), (2, NAN), (3, 0.1)]), Some((2, true)));
        assert_eq!(first_not_finite(&[(1, f64::NEG_INFINITY)]), Some((1, false)));
    }
}
