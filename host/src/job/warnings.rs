//! What is wrong with a run that is not refused and does not fail: nothing keeps its weights, or its loss is NaN.

use plugin_api::abi::kinds::EventKind;
use plugin_api::protocol::Need;

use crate::config::At;
use crate::dispatch::{Order, Planned};
use crate::plugins::VARIABLE;
use crate::report::Problem;
use crate::train::NotFinite;

/// The warning of a run folder whose last process ended so.
pub(super) fn sudden_end(end: &str) -> Problem {
    Problem::new(format!("the last process of this run {end}"))
}

/// The warning of a run whose weights are lost when it ends; `None` if an instance keeps them.
pub(super) fn weights_are_lost(order: &Order) -> Option<Problem> {
    const CHECKPOINT: &str = "checkpoint";
    if order.planned.iter().any(keeps_weights) {
        return None;
    }
    let hint = if order.available.iter().any(|kind| kind == CHECKPOINT) {
        format!("let a plugin keep them, such as `{CHECKPOINT}`: `--plugin {CHECKPOINT}`")
    } else {
        format!(
            "give the folder of a plugin that keeps them, such as `{CHECKPOINT}`: `--plugins DIR`, or set `{VARIABLE}`"
        )
    };
    Some(Problem::new("nothing keeps the weights of this run: no plugin writes checkpoints or exports").with_hint(hint))
}

/// Whether an instance writes the weights down, as far as its kind's descriptor tells, which is the same for anybody's
/// plugin: it writes checkpoints, or it reads the parameters when the run ends or is at its best. One that reads them only
/// in between, such as a monitor that draws histograms, looks at them.
fn keeps_weights(planned: &Planned) -> bool {
    let at_its_time = planned.when.at.contains(&At::End) || !planned.when.best.is_empty();
    let reads = |need: &Need, hook| need.what == "parameters" && !need.write && need.is_for(hook);
    planned.kind.descriptor().needs.iter().any(|need| {
        need.what == Need::TRAINING_STATE
            || reads(need, EventKind::TRAIN_END)
            || reads(need, EventKind::EXPORT)
            || (at_its_time && reads(need, EventKind::TRIGGER))
    })
}

/// The warnings of a run's losses.
pub(super) fn losses(not_finite: &[NotFinite]) -> Vec<Problem> {
    const CURE: &str =
        "lower the learning rate, or set `clip_gradient_norm`; the plugin `terminate-on-nan` stops such a run";
    let mut warnings: Vec<Problem> = not_finite.iter().map(|loss| Problem::new(loss.to_string())).collect();
    // One hint is enough for all.
    if let Some(last) = warnings.pop() {
        let cure = not_finite.iter().any(|loss| !loss.recovered).then(|| CURE.to_owned());
        warnings.push(last.with_hint(cure));
    }
    warnings
}
