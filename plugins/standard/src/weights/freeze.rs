//! `freeze`: parameters that do not learn until an epoch, as in Lightning's `BaseFinetuning` and fastai's `freeze`.
//!
//! What is frozen is the host's: a checkpoint holds it, and a run that resumes within an epoch has it from its first step
//! on. The state here only says what this instance has asked for.

use plugin_api::event::At;
use plugin_api::protocol::{RunInfo, TensorSet};
use plugin_api::services::{fitting, list_names, nothing_learns};
use plugin_api::{Callback, Creation, Error, Ranks, Result, Run, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

/// Options of `freeze`.
#[plugin]
pub(crate) struct Options {
    /// The parameters to freeze: patterns of their names, in which `*` stands for any text, such as `conv*` or `*.bias`.
    #[schemars(length(min = 1))]
    freeze: Vec<String>,
    /// The first epoch in which they are frozen.
    #[schemars(range(min = 1))]
    from_epoch: u64,
    /// The first epoch in which they learn again. Without it, they stay frozen.
    #[schemars(range(min = 2))]
    unfreeze_at: Option<u64>,
    /// Whether the statistics of a batch norm whose parameters are all frozen go on following the batches, and it normalizes
    /// with those of the batch.
    moving_statistics: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { freeze: Vec::new(), from_epoch: 1, unfreeze_at: None, moving_statistics: false }
    }
}

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// The patterns that are frozen because of this instance: those of the options or, in a resumed run with other options,
    /// still those of before.
    frozen: Vec<String>,
    moving_statistics: bool,
}

pub(crate) struct Freeze {
    options: Options,
    state: State,
}

#[plugin]
impl Callback for Freeze {
    const KIND: &'static str = "freeze";
    const SUMMARY: &'static str = "Freezes parameters until an epoch, or from one on";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.freeze.is_empty() || options.freeze.iter().any(String::is_empty) {
            return Err(Error::new("`freeze` must name the parameters to freeze, such as `[\"conv*\", \"bn*\"]`"));
        }
        if options.from_epoch == 0 {
            return Err(Error::new("`from_epoch` is 0: the first epoch is 1"));
        }
        if let Some(at) = options.unfreeze_at.filter(|at| *at <= options.from_epoch) {
            let from = options.from_epoch;
            return Err(Error::new(format!(
                "`unfreeze_at` is {at}: it must come after `from_epoch`, which is {from}, or nothing would be frozen"
            )));
        }
        Ok(Self { options, state: State::default() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        // A job on a saved checkpoint trains nothing.
        if is_training(&run.info()?) { self.check(run) } else { Ok(()) }
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.state)
    }

    fn on_epoch_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let wanted = self.options.in_epoch(event.epoch);
        if wanted == self.state {
            return Ok(());
        }
        // First what learns again: patterns may overlap, and something must learn at any time.
        if !self.state.frozen.is_empty() {
            run.unfreeze(&self.state.frozen)?;
        }
        if !wanted.frozen.is_empty() {
            run.freeze(&wanted.frozen, wanted.moving_statistics)?;
        }
        let (patterns, how) = match wanted.frozen.is_empty() {
            true => (&self.state.frozen, "learn again"),
            false => (&wanted.frozen, "are frozen"),
        };
        let patterns = list_names(patterns.iter().map(String::as_str), "and");
        run.console_line(&format!("{patterns} {how} from epoch {} on", event.epoch))?;
        self.state = wanted;
        Ok(())
    }
}

impl Options {
    /// The state that an epoch has.
    fn in_epoch(&self, epoch: u64) -> State {
        let is_frozen = epoch >= self.from_epoch && self.unfreeze_at.is_none_or(|at| epoch < at);
        match is_frozen {
            true => State { frozen: self.freeze.clone(), moving_statistics: self.moving_statistics },
            false => State::default(),
        }
    }
}

impl Freeze {
    /// Refuses, before training, what the host would refuse when the epoch comes.
    fn check(&self, run: &Run<'_>) -> Result<()> {
        let parameters = run.list(TensorSet::Parameters)?;
        let names: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        let fitting =
            fitting("parameter", &self.options.freeze, &names).map_err(|refusal| Error::new(refusal.message))?;
        match fitting.len() == names.len() {
            true => Err(Error::new(nothing_learns().message)),
            false => Ok(()),
        }
    }
}

fn is_training(info: &RunInfo) -> bool {
    info.job.is_empty() || info.job == "train"
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    fn host(options: serde_json::Value) -> FakeHost {
        let mut host = FakeHost::new::<Freeze>(options).unwrap();
        for name in ["conv1.weight", "conv1.bias", "bn1.weight", "fc1.weight"] {
            host.put_tensor(TensorSet::Parameters, Tensor::new(name, &[1], &[1f32]).unwrap());
        }
        host
    }

    fn frozen(host: &FakeHost) -> Vec<&str> {
        host.frozen().keys().map(String::as_str).collect()
    }

    /// What is frozen in each of these epochs.
    fn by_epoch(host: &mut FakeHost, epochs: std::ops::RangeInclusive<u64>) -> Vec<usize> {
        let mut in_epoch = |epoch| {
            host.epoch_start(epoch).unwrap();
            host.frozen().len()
        };
        epochs.map(&mut in_epoch).collect()
    }

    #[test]
    fn patterns_are_frozen_from_one_epoch_until_another() {
        let mut host = host(json!({ "freeze": ["conv*", "bn1.*"], "from_epoch": 2, "unfreeze_at": 4 }));
        host.setup().unwrap();
        assert_eq!(by_epoch(&mut host, 1..=2), [0, 3]);
        assert_eq!(frozen(&host), ["bn1.weight", "conv1.bias", "conv1.weight"]);
        assert_eq!(by_epoch(&mut host, 3..=5), [3, 0, 0]);
        let said =
            ["`conv*` and `bn1.*` are frozen from epoch 2 on", "`conv*` and `bn1.*` learn again from epoch 4 on"];
        assert_eq!(host.lines(), said);
    }

    #[test]
    fn without_an_end_they_stay_frozen_and_a_run_may_begin_late() {
        let mut host = host(json!({ "freeze": ["conv*"], "moving_statistics": true }));
        assert_eq!(by_epoch(&mut host, 7..=9), [2, 2, 2]);
        assert!(host.frozen().values().all(|moving| *moving));
    }

    #[test]
    fn a_resumed_run_does_the_same_and_new_options_count() {
        let options = json!({ "freeze": ["conv*"], "unfreeze_at": 3 });
        let mut first = host(options.clone());
        by_epoch(&mut first, 1..=2);
        let state = first.save_state().unwrap();
        let mut resumed = host(options);
        resumed.load_state(&state).unwrap();
        assert_eq!(by_epoch(&mut resumed, 3..=3), [0]);
        assert_eq!(resumed.lines(), ["`conv*` learn again from epoch 3 on"]);

        let mut other = host(json!({ "freeze": ["bn1.*"] }));
        other.load_state(&state).unwrap();
        by_epoch(&mut other, 3..=3);
        assert_eq!(frozen(&other), ["bn1.weight"]);
    }

    #[test]
    fn what_cannot_be_frozen_is_told_before_training() {
        let refused = |options| host(options).setup().unwrap_err().message().to_owned();
        assert_eq!(
            refused(json!({ "freeze": ["conf*"], "from_epoch": 5 })),
            "there is no parameter `conf*`; did you mean `conv*`?"
        );
        assert!(refused(json!({ "freeze": ["*"] })).starts_with("all parameters of the model would be frozen"));
    }

    #[test]
    fn options_that_freeze_nothing_are_refused() {
        let refused = |options| FakeHost::new::<Freeze>(options).err().unwrap().message().to_owned();
        let nothing = "`freeze` must name the parameters to freeze, such as `[\"conv*\", \"bn*\"]`";
        assert_eq!(refused(json!({})), nothing);
        assert_eq!(refused(json!({ "freeze": [""] })), nothing);
        assert_eq!(refused(json!({ "freeze": ["a"], "from_epoch": 0 })), "`from_epoch` is 0: the first epoch is 1");
        assert_eq!(
            refused(json!({ "freeze": ["a"], "from_epoch": 3, "unfreeze_at": 3 })),
            "`unfreeze_at` is 3: it must come after `from_epoch`, which is 3, or nothing would be frozen"
        );
    }

    #[test]
    fn a_job_that_trains_nothing_is_left_alone() {
        let mut host = host(json!({ "freeze": ["conf*"] })).with_info(|info| info.job = "evaluate".to_owned());
        host.setup().unwrap();
    }
}
