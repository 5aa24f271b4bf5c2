//! `terminate-on-nan`: ends a run in which a loss, another metric, a gradient or a weight is NaN or infinite.
//!
//! The reason of a stop starts with a keyword for programs: `non_finite_loss`, `non_finite_metric`, `non_finite_gradient`
//! or `non_finite_weight`. It is a request, so that every callback still gets its end hooks.

use monitor::selected;
use plugin_api::event::At;
use plugin_api::protocol::{TapOf, TensorSet};
use plugin_api::{Callback, Creation, Error, Ranks, Result, Run, plugin};

use super::non_finite::{Taps, first_weight};
use crate::metric_patterns::{refuse_empty, refuse_unknown};

/// Options of `terminate-on-nan`.
#[plugin]
pub(crate) struct Options {
    /// The number of steps between two checks of the loss, the gradients and the weights; 0 checks only at the end of an
    /// epoch, and no gradients. On an accelerator, each check waits for the step.
    every_steps: u64,
    /// The metrics to check at the end of an epoch; `*` stands for any characters.
    metrics: Vec<String>,
    /// Check the gradients, too. The update of a step with such a gradient is skipped, so that the weights stay finite.
    gradients: bool,
    /// Check the parameters and buffers, too. On an accelerator, each check copies all of them.
    weights: bool,
    /// Fail, as the run's `on_error` says, instead of requesting a stop.
    fail: bool,
}

impl Default for Options {
    fn default() -> Self {
        let metrics = ["loss", "*_loss"].map(str::to_owned).to_vec();
        Self { every_steps: 1, metrics, gradients: false, weights: false, fail: false }
    }
}

pub(crate) struct TerminateOnNan {
    options: Options,
    /// Counts what is wrong in each gradient.
    taps: Taps,
    /// Whether a stop was requested; the loop may still finish its current work.
    asked: bool,
}

#[plugin]
impl Callback for TerminateOnNan {
    const KIND: &'static str = "terminate-on-nan";
    const SUMMARY: &'static str = "Ends the run when a loss, a metric, a gradient or a weight is NaN or infinite";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        refuse_empty("metrics", &options.metrics)?;
        if options.gradients && options.every_steps == 0 {
            return Err(Error::new(
                "`gradients` are checked within a step, but `every_steps` is 0: set it to 1 or more, or leave out `gradients`",
            ));
        }
        Ok(Self { options, taps: Taps::default(), asked: false })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        // Not every run has a metric called `loss`.
        if self.options.metrics != Options::default().metrics {
            refuse_unknown(run, "metrics", &self.options.metrics)?;
        }
        if self.options.gradients {
            let parameters = run.list(TensorSet::Parameters)?.into_iter().map(|parameter| parameter.name);
            self.taps = Taps::request(run, TapOf::Gradient, parameters.collect())?;
        }
        Ok(())
    }

    // Before clipping: the norm of one gradient that is NaN makes them all NaN, and the first would no longer be known.
    fn on_gradients(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if !self.options.gradients || !self.is_due(event) {
            return Ok(());
        }
        let found = self.taps.read(run)?;
        let Some(first) = found.first() else { return Ok(()) };
        let all = if found.len() > 1 { format!(" ({} gradients have some)", found.len()) } else { String::new() };
        let reason = format!(
            "non_finite_gradient: the gradient of `{}` has {} values that are NaN or infinite in step {}{all}",
            first.name, first.count, event.global_step
        );
        if !self.options.fail {
            run.skip_update(&reason)?;
        }
        self.end(run, reason)
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if !self.is_due(event) {
            return Ok(());
        }
        let loss = run.loss()?;
        self.judge(run, "loss", "the loss", loss, || format!("step {}", event.global_step))?;
        self.check_weights(run, event)
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        for (name, value) in run.metrics()? {
            if !self.asked && selected(&self.options.metrics, &[], &name) {
                let keyword = if name == "loss" || name.ends_with("_loss") { "loss" } else { "metric" };
                self.judge(run, keyword, &format!("`{name}`"), value, || format!("epoch {}", event.epoch))?;
            }
        }
        if self.options.every_steps == 0 { self.check_weights(run, event) } else { Ok(()) }
    }
}

impl TerminateOnNan {
    fn is_due(&self, event: &At<'_>) -> bool {
        let every = self.options.every_steps;
        !self.asked && every != 0 && event.global_step.is_multiple_of(every)
    }

    fn judge(
        &mut self,
        run: &mut Run<'_>,
        keyword: &str,
        what: &str,
        value: f64,
        when: impl FnOnce() -> String,
    ) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        self.end(run, format!("non_finite_{keyword}: {what} is {value} after {}", when()))
    }

    fn check_weights(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if !self.options.weights || self.asked {
            return Ok(());
        }
        let Some((name, index, value)) = first_weight(run)? else { return Ok(()) };
        let step = event.global_step;
        self.end(run, format!("non_finite_weight: `{name}` is {value} at element {index} after step {step}"))
    }

    fn end(&mut self, run: &mut Run<'_>, reason: String) -> Result<()> {
        self.asked = true;
        if self.options.fail { Err(Error::new(reason)) } else { run.stop(&reason) }
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::protocol::Control;
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

    #[test]
    fn any_metric_can_be_looked_at() {
        let mut host = FakeHost::new::<TerminateOnNan>(json!({ "metrics": ["val_acc*", "norm"] })).unwrap();
        host.put_metric("train_loss", f64::NAN);
        host.epoch_end(1).unwrap();
        assert_eq!(host.stopped(), None, "it is not named");
        host.put_metric("val_accuracy", f64::NAN);
        host.epoch_end(2).unwrap();
        assert_eq!(host.stopped(), Some("non_finite_metric: `val_accuracy` is NaN after epoch 2"));
        assert_eq!(host.requests().len(), 1);
    }

    #[test]
    fn a_metric_that_the_run_does_not_give_is_refused() {
        let set_up = |metrics: &[&str]| {
            let host = FakeHost::new::<TerminateOnNan>(json!({ "metrics": metrics })).unwrap();
            let mut host = host.with_info(|info| info.metrics = ["train_loss", "val_loss"].map(str::to_owned).to_vec());
            host.setup().map_err(|error| error.message().to_owned())
        };
        assert_eq!(set_up(&["val_loss", "*accuracy"]), Ok(()));
        assert_eq!(set_up(&["loss", "*_loss"]), Ok(()), "the default asks for nothing");
        let told = "`metrics` names `val_los`, which this run does not give; did you mean `val_loss`?";
        assert_eq!(set_up(&["val_los"]), Err(told.to_owned()));
        let refused = |options| FakeHost::new::<TerminateOnNan>(options).err().unwrap().message().to_owned();
        assert!(refused(json!({ "metrics": [] })).starts_with("`metrics` is empty"));
        assert!(refused(json!({ "gradients": true, "every_steps": 0 })).contains("`every_steps` is 0"));
    }

    fn put_tap(host: &mut FakeHost, name: &str, count: f32) {
        let name = format!("non_finite.gradient.{name}");
        host.put_tensor(TensorSet::Taps, Tensor::new(name, &[], &[count]).unwrap());
    }

    #[test]
    fn the_first_gradient_is_named_and_its_update_is_skipped() {
        let mut host = FakeHost::new::<TerminateOnNan>(json!({ "gradients": true, "every_steps": 2 })).unwrap();
        for name in ["fc2.weight", "fc1.weight"] {
            host.put_tensor(TensorSet::Parameters, Tensor::new(name, &[1], &[0f32]).unwrap());
        }
        host.setup().unwrap();
        let taps: Vec<_> = host.taps().iter().map(|tap| (tap.node.as_str(), tap.of)).collect();
        assert_eq!(taps, [("fc2.weight", TapOf::Gradient), ("fc1.weight", TapOf::Gradient)]);
        // Another callback's tap is no concern of this one.
        host.put_tensor(TensorSet::Taps, Tensor::new("other", &[], &[7f32]).unwrap());
        put_tap(&mut host, "fc1.weight", 0.0);
        put_tap(&mut host, "fc2.weight", 0.0);
        host.gradients(2).unwrap();
        put_tap(&mut host, "fc1.weight", 3.0);
        host.gradients(3).unwrap();
        assert!(host.requests().is_empty(), "step 3 is not looked at");
        put_tap(&mut host, "fc2.weight", 2.0);
        host.gradients(4).unwrap();
        let reason = "non_finite_gradient: the gradient of `fc2.weight` has 2 values that are NaN or infinite in step 4 \
                      (2 gradients have some)";
        assert_eq!(host.stopped(), Some(reason));
        assert!(host.requested(Control::SkipUpdate));
        host.gradients(6).unwrap();
        assert_eq!(host.requests().len(), 2);
    }

    #[test]
    fn the_first_weight_is_named() {
        for (every_steps, buffer) in [(1, false), (0, true)] {
            let options = json!({ "weights": true, "every_steps": every_steps });
            let mut host = FakeHost::new::<TerminateOnNan>(options).unwrap();
            host.set_loss(1.0);
            host.put_tensor(TensorSet::Parameters, Tensor::new("fc1.weight", &[2], &[0f32, 1.0]).unwrap());
            host.put_tensor(TensorSet::Buffers, Tensor::new("steps", &[1], &[3i64]).unwrap());
            host.setup().unwrap();
            host.step_end(1).unwrap();
            host.epoch_end(1).unwrap();
            assert_eq!(host.stopped(), None);
            let (set, name) =
                if buffer { (TensorSet::Buffers, "bn.var") } else { (TensorSet::Parameters, "fc1.weight") };
            host.put_tensor(set, Tensor::new(name, &[2], &[0f32, f32::INFINITY]).unwrap());
            host.step_end(11).unwrap();
            assert_eq!(host.stopped().is_some(), every_steps == 1);
            host.epoch_end(2).unwrap();
            let step = if buffer { 20 } else { 11 };
            let reason = format!("non_finite_weight: `{name}` is inf at element 1 after step {step}");
            assert_eq!(host.stopped(), Some(reason.as_str()));
            assert_eq!(host.requests().len(), 1);
        }
    }
}
