//! `step-eval`: evaluates within an epoch, as pytorch-accelerated's `StepBasedEvaluation` and Lightning's
//! `val_check_interval`.
//!
//! `when` says how often. The host evaluates once at a step, whoever asks for it: this, the run's `[eval] every`, or the end
//! of the epoch.

use plugin_api::event::{At, Trigger};
use plugin_api::protocol::Control;
use plugin_api::{Callback, Creation, Error, Result, Run, When, plugin};

/// Options of `step-eval`: it has none.
#[plugin]
#[derive(Default)]
pub(crate) struct Options {}

pub(crate) struct StepEval;

#[plugin]
impl Callback for StepEval {
    const KIND: &'static str = "step-eval";
    const SUMMARY: &'static str = "Evaluates every so many steps";
    const BY_DEFAULT: bool = false;
    const WHEN: When = When { every: Some("100 steps"), at: &[] };
    type Options = Options;

    fn new(_: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        let run_file: serde_json::Value = serde_json::from_str(&info.run_file)?;
        // Only a resolved run file says whether there is an evaluation.
        if run_file.get("train").is_some() && run_file.get("eval").is_none_or(serde_json::Value::is_null) {
            return Err(Error::new("the run evaluates nothing: add `[eval]` with the `split` to evaluate"));
        }
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        run.request(Control::Evaluate, &format!("step {}", event.global_step))
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    #[test]
    fn each_trigger_asks_for_an_evaluation() {
        let mut host = FakeHost::new::<StepEval>(json!({})).unwrap();
        host.set_position(1, 100);
        host.trigger("steps").unwrap();
        let [request] = host.requests() else { panic!("{:?}", host.requests()) };
        assert_eq!((request.action, request.reason.as_str()), (Control::Evaluate, "step 100"));
    }

    #[test]
    fn a_run_without_an_evaluation_is_told_so() {
        let with = |run_file: serde_json::Value| {
            let host = FakeHost::new::<StepEval>(json!({})).unwrap();
            host.with_info(|info| info.run_file = run_file.to_string()).setup()
        };
        let error = with(json!({ "train": { "epochs": 1 } })).unwrap_err();
        assert_eq!(error.message(), "the run evaluates nothing: add `[eval]` with the `split` to evaluate");
        with(json!({ "train": { "epochs": 1 }, "eval": { "split": "val" } })).unwrap();
    }
}
