//! `limit-batches`: only the first batches of a split, as Lightning's `limit_train_batches` and `limit_val_batches`.
//!
//! The host cuts the epochs short, so that position, progress, schedules and checkpoints agree; this only asks for it.

use std::collections::BTreeMap;

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Error, Ranks, Result, Run, plugin};

/// Options of `limit-batches`.
#[plugin]
#[derive(Default)]
pub(crate) struct Options {
    /// How many batches are taken of each split: `{ train = 10, val = 2 }`. A split that is not named keeps all.
    batches: BTreeMap<String, u64>,
}

pub(crate) struct LimitBatches {
    batches: BTreeMap<String, u64>,
}

#[plugin]
impl Callback for LimitBatches {
    const KIND: &'static str = "limit-batches";
    const SUMMARY: &'static str = "Takes only the first batches of a split";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.batches.is_empty() {
            return Err(Error::new("`batches` must say how many batches of which split, such as `{ train = 10 }`"));
        }
        if let Some((split, _)) = options.batches.iter().find(|(_, batches)| **batches == 0) {
            return Err(Error::new(format!(
                "`batches.{split}` is 0, which would be none: set it to 1 or more, or leave it out for all"
            )));
        }
        Ok(Self { batches: options.batches })
    }

    // Before `train_start`, in which other callbacks read how many steps the run has.
    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let job = run.info()?.job;
        // A job on a saved checkpoint takes the data that its command names.
        if !(job.is_empty() || job == "train") {
            return Ok(());
        }
        self.batches.iter().try_for_each(|(split, batches)| run.limit_batches(split, Some(*batches)))
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    fn host(options: serde_json::Value) -> FakeHost {
        FakeHost::new::<LimitBatches>(options)
            .unwrap()
            .with_info(|info| info.data.splits = BTreeMap::from([("train".to_owned(), 320), ("val".to_owned(), 64)]))
    }

    #[test]
    fn each_split_gets_its_limit_before_training() {
        let mut host = host(json!({ "batches": { "train": 10, "val": 2 } }));
        host.setup().unwrap();
        assert_eq!(*host.limits(), BTreeMap::from([("train".to_owned(), 10), ("val".to_owned(), 2)]));
    }

    #[test]
    fn a_split_that_the_data_does_not_have_is_named() {
        let error = host(json!({ "batches": { "vall": 2 } })).setup().unwrap_err();
        assert_eq!(error.message(), "there is no split `vall`; did you mean `val`?");
    }

    #[test]
    fn options_that_limit_nothing_are_refused() {
        let refused = |options| FakeHost::new::<LimitBatches>(options).err().unwrap().message().to_owned();
        assert_eq!(refused(json!({})), "`batches` must say how many batches of which split, such as `{ train = 10 }`");
        assert_eq!(
            refused(json!({ "batches": { "train": 0 } })),
            "`batches.train` is 0, which would be none: set it to 1 or more, or leave it out for all"
        );
    }

    #[test]
    fn a_job_that_trains_nothing_is_left_alone() {
        let mut host = host(json!({ "batches": { "val": 2 } })).with_info(|info| info.job = "evaluate".to_owned());
        host.setup().unwrap();
        assert!(host.limits().is_empty());
    }
}
