//! Metrics over the batches of an epoch or an evaluation, weighted by true counts.
//!
//! A [`Metric`] is what a run file names; its [`Accumulator`] takes the outputs of each batch, so that training needs no
//! second forward pass. Each family has a file: `hits.rs` counts correct predictions, `confusion.rs` pairs of true and
//! predicted classes, `ranking.rs` orders scores, `deviations.rs` numbers, `likelihood.rs` averages logarithms. `ranks.rs`
//! merges what several ranks have measured.

mod average;
mod batch;
mod confusion;
mod deviations;
mod error;
mod hits;
mod likelihood;
mod ranking;
mod ranks;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tch::Tensor;

pub use average::{Average, AverageState};
use confusion::Confusion;
use deviations::Deviations;
pub use error::MetricError;
use hits::{AccurateHits, TopHits};
use likelihood::Likelihood;
use ranking::Ranking;
pub(super) use ranks::over_ranks;

use crate::data::Target;
use crate::history::Exact;
use crate::torch::TorchError;

/// What becomes of the numbers of the classes, as in scikit-learn's `average`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Averaging {
    /// Of two classes, the number of this one (`"binary"`, with `pos_label`); of more, [`Averaging::Macro`]. Its metrics have
    /// no ending: `f1`.
    Usual {
        /// The positive class of two.
        positive: u8,
    },
    /// The mean over the classes that are predicted or occur: `f1_macro`.
    Macro,
    /// Of the counts of all classes together: `f1_micro`. Where each sample has one class, it is the accuracy.
    Micro,
    /// The mean over the classes, weighted by their samples: `f1_weighted`.
    Weighted,
}

impl Averaging {
    /// The usual one, of the second of two classes.
    pub const USUAL: Averaging = Averaging::Usual { positive: 1 };

    const ALL: [Averaging; 4] = [Averaging::USUAL, Averaging::Macro, Averaging::Micro, Averaging::Weighted];

    /// The ending of its metrics' names.
    fn ending(self) -> &'static str {
        match self {
            Averaging::Usual { .. } => "",
            Averaging::Macro => "_macro",
            Averaging::Micro => "_micro",
            Averaging::Weighted => "_weighted",
        }
    }
}

/// A metric, as named in run files.
///
/// The prediction for a sample is the class with the largest output, the first of equal ones; with a single output, the
/// second class if it is above 0. If the data has a class at each position, every position counts as a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// `accuracy`: the share of samples whose prediction is correct (`sklearn.metrics.accuracy_score`).
    Accuracy,
    /// `top5_error` and the like: the share of samples whose class is not among the `k` largest outputs; of equal
    /// outputs the last ones count as larger (1 − `sklearn.metrics.top_k_accuracy_score`).
    TopKError(u32),
    /// `precision`: the share of a class's predictions that is correct; 0 for one that is never predicted
    /// (`sklearn.metrics.precision_score(zero_division=0)`).
    Precision(Averaging),
    /// `recall`: the share of a class's samples that is predicted (`sklearn.metrics.recall_score(zero_division=0)`).
    Recall(Averaging),
    /// `f1`: the harmonic mean of both (`sklearn.metrics.f1_score(zero_division=0)`).
    F1(Averaging),
    /// `auc`: the area under the ROC curve; for more than two classes that of each against the rest by softmax, averaged
    /// over the classes that have samples (`sklearn.metrics.roc_auc_score(multi_class="ovr")`), in f64. It keeps
    /// every output, and has no value if there is only one class or an output is NaN.
    Auc,
    /// `mae`: the mean absolute difference (`sklearn.metrics.mean_absolute_error`).
    Mae,
    /// `rmse`: the root of the mean squared difference, averaged over the numbers of a sample
    /// (`sklearn.metrics.root_mean_squared_error`).
    Rmse,
    /// `r2`: the share of the variance that is explained, averaged over the numbers of a sample
    /// (`sklearn.metrics.r2_score`). It has no value for a single sample.
    R2,
    /// `perplexity`: the exponential of the mean negative log-likelihood of the true class, without label smoothing or
    /// class weights.
    Perplexity,
    /// `confusion_matrix`: how often each class (row) was predicted as each (column), an array in the history
    /// (`sklearn.metrics.confusion_matrix`).
    ConfusionMatrix,
}

impl Metric {
    /// Every metric; `top5_error` stands for those of any `k`, `precision`, `recall` and `f1` also for `f1_macro` and the
    /// like.
    pub const ALL: &'static [Metric] = &[
        Metric::Accuracy,
        Metric::TopKError(5),
        Metric::Precision(Averaging::USUAL),
        Metric::Recall(Averaging::USUAL),
        Metric::F1(Averaging::USUAL),
        Metric::Auc,
        Metric::Mae,
        Metric::Rmse,
        Metric::R2,
        Metric::Perplexity,
        Metric::ConfusionMatrix,
    ];

    /// The metric of this name.
    pub fn from_name(name: &str) -> Option<Metric> {
        if let Some(k) = name.strip_prefix("top").and_then(|rest| rest.strip_suffix("_error")) {
            // One way to write a number, so that a metric has one name.
            let k = k.parse().ok().filter(|parsed: &u32| *parsed > 0 && parsed.to_string() == k)?;
            return Some(Metric::TopKError(k));
        }
        let averaged =
            Averaging::ALL.into_iter().find_map(|averaging| match name.strip_suffix(averaging.ending())? {
                "precision" => Some(Metric::Precision(averaging)),
                "recall" => Some(Metric::Recall(averaging)),
                "f1" => Some(Metric::F1(averaging)),
                _ => None,
            });
        averaged.or_else(|| Metric::ALL.iter().copied().find(|metric| metric.name() == name))
    }

    /// The same metric, of this class where it is of one of two.
    #[must_use]
    pub fn of_class(self, positive: u8) -> Metric {
        match self {
            Metric::Precision(Averaging::Usual { .. }) => Metric::Precision(Averaging::Usual { positive }),
            Metric::Recall(Averaging::Usual { .. }) => Metric::Recall(Averaging::Usual { positive }),
            Metric::F1(Averaging::Usual { .. }) => Metric::F1(Averaging::Usual { positive }),
            other => other,
        }
    }

    /// Its name in metrics: `val_accuracy` is that of the split `val`.
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Metric::Accuracy => "accuracy",
            Metric::TopKError(k) => return Cow::Owned(format!("top{k}_error")),
            Metric::Precision(averaging) => return Cow::Owned(format!("precision{}", averaging.ending())),
            Metric::Recall(averaging) => return Cow::Owned(format!("recall{}", averaging.ending())),
            Metric::F1(averaging) => return Cow::Owned(format!("f1{}", averaging.ending())),
            Metric::Auc => "auc",
            Metric::Mae => "mae",
            Metric::Rmse => "rmse",
            Metric::R2 => "r2",
            Metric::Perplexity => "perplexity",
            Metric::ConfusionMatrix => "confusion_matrix",
        })
    }

    /// Whether its value is an array, which is part of the history and not of the latest metrics.
    pub fn is_array(self) -> bool {
        self == Metric::ConfusionMatrix
    }

    /// Whether its value is so costly that it is computed only at the end of an epoch, not during one.
    pub(super) fn is_costly(self) -> bool {
        self == Metric::Auc
    }

    /// Checks that the outputs of a model, of `output_shape` for one sample, can be measured on `target`.
    pub fn check(self, output_shape: &[i64], target: &Target) -> Result<(), MetricError> {
        let misfit = |expected, found: String| MetricError::Targets { metric: self.name(), expected, found };
        let of_numbers = matches!(self, Metric::Mae | Metric::Rmse | Metric::R2);
        let count = match target {
            Target::Values { .. } if of_numbers => return Ok(()),
            Target::Values { .. } => return Err(misfit("classes", "numbers".to_owned())),
            Target::Classes { .. } if of_numbers => return Err(misfit("numbers", "classes".to_owned())),
            Target::Classes { count, .. } => *count,
        };
        match self {
            Metric::TopKError(k) if k as usize >= count => {
                Err(misfit("more classes than it counts", format!("{count} classes")))
            }
            Metric::TopKError(_) | Metric::Perplexity if output_shape.last() == Some(&1) => {
                Err(MetricError::SingleOutput { metric: self.name() })
            }
            _ => Ok(()),
        }
    }

    /// An empty accumulator.
    pub fn accumulator(self) -> Accumulator {
        let family = match self {
            Metric::Accuracy => Family::Accurate(AccurateHits::default()),
            Metric::TopKError(k) => Family::Top(TopHits::new(k as usize)),
            Metric::Precision(_) | Metric::Recall(_) | Metric::F1(_) | Metric::ConfusionMatrix => {
                Family::Confusion(Confusion::default())
            }
            Metric::Auc => Family::Ranking(Ranking::default()),
            Metric::Mae | Metric::Rmse | Metric::R2 => Family::Deviations(Deviations::default()),
            Metric::Perplexity => Family::Likelihood(Likelihood::default()),
        };
        Accumulator { metric: self, family }
    }
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// A number.
    Number(f64),
    /// A matrix of counts, row by row.
    Array {
        /// Rows and columns.
        shape: Vec<usize>,
        /// The counts; f32 holds those up to 2²⁴ exactly.
        values: Vec<f32>,
    },
}

/// The state of an [`Accumulator`] in a checkpoint. The metric's family defines the meaning of the numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccumulatorState {
    /// Counts: of samples, of correct predictions, of each pair of classes.
    counts: Vec<u64>,
    /// Sums.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sums: Vec<Exact>,
    /// Outputs, as the bits of their f32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<u32>,
}

/// A metric that is being measured.
#[derive(Debug)]
pub struct Accumulator {
    metric: Metric,
    family: Family,
}

#[derive(Debug)]
enum Family {
    Accurate(AccurateHits),
    Top(TopHits),
    Confusion(Confusion),
    Ranking(Ranking),
    Deviations(Deviations),
    Likelihood(Likelihood),
}

impl Accumulator {
    /// The metric that it accumulates.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Adds a batch, of the shapes that [`super::loss::LossOptions::compute`] takes. On the CPU it reads the tensors
    /// in place; on a device `accuracy` is enqueued, and the others wait for the outputs.
    pub fn add(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<(), TorchError> {
        let _no_gradients = tch::no_grad_guard();
        match &mut self.family {
            Family::Accurate(hits) => hits.add(outputs, targets),
            Family::Top(hits) => batch::read(outputs, targets, |outputs, targets| hits.add(outputs, targets)),
            Family::Confusion(confusion) => {
                batch::read(outputs, targets, |outputs, targets| confusion.add(outputs, targets))
            }
            Family::Ranking(ranking) => batch::read(outputs, targets, |outputs, targets| ranking.add(outputs, targets)),
            Family::Deviations(deviations) => {
                let numbers = outputs.size().last().map_or(1, |size| *size as usize);
                batch::read(outputs, targets, |outputs, targets| deviations.add(outputs, targets, numbers))
            }
            Family::Likelihood(likelihood) => likelihood.add(outputs, targets),
        }
    }

    /// The metric over all batches so far; `None` before the first, or if it has no value. Waits for the device.
    pub fn value(&mut self) -> Result<Option<MetricValue>, TorchError> {
        let number = match &mut self.family {
            Family::Accurate(hits) => hits.share()?,
            Family::Top(hits) => hits.error(),
            Family::Confusion(confusion) => match self.metric {
                Metric::Precision(averaging) => confusion.precision(averaging),
                Metric::Recall(averaging) => confusion.recall(averaging),
                Metric::F1(averaging) => confusion.f1(averaging),
                _ => return Ok(confusion.matrix()),
            },
            Family::Ranking(ranking) => ranking.area(),
            Family::Deviations(deviations) => match self.metric {
                Metric::Mae => deviations.mean_absolute(),
                Metric::Rmse => deviations.root_mean_square(),
                _ => deviations.explained(),
            },
            Family::Likelihood(likelihood) => likelihood.perplexity(),
        };
        Ok(number.map(MetricValue::Number))
    }

    /// Its state. Waits for the device.
    ///
    /// # Errors
    /// The device fails.
    pub fn state(&mut self) -> Result<AccumulatorState, TorchError> {
        Ok(match &mut self.family {
            Family::Accurate(hits) => hits.state()?,
            Family::Top(hits) => hits.state(),
            Family::Confusion(confusion) => confusion.state(),
            Family::Ranking(ranking) => ranking.state(),
            Family::Deviations(deviations) => deviations.state(),
            Family::Likelihood(likelihood) => likelihood.state(),
        })
    }

    /// Continues from what [`Accumulator::state`] returned.
    ///
    /// # Errors
    /// The state belongs to another metric; the accumulator is unchanged.
    pub fn restore(&mut self, state: &AccumulatorState) -> Result<(), MetricError> {
        let restored = match &mut self.family {
            Family::Accurate(hits) => hits.restore(state),
            Family::Top(hits) => hits.restore(state),
            Family::Confusion(confusion) => confusion.restore(state),
            Family::Ranking(ranking) => ranking.restore(state),
            Family::Deviations(deviations) => deviations.restore(state),
            Family::Likelihood(likelihood) => likelihood.restore(state),
        };
        restored.ok_or_else(|| MetricError::State { metric: self.metric.name() })
    }

    /// Adds what another accumulator of the same metric has of other samples, as if they had been added to this one after its
    /// own: counts are added, outputs put together, and sums added, which rounds otherwise than sample by sample.
    ///
    /// # Errors
    /// The state belongs to another metric, or to outputs of another shape; the accumulator is unchanged.
    pub fn merge(&mut self, state: &AccumulatorState) -> Result<(), MetricError> {
        let mut other = self.metric.accumulator();
        other.restore(state)?;
        let merged = match (&mut self.family, other.family) {
            (Family::Accurate(hits), Family::Accurate(other)) => hits.merge(other),
            (Family::Top(hits), Family::Top(other)) => hits.merge(other),
            (Family::Confusion(confusion), Family::Confusion(other)) => confusion.merge(other),
            (Family::Ranking(ranking), Family::Ranking(other)) => ranking.merge(other),
            (Family::Deviations(deviations), Family::Deviations(other)) => deviations.merge(other),
            (Family::Likelihood(likelihood), Family::Likelihood(other)) => likelihood.merge(other),
            _ => None,
        };
        merged.ok_or_else(|| MetricError::Merge { metric: self.metric.name() })
    }
}
