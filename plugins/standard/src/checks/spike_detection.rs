//! `spike-detection`: finds steps whose loss jumps up, and warns, leaves out their update, or goes back to an earlier state.
//!
//! A loss is a spike if it is more than `threshold` deviations above the median of the last `window` losses. The deviation
//! is the median absolute deviation (MAD) times 1.4826, which is the standard deviation of normally distributed values
//! (Rousseeuw and Croux 1993). Unlike mean and standard deviation, neither is moved by the spikes themselves. A loss that is NaN or
//! infinite is always a spike.

use std::collections::VecDeque;

use plugin_api::event::At;
use plugin_api::protocol::CopyAction;
use plugin_api::{Callback, Creation, Error, Need, Ranks, Result, Run, decode_state, encode_state, plugin, tracing};
use serde::{Deserialize, Serialize};

/// The standard deviation of a normal distribution whose MAD is 1.
const DEVIATION_OF_MAD: f64 = 1.4826;

/// The least deviation, as a part of the median: losses that hardly differ have no spikes in their last digits.
const LEAST_DEVIATION: f64 = 1e-3;

/// Options of `spike-detection`.
#[plugin]
pub(crate) struct Options {
    /// How many of the last losses a loss is compared with. Until there are as many, only NaN and infinity are spikes.
    #[schemars(range(min = 3, max = 100_000))]
    window: usize,
    /// How many deviations above the median a loss must be.
    #[schemars(range(min = 0.0))]
    threshold: f64,
    /// What to do with a spike.
    action: Action,
    /// With `rollback`: the number of steps between two copies of the training state.
    #[schemars(range(min = 1))]
    copy_every: u64,
    /// With `rollback`: how often to go back, at most. The next spike stops the run.
    most: u64,
}

#[plugin]
#[derive(Copy, PartialEq)]
enum Action {
    /// Only say so.
    Warn,
    /// Leave out the update of the step.
    Skip,
    /// Leave it out, and go back to the last copy of weights, optimizer and random generators. The data goes on, so that the
    /// batch does not come again at once.
    Rollback,
}

impl Default for Options {
    fn default() -> Self {
        Self { window: 100, threshold: 6.0, action: Action::Warn, copy_every: 100, most: 3 }
    }
}

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// The last losses, oldest first; only finite ones.
    losses: VecDeque<f64>,
    /// The samples of the run before the step in progress.
    samples: u64,
    /// How often the run went back.
    rollbacks: u64,
    /// The global step of the last copy.
    copied: Option<u64>,
}

pub(crate) struct SpikeDetection {
    options: Options,
    state: State,
    /// The name of the host's copy.
    copy: String,
    /// The step in progress has a spike after which the run goes back.
    goes_back: bool,
    /// Whether a stop was requested.
    asked: bool,
}

#[plugin]
impl Callback for SpikeDetection {
    const KIND: &'static str = "spike-detection";
    const SUMMARY: &'static str = "Finds steps whose loss jumps up: warns, skips their update, or rolls back";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    const NEEDS: &'static [Need] = &[Need::WRITES_WEIGHTS];
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        if options.window < 3 {
            return Err(Error::new(format!("`window` is {}: a median needs at least 3 losses", options.window)));
        }
        if !(options.threshold > 0.0 && options.threshold.is_finite()) {
            return Err(Error::new(format!("`threshold` is {}: set it to a number above 0", options.threshold)));
        }
        if options.copy_every == 0 {
            return Err(Error::new("`copy_every` is 0: set it to 1 step or more"));
        }
        let copy = format!("{}-before", creation.instance);
        Ok(Self { options, state: State::default(), copy, goes_back: false, asked: false })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    // The copy itself is not part of a checkpoint. It is taken again here, and by the run that resumes in `train_start`, so
    // that both go back to the same state: that of the checkpoint.
    fn on_save_state(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<Vec<u8>> {
        self.take_copy(run, event)?;
        encode_state(&self.state)
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.take_copy(run, event)
    }

    fn on_gradients(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let first_sample = std::mem::replace(&mut self.state.samples, event.samples) + 1;
        if self.asked {
            return Ok(());
        }
        let loss = run.loss()?;
        let spike = self.options.judge(&self.state.losses, loss);
        // Finite spikes join the window: when the loss stays on a new level, half a window later that level is normal.
        if loss.is_finite() {
            self.state.losses.push_back(loss);
        }
        while self.state.losses.len() > self.options.window {
            self.state.losses.pop_front();
        }
        let Some(spike) = spike else { return Ok(()) };
        let what = format!(
            "the loss {spike} in epoch {}, step {} (step {} of the run, samples {first_sample} to {} of the run)",
            event.epoch, event.step, event.global_step, event.samples
        );
        match self.options.action {
            Action::Warn => tracing::warn!("{what}"),
            Action::Skip => {
                run.skip_update(&what)?;
                tracing::warn!("{what}: its update is skipped");
            }
            Action::Rollback => {
                run.skip_update(&what)?;
                self.goes_back = true;
                tracing::warn!("{what}: its update is skipped");
            }
        }
        Ok(())
    }

    // Weights can be restored only when no step is in progress.
    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.options.action != Action::Rollback || self.asked {
            return Ok(());
        }
        if std::mem::take(&mut self.goes_back) {
            return self.go_back(run, event);
        }
        let is_due = self
            .state
            .copied
            .is_none_or(|copied| event.global_step - copied.min(event.global_step) >= self.options.copy_every);
        if is_due { self.take_copy(run, event) } else { Ok(()) }
    }
}

impl SpikeDetection {
    fn take_copy(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.options.action != Action::Rollback {
            return Ok(());
        }
        run.copy_training_state(&self.copy, CopyAction::Take)?;
        self.state.copied = Some(event.global_step);
        Ok(())
    }

    fn go_back(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let Options { most, .. } = self.options;
        if self.state.rollbacks >= most {
            self.asked = true;
            let step = event.global_step;
            return run.stop(&format!(
                "rollbacks_exhausted: the loss jumped up in step {step}, after {most} of {most} rollbacks"
            ));
        }
        run.copy_training_state(&self.copy, CopyAction::Restore)?;
        self.state.rollbacks += 1;
        let (rollbacks, copied) = (self.state.rollbacks, self.state.copied.unwrap_or_default());
        tracing::warn!("weights and optimizer are those of step {copied} again (rollback {rollbacks} of {most})");
        Ok(())
    }
}

impl Options {
    /// Says what a loss is beside the last ones, if it is a spike.
    fn judge(&self, losses: &VecDeque<f64>, loss: f64) -> Option<String> {
        if !loss.is_finite() {
            return Some(format!("is {loss}"));
        }
        if losses.len() < self.window {
            return None;
        }
        let mut values: Vec<f64> = losses.iter().copied().collect();
        let middle = median(&mut values);
        values.iter_mut().for_each(|value| *value = (*value - middle).abs());
        let deviation = (DEVIATION_OF_MAD * median(&mut values)).max(LEAST_DEVIATION * middle.abs());
        let is_spike = loss > middle + self.threshold * deviation;
        is_spike
            .then(|| format!("jumped to {loss:.6}, from a median of {middle:.6} with a deviation of {deviation:.6},"))
    }
}

/// The median of values of which there is at least one: the mean of the middle two if their number is even.
fn median(values: &mut [f64]) -> f64 {
    let half = values.len() / 2;
    let is_even = values.len().is_multiple_of(2);
    let (below, middle, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let middle = *middle;
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(other) if is_even => f64::midpoint(other, middle),
        _ => middle,
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::protocol::{Control, TensorSet};
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    fn step(host: &mut FakeHost, step: u64, loss: f64) {
        host.set_loss(loss);
        host.gradients(step).unwrap();
        host.step_end(step).unwrap();
    }

    /// The losses of five quiet steps: their median is 1.0, their deviation 0.14826.
    const QUIET: [f64; 5] = [1.0, 0.9, 1.1, 0.8, 1.2];

    fn after_quiet_steps(options: serde_json::Value) -> FakeHost {
        let mut host = FakeHost::new::<SpikeDetection>(options).unwrap();
        host.put_tensor(TensorSet::Parameters, Tensor::new("weight", &[1], &[0f32]).unwrap());
        host.train_start().unwrap();
        for (index, loss) in QUIET.into_iter().enumerate() {
            step(&mut host, index as u64 + 1, loss);
        }
        assert!(host.logs().is_empty(), "{:?}", host.logs());
        host
    }

    fn weight(host: &FakeHost) -> f64 {
        host.tensor(&TensorSet::Parameters, "weight").unwrap().view().scalar().unwrap()
    }

    fn set_weight(host: &mut FakeHost, value: f32) {
        host.put_tensor(TensorSet::Parameters, Tensor::new("weight", &[1], &[value]).unwrap());
    }

    #[test]
    fn a_jump_is_warned_of_with_its_batch() {
        let mut host = after_quiet_steps(json!({ "window": 5, "threshold": 4 }));
        step(&mut host, 6, 1.59);
        assert!(host.logs().is_empty(), "1.593 is the limit");
        step(&mut host, 7, 0.1);
        assert!(host.logs().is_empty(), "a loss that falls is no spike");
        step(&mut host, 12, 9.0);
        let told = "WARN the loss jumped to 9.000000, from a median of 1.100000 with a deviation of 0.444780, in epoch 2, step 2 \
                    (step 12 of the run, samples 225 to 384 of the run)";
        assert_eq!(host.logs(), [told]);
        assert!(host.requests().is_empty());
    }

    #[test]
    fn spikes_do_not_hide_the_next_one() {
        let mut host = after_quiet_steps(json!({ "window": 5 }));
        step(&mut host, 6, 100.0);
        step(&mut host, 7, 100.0);
        assert_eq!(host.logs().len(), 2, "{:?}", host.logs());
    }

    #[test]
    fn a_level_on_which_the_loss_stays_becomes_normal() {
        let mut host = after_quiet_steps(json!({ "window": 5, "action": "skip" }));
        for number in 6..20 {
            step(&mut host, number, 5.0);
        }
        let skipped = host.requests().iter().filter(|request| request.action == Control::SkipUpdate).count();
        assert!((2..=4).contains(&skipped), "{skipped} updates were skipped");
    }

    #[test]
    fn a_loss_that_is_no_number_is_a_spike_before_the_window_is_full_and_never_joins_it() {
        let mut host = FakeHost::new::<SpikeDetection>(json!({ "window": 5, "action": "skip" })).unwrap();
        step(&mut host, 1, f64::NAN);
        assert!(host.requested(Control::SkipUpdate));
        for (index, loss) in QUIET.into_iter().enumerate().take(4) {
            step(&mut host, index as u64 + 2, loss);
        }
        step(&mut host, 6, 50.0);
        assert_eq!(host.requests().len(), 1, "there are only four losses to compare it with");
        step(&mut host, 7, 50.0);
        assert_eq!(host.requests().len(), 2);
    }

    #[test]
    fn equal_losses_have_no_spikes_in_their_last_digits() {
        let mut host = FakeHost::new::<SpikeDetection>(json!({ "window": 3 })).unwrap();
        for number in 1..5 {
            step(&mut host, number, 2.0);
        }
        step(&mut host, 5, 2.01);
        assert!(host.logs().is_empty());
        step(&mut host, 6, 2.1);
        assert_eq!(host.logs().len(), 1);
    }

    #[test]
    fn a_rollback_restores_the_copy_and_the_last_one_stops_the_run() {
        let options = json!({ "window": 5, "action": "rollback", "copy_every": 4, "most": 1 });
        let mut host = after_quiet_steps(options);
        // Copies were taken at the beginning and after step 4.
        set_weight(&mut host, 6.0);
        step(&mut host, 6, 50.0);
        assert!(host.requested(Control::SkipUpdate));
        assert_eq!(weight(&host), 0.0);
        let told = "WARN weights and optimizer are those of step 4 again (rollback 1 of 1)";
        assert_eq!(host.logs().last().unwrap(), told);
        set_weight(&mut host, 8.0);
        step(&mut host, 8, 1.0);
        assert_eq!(host.stopped(), None);
        step(&mut host, 9, 60.0);
        let reason = "rollbacks_exhausted: the loss jumped up in step 9, after 1 of 1 rollbacks";
        assert_eq!((host.stopped(), weight(&host)), (Some(reason), 8.0));
        step(&mut host, 10, f64::NAN);
        assert_eq!(host.requests().iter().filter(|request| request.action == Control::Stop).count(), 1);
    }

    #[test]
    fn a_step_with_a_spike_is_not_copied() {
        let mut host = after_quiet_steps(json!({ "window": 5, "action": "rollback", "copy_every": 3 }));
        // A copy was taken after step 3, and the next one is due after step 6.
        set_weight(&mut host, 6.0);
        step(&mut host, 6, 50.0);
        assert_eq!(weight(&host), 0.0);
        set_weight(&mut host, 7.0);
        step(&mut host, 7, 1.0);
        set_weight(&mut host, 8.0);
        step(&mut host, 8, 50.0);
        assert_eq!(weight(&host), 7.0);
    }

    #[test]
    fn a_resumed_run_decides_as_an_unbroken_one() {
        let options = json!({ "window": 5, "action": "rollback", "copy_every": 100 });
        let mut unbroken = after_quiet_steps(options.clone());
        set_weight(&mut unbroken, 5.0);
        let state = unbroken.save_state().unwrap();
        let mut resumed = FakeHost::new::<SpikeDetection>(options).unwrap();
        set_weight(&mut resumed, 5.0);
        resumed.load_state(&state).unwrap();
        resumed.set_position(1, 5);
        resumed.train_start().unwrap();
        let seen = [&mut unbroken, &mut resumed].map(|host| {
            set_weight(host, 6.0);
            step(host, 6, 30.0);
            (weight(host), host.logs().to_vec(), host.save_state().unwrap())
        });
        assert_eq!(seen[0], seen[1]);
        assert_eq!((seen[0].0, seen[0].1.len()), (5.0, 2), "{:?}", seen[0].1);
    }

    #[test]
    fn wrong_options_are_refused() {
        for (options, told) in [
            (json!({ "window": 2 }), "`window` is 2: a median needs at least 3 losses"),
            (json!({ "threshold": 0 }), "`threshold` is 0: set it to a number above 0"),
            (json!({ "copy_every": 0 }), "`copy_every` is 0: set it to 1 step or more"),
        ] {
            assert_eq!(FakeHost::new::<SpikeDetection>(options).err().unwrap().message(), told);
        }
    }
}
