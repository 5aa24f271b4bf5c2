//! The status of the training, in the format of Kubeflow Trainer.
//!
//! The format is `UpdateTrainJobStatusRequest` of `pkg/apis/trainer/v1alpha1/trainjob_types.go` in
//! [kubeflow/trainer](https://github.com/kubeflow/trainer), as its proposal
//! [KEP-2779](https://github.com/kubeflow/trainer/tree/master/docs/proposals/2779-trainjob-progress) describes it:
//! whole numbers for the percentage and the seconds, values of metrics as strings, and a time that is required. The
//! limits are those of that type and of `pkg/statusserver/server.go`. Progress and the metrics about it are called and
//! rounded as by `KubeflowCallback` of huggingface/transformers.

use std::collections::BTreeMap;
use std::time::Duration;

use chart::Progress;
use jiff::Timestamp;
use plugin_api::Direction;
use plugin_api::event::{Outcome, Position};
use serde::Serialize;
use serde_json::json;

/// The most metrics of a status.
const MOST_METRICS: usize = 256;

/// The most characters of a metric's name.
const LONGEST_NAME: usize = 64;

/// The most bytes of a request's body.
const LONGEST_BODY: usize = 1 << 16;

/// What does not change during a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planned {
    /// The step at which this process began to train.
    pub(crate) first_step: u64,
    /// 0 if it is not known.
    pub(crate) total_steps: u64,
}

/// The status of the training.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_percentage: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_remaining_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<Metric>,
    last_updated_time: String,
}

#[derive(Clone, Debug, Serialize)]
struct Metric {
    name: String,
    value: String,
}

impl Status {
    /// The status at a position, `time` after the start; with an `outcome`, the last one.
    pub(crate) fn new(
        planned: Planned,
        position: &Position,
        time: Duration,
        outcome: Option<Outcome>,
        metrics: &BTreeMap<String, f64>,
    ) -> Self {
        let step = position.global_step;
        let Planned { first_step, total_steps } = planned;
        let mut progress = Progress::running(position);
        progress.estimate(first_step, total_steps, time);
        let done = (total_steps > 0).then(|| (100.0 * step as f64 / total_steps as f64) as u8);
        let (percentage, time_left) = match outcome {
            // The last evaluation and the exports come after the last step.
            None => (done.map(|done| done.min(99)), progress.time_left),
            // A run that was stopped early is done as well.
            Some(Outcome::Finished | Outcome::Stopped) => (Some(100), Some(0.0)),
            Some(_) => (done.map(|done| done.min(99)), None),
        };
        let position = [("current_epoch", position.epoch), ("current_step", step), ("total_steps", total_steps)];
        let position = position.map(|(name, value)| Metric { name: name.to_owned(), value: value.to_string() });
        // If there are too many, those that tell how good the model is are kept.
        let (results, others): (Vec<_>, Vec<_>) =
            metrics.iter().partition(|(name, _)| Direction::of_metric(name).is_some());
        let named = results.into_iter().chain(others).filter(|(name, _)| !name.is_empty());
        let metrics = position.into_iter().chain(named.map(|(name, value)| Metric::new(name, *value)));
        Self {
            progress_percentage: percentage,
            // The cast ends at the largest number.
            estimated_remaining_seconds: time_left.map(|seconds| seconds.ceil() as i32),
            metrics: metrics.take(MOST_METRICS).collect(),
            last_updated_time: format!("{:.0}", Timestamp::now()),
        }
    }

    /// The body of the request. Names of exotic letters can make it too long; then the last metrics are left out.
    pub(crate) fn body(mut self) -> String {
        loop {
            let body = json!({ "trainerStatus": self }).to_string();
            if body.len() <= LONGEST_BODY {
                return body;
            }
            self.metrics.truncate(self.metrics.len() * 3 / 4);
        }
    }
}

impl Metric {
    fn new(name: &str, value: f64) -> Self {
        // `Debug` writes large and small numbers with an exponent, so that no value is longer than the 64 characters
        // that are allowed.
        Self { name: name.chars().take(LONGEST_NAME).collect(), value: format!("{value:?}") }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const PLANNED: Planned = Planned { first_step: 0, total_steps: 300 };

    fn at(epoch: u64, global_step: u64) -> Position {
        let mut position = Position::default();
        (position.epoch, position.global_step) = (epoch, global_step);
        position
    }

    fn sent(status: Status) -> Value {
        serde_json::from_str(&status.body()).unwrap()
    }

    #[test]
    fn a_status_is_what_the_controller_reads() {
        let metrics = [("learning_rate", 1e-30), ("val_accuracy", 0.9876), ("val_loss", f64::NAN), ("", 1.0)];
        let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
        let mut found = sent(Status::new(PLANNED, &at(2, 200), Duration::from_millis(1999), None, &metrics));
        let time = found["trainerStatus"]["lastUpdatedTime"].take();
        let time = time.as_str().unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.len() == "2025-01-23T10:30:45Z".len(), "{time}");
        let expected = json!({
            "trainerStatus": {
                "progressPercentage": 66,
                "estimatedRemainingSeconds": 1,
                "metrics": [
                    { "name": "current_epoch", "value": "2" },
                    { "name": "current_step", "value": "200" },
                    { "name": "total_steps", "value": "300" },
                    { "name": "val_accuracy", "value": "0.9876" },
                    { "name": "val_loss", "value": "NaN" },
                    { "name": "learning_rate", "value": "1e-30" },
                ],
                "lastUpdatedTime": null,
            },
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn only_a_run_that_is_done_is_at_a_hundred() {
        let status = |step, outcome| {
            let status = Status::new(PLANNED, &at(1, step), Duration::from_secs(10), outcome, &BTreeMap::new());
            (status.progress_percentage, status.estimated_remaining_seconds)
        };
        assert_eq!(status(0, None), (Some(0), None));
        assert_eq!(status(150, None), (Some(50), Some(10)));
        assert_eq!(status(300, None), (Some(99), Some(0)));
        for outcome in [Outcome::Finished, Outcome::Stopped] {
            assert_eq!(status(150, Some(outcome)), (Some(100), Some(0)));
        }
        for outcome in [Outcome::Failed, Outcome::Interrupted] {
            assert_eq!(status(150, Some(outcome)), (Some(50), None));
        }
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let unknown = Planned::default();
        let status = Status::new(unknown, &at(1, 10), Duration::from_secs(1), None, &BTreeMap::new());
        let found = sent(status);
        // Sorted: whether an object keeps its order depends on what else is built.
        let keys: BTreeSet<&String> = found["trainerStatus"].as_object().unwrap().keys().collect();
        assert!(keys.into_iter().eq(["lastUpdatedTime", "metrics"]), "{found}");
        let years = Duration::from_secs(1 << 40);
        let status = Status::new(PLANNED, &at(1, 1), years, None, &BTreeMap::new());
        assert_eq!(status.estimated_remaining_seconds, Some(i32::MAX), "the largest that the controller takes");
    }

    #[test]
    fn too_many_metrics_hide_no_result() {
        let metrics = (0..1000).map(|number| (format!("a{number}"), 1.0));
        let metrics = metrics.chain([("val_loss".to_owned(), 0.5)]).collect();
        let status = Status::new(PLANNED, &at(1, 1), Duration::ZERO, None, &metrics);
        assert_eq!(status.metrics.len(), MOST_METRICS);
        assert!(status.metrics.iter().any(|metric| metric.name == "val_loss"));
    }

    proptest! {
        #[test]
        fn every_status_is_within_the_limits(
            names in prop::collection::btree_set("\\PC{0,80}|\u{1}{60,70}", 0..400),
            value: f64,
            step: u64,
            total_steps: u64,
            time in 0u64..1 << 50,
        ) {
            let metrics = names.into_iter().map(|name| (name, value)).collect();
            let planned = Planned { first_step: step / 2, total_steps };
            let status = Status::new(planned, &at(step / 7, step), Duration::from_secs(time), None, &metrics);
            let body = status.body();
            prop_assert!(body.len() <= LONGEST_BODY);
            let status = &serde_json::from_str::<Value>(&body).unwrap()["trainerStatus"];
            prop_assert!(status["progressPercentage"].as_i64().is_none_or(|percent| (0..=99).contains(&percent)));
            let seconds = status["estimatedRemainingSeconds"].as_i64();
            prop_assert!(seconds.is_none_or(|seconds| (0..=i64::from(i32::MAX)).contains(&seconds)));
            for metric in status["metrics"].as_array().unwrap() {
                for text in [&metric["name"], &metric["value"]] {
                    prop_assert!((1..=64).contains(&text.as_str().unwrap().chars().count()), "{}", metric);
                }
            }
        }
    }
}
