//! The names of the metrics that a run will give, known before it gives any.

use std::collections::BTreeSet;

use super::metrics::Metric;
use super::precision::Precision;
use super::session::TrainingPlan;

/// The loss of a step: it has a value only while the step lasts. `train_loss` is the mean over the epoch so far.
pub(super) const STEP_LOSS: &str = "step_loss";

/// The name of every number that the loop will put; callbacks put more. Arrays cannot be read as a number.
///
/// `learning_rates` are the names of the learning rates.
pub fn metric_names(plan: &TrainingPlan, learning_rates: Vec<String>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> =
        ["epoch_seconds", "step_seconds", "data_wait_seconds", STEP_LOSS].map(str::to_owned).into();
    names.extend(of_split("train", &plan.metrics));
    for evaluation in plan.evaluation.iter().chain(&plan.test) {
        names.extend(of_split(&evaluation.split, &evaluation.metrics));
    }
    names.extend(learning_rates);
    if plan.clip_gradient_norm.is_some() {
        names.insert("gradient_norm".to_owned());
    }
    if plan.precision == Precision::Fp16 {
        names.insert("loss_scale".to_owned());
    }
    names
}

fn of_split<'a>(split: &'a str, metrics: &'a [Metric]) -> impl Iterator<Item = String> + 'a {
    let numbers = metrics.iter().filter(|metric| !metric.is_array()).map(|metric| metric.name());
    std::iter::once("loss".into()).chain(numbers).map(move |name| format!("{split}_{name}"))
}
