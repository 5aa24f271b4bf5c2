//! `inference-runner`: metrics of the model over other data, as tensorpack's `InferenceRunner`.
//!
//! The host reads the data as it read the run's own, and measures over all of it; this says when, and puts the metrics.

use plugin_api::event::{At, Trigger};
use plugin_api::{Callback, Creation, Error, Result, Run, plugin};

/// Options of `inference-runner`.
#[plugin]
pub(crate) struct Options {
    /// Other data than the run's, a file or a folder in the format of `[data]`, relative to the run file.
    #[schemars(extend("format" = "input-path"))]
    data: Option<String>,
    /// A split of the run's own data, in place of `data`.
    split: Option<String>,
    /// The metrics, as those of `[eval]`; `loss` is one of them. Without any: the loss and those of `[eval]`.
    metrics: Vec<String>,
    /// What their names begin with: `inference` makes `inference_loss`.
    #[schemars(extend("format" = "produced-prefix"))]
    prefix: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { data: None, split: None, metrics: Vec::new(), prefix: "inference".to_owned() }
    }
}

pub(crate) struct InferenceRunner {
    /// Where other data is; `None` for a split of the run's own.
    path: Option<String>,
    /// The split to measure: the instance's name for other data.
    split: String,
    metrics: Vec<String>,
    prefix: String,
}

#[plugin]
impl Callback for InferenceRunner {
    const KIND: &'static str = "inference-runner";
    const SUMMARY: &'static str = "Measures the model over other data than that of its evaluation";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        let Options { data, split, metrics, prefix } = options;
        let (path, split) = match (data.filter(|path| !path.is_empty()), split.filter(|name| !name.is_empty())) {
            (Some(path), None) => (Some(path), creation.instance.to_owned()),
            (None, Some(split)) => (None, split),
            (None, None) => {
                return Err(Error::new(
                    "nothing is measured: name other `data`, such as `\"held_out.csv\"`, or a `split` of the run's own",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(Error::new("`data` and `split` are both given: remove one, or declare a second instance"));
            }
        };
        if prefix.is_empty() {
            return Err(Error::new("`prefix` is empty: the metrics' names begin with it, such as `inference`"));
        }
        Ok(Self { path, split, metrics, prefix })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let job = run.info()?.job;
        // A job on a saved checkpoint trains nothing, and measures what its command names.
        if !(job.is_empty() || job == "train") {
            return Ok(());
        }
        if let Some(path) = &self.path {
            run.open_split(&self.split, path)?;
        }
        // One batch shows, before the training, whether the model and the metrics fit the data.
        let metrics: Vec<&str> = self.metrics.iter().map(String::as_str).collect();
        run.measure_first(&self.split, &metrics, None, Some(1)).map(drop)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        let metrics: Vec<&str> = self.metrics.iter().map(String::as_str).collect();
        let measured = run.measure(&self.split, &metrics, None)?;
        measured.into_iter().try_for_each(|(name, value)| run.put_metric(&format!("{}_{name}", self.prefix), value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plugin_api::ServiceKind;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    /// A host that measures 1 for each metric over the first batches, and 2 over all.
    fn host(options: serde_json::Value) -> FakeHost {
        let mut host = FakeHost::new::<InferenceRunner>(options).unwrap();
        host.answer_measure(|request| {
            let all = ["loss".to_owned(), "accuracy".to_owned()];
            let names = if request.metrics.is_empty() { &all[..] } else { &request.metrics };
            let value = if request.batches.is_some() { 1.0 } else { 2.0 };
            Ok(names.iter().map(|name| (name.clone(), value)).collect::<BTreeMap<_, _>>())
        });
        host
    }

    #[test]
    fn other_data_is_opened_once_and_measured_at_each_trigger() {
        let mut host = host(json!({ "data": "held_out.csv" }));
        host.setup().unwrap();
        let [opened] = host.opened_splits() else { panic!("{:?}", host.opened_splits()) };
        assert_eq!((opened.name.as_str(), opened.path.as_str()), ("inference-runner", "held_out.csv"));
        assert_eq!(host.metric("inference_loss"), None, "what is tried is not told");
        host.trigger("epoch").unwrap();
        assert_eq!((host.metric("inference_loss"), host.metric("inference_accuracy")), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn a_split_of_the_run_is_measured_by_metrics_and_names_of_its_own() {
        let mut host = host(json!({ "split": "test", "metrics": ["top5_error"], "prefix": "held_out" }));
        host.setup().unwrap();
        host.trigger("epoch").unwrap();
        assert!(host.opened_splits().is_empty());
        assert_eq!(host.metric("held_out_top5_error"), Some(2.0));
        assert_eq!(host.metric("held_out_loss"), None);
    }

    #[test]
    fn what_cannot_be_measured_is_told_before_training() {
        let mut host = host(json!({ "split": "test" }));
        host.fail(ServiceKind::MEASURE, "there is no split `test`");
        assert_eq!(host.setup().unwrap_err().message(), "there is no split `test`");
    }

    #[test]
    fn options_that_do_not_say_what_to_measure_are_refused() {
        let refused = |options| FakeHost::new::<InferenceRunner>(options).err().unwrap().message().to_owned();
        assert!(refused(json!({})).starts_with("nothing is measured"));
        assert!(refused(json!({ "data": "a", "split": "b" })).starts_with("`data` and `split` are both given"));
        assert!(refused(json!({ "split": "b", "prefix": "" })).starts_with("`prefix` is empty"));
    }

    #[test]
    fn a_job_that_trains_nothing_is_left_alone() {
        let mut host = host(json!({ "data": "a.csv" })).with_info(|info| info.job = "evaluate".to_owned());
        host.setup().unwrap();
        assert!(host.opened_splits().is_empty());
    }
}
