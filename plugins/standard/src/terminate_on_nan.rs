//! `terminate-on-nan`: ends a run whose loss is NaN or infinite.

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Error, Result, Run, plugin};

/// Options of `terminate-on-nan`.
#[plugin]
pub(crate) struct Options {
    /// The number of steps between two checks of the loss; 0 checks only at the end of an epoch. On an accelerator, each
    /// check waits for the step.
    every_steps: u64,
    /// Fail, as the run's `on_error` says, instead of requesting a stop.
    fail: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { every_steps: 1, fail: false }
    }
}

pub(crate) struct TerminateOnNan {
    options: Options,
    /// Whether a stop was requested; the loop may still finish its current work.
    asked: bool,
}

#[plugin]
impl Callback for TerminateOnNan {
    const KIND: &'static str = "terminate-on-nan";
    const SUMMARY: &'static str = "Ends the run when a loss is NaN or infinite";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { options, asked: false })
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let every = self.options.every_steps;
        if self.asked || every == 0 || !event.global_step.is_multiple_of(every) {
            return Ok(());
        }
        let loss = run.loss()?;
        self.judge(run, "the loss", loss, &format!("step {}", event.global_step))
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        for (name, value) in run.metrics()? {
            if !self.asked && (name == "loss" || name.ends_with("_loss")) {
                self.judge(run, &format!("`{name}`"), value, &format!("epoch {}", event.epoch))?;
            }
        }
        Ok(())
    }
}

impl TerminateOnNan {
    fn judge(&mut self, run: &mut Run<'_>, what: &str, value: f64, when: &str) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        self.asked = true;
        let reason = format!("non_finite_loss: {what} is {value} after {when}");
        if self.options.fail { Err(Error::new(reason)) } else { run.stop(&reason) }
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    #[test]
    fn a_loss_that_is_no_number_ends_the_run_once() {
        for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut host = FakeHost::new::<TerminateOnNan>(json!({})).unwrap();
            host.set_loss(1.0);
            host.step_end(1).unwrap();
            assert_eq!(host.stopped(), None);
            host.set_loss(loss);
            host.step_end(2).unwrap();
            host.step_end(3).unwrap();
            let reason = format!("non_finite_loss: the loss is {loss} after step 2");
            assert_eq!(host.stopped(), Some(reason.as_str()));
            assert_eq!(host.requests().len(), 1);
        }
    }

    #[test]
    fn steps_between_are_not_looked_at() {
        let mut host = FakeHost::new::<TerminateOnNan>(json!({ "every_steps": 3 })).unwrap();
        host.set_loss(f64::NAN);
        host.step_end(1).unwrap();
        host.step_end(2).unwrap();
        assert_eq!(host.stopped(), None);
        host.step_end(3).unwrap();
        assert!(host.stopped().is_some());
    }

    #[test]
    fn the_losses_of_an_epoch_are_looked_at_and_nothing_else_is() {
        let mut host = FakeHost::new::<TerminateOnNan>(json!({ "every_steps": 0 })).unwrap();
        host.put_metric("gradient_norm", f64::NAN);
        host.put_metric("train_loss", 1.0);
        host.step_end(1).unwrap();
        host.epoch_end(1).unwrap();
        assert_eq!(host.stopped(), None);
        host.put_metric("val_loss", f64::INFINITY);
        host.epoch_end(2).unwrap();
        assert_eq!(host.stopped(), Some("non_finite_loss: `val_loss` is inf after epoch 2"));
    }

    #[test]
    fn it_fails_where_it_is_told_to() {
        let mut host = FakeHost::new::<TerminateOnNan>(json!({ "fail": true })).unwrap();
        host.set_loss(f64::NAN);
        let error = host.step_end(1).unwrap_err();
        assert_eq!(error.message(), "non_finite_loss: the loss is NaN after step 1");
        assert_eq!(host.stopped(), None);
    }
}
