//! Limits: the first batches of a split, in place of all of them.

use std::collections::BTreeMap;

use crate::data::TRAIN;

/// How many batches are taken of each split that has a limit.
///
/// A checkpoint holds only that of the epoch in progress: the callbacks of a resumed run ask again.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// By split.
    asked: BTreeMap<String, u64>,
    /// That of the training split in the epoch in progress, or in the last one: another one begins with an epoch.
    of_epoch: Option<u64>,
}

impl Limits {
    /// Those of a run that resumes in or after an epoch with this limit.
    pub(super) fn resumed(of_epoch: Option<u64>) -> Self {
        Self { asked: BTreeMap::new(), of_epoch }
    }

    /// The most batches of an evaluation of `split`.
    pub(super) fn of(&self, split: &str) -> Option<u64> {
        self.asked.get(split).copied()
    }

    /// The most batches of the training split in the epoch in progress.
    pub(super) fn of_epoch(&self) -> Option<u64> {
        self.of_epoch
    }

    pub(super) fn ask(&mut self, split: &str, batches: Option<u64>) {
        match batches {
            Some(batches) => self.asked.insert(split.to_owned(), batches),
            None => self.asked.remove(split),
        };
    }

    /// Gives the next epoch what was asked for; returns whether that is another limit.
    pub(super) fn begin_epoch(&mut self) -> bool {
        let asked = self.of(TRAIN);
        std::mem::replace(&mut self.of_epoch, asked) != asked
    }
}
