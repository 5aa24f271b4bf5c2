//! The names of the metrics that a run will give, known before it gives any.

use std::collections::BTreeSet;

use super::learner::Learner;
use super::metrics::Metric;
use super::session::TrainingPlan;

/// The name of every number that the loop or a callback will put. Arrays cannot be read as a number.
pub(super) fn metric_names(plan: &TrainingPlan, learner: &Learner) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["epoch_seconds", "step_seconds", "data_wait_seconds"].map(str::to_owned).into();
    names.extend(of_split("train", &plan.metrics));
    for evaluation in plan.evaluation.iter().chain(&plan.test) {
        names.extend(of_split(&evaluation.split, &evaluation.metrics));
    }
    names.extend(learner.learning_rates().into_iter().map(|(name, _)| name));
    if plan.clip_gradient_norm.is_some() {
        names.insert("gradient_norm".to_owned());
    }
    names.extend(plan.produced.iter().cloned());
    names
}

fn of_split<'a>(split: &'a str, metrics: &'a [Metric]) -> impl Iterator<Item = String> + 'a {
    let numbers = metrics.iter().filter(|metric| !metric.is_array()).map(|metric| metric.name());
    std::iter::once("loss".into()).chain(numbers).map(move |name| format!("{split}_{name}"))
}
