//! The input of the training: the data, and the batches of the training split.

use std::sync::Arc;
use std::time::Duration;

use tch::Tensor;

use super::error::TrainError;
use super::limits::Limits;
use crate::data::{Batch, Data, LoadedBatch, Loader, LoaderOptions, Order, TRAIN};
use crate::distributed::Share;
use crate::history::Position;

/// A seed other than the run's, so that steps outside the run do not repeat the batches that come next.
const APART: u64 = 0x9e37_79b9_7f4a_7c15;

/// How the training split becomes batches, and these become updates. No part of it depends on how many ranks there are.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// Samples of a batch, of all ranks together.
    pub size: usize,
    /// Batches of one update.
    pub accumulate: u64,
    /// The samples' order in an epoch.
    pub order: Order,
    /// Whether an epoch ends without a last batch that is smaller than the others.
    pub drop_last: bool,
}

/// The data and its batches.
pub(super) struct Feed {
    /// Shared with what answers callbacks in the background.
    pub(super) data: Arc<Data>,
    /// The batches of the training; none for a job that does not train.
    loader: Option<Loader>,
    pub(super) batches: Batches,
    pub(super) limits: Limits,
    /// The slice of each batch that this rank trains on.
    share: Share,
    /// The batches of steps outside the run, until its next epoch.
    apart: Option<Apart>,
    /// How long the loop had waited for data when the epoch began.
    waited_before: Duration,
}

/// Training batches outside the run's own order: those of one call of a service, and of the next one that goes on. They are
/// whole on each rank.
pub(super) struct Apart {
    epoch: u64,
    /// The number of the next batch.
    next: u64,
    loader: Loader,
}

impl Apart {
    pub(super) fn next_batch(&mut self) -> Result<Batch, TrainError> {
        self.next += 1;
        Ok(self.loader.next_batch()?.batch)
    }
}

/// This rank's samples of one update, on the CPU; maybe none.
pub(super) struct StepBatch {
    pub(super) inputs: Tensor,
    /// The inputs beside the samples.
    pub(super) others: Vec<Tensor>,
    pub(super) targets: Tensor,
}

/// How many samples the batches of one update have.
#[derive(Debug, Default)]
pub(super) struct StepSizes {
    /// Those of this rank's share of each batch, in the order of [`StepBatch`]; maybe 0.
    pub(super) own: Vec<i64>,
    /// Those of all ranks, of each batch; at least 1. The run's position counts by them.
    pub(super) global: Vec<i64>,
}

impl StepSizes {
    /// Batches of the update.
    pub(super) fn batches(&self) -> usize {
        self.own.len()
    }

    fn clear(&mut self) {
        self.own.clear();
        self.global.clear();
    }

    fn push(&mut self, loaded: &LoadedBatch) {
        self.own.push(loaded.batch.size as i64);
        self.global.push(loaded.global_size as i64);
    }
}

impl Feed {
    /// This rank's `share` of the batches from `position` on.
    pub(super) fn new(
        data: Data,
        batches: Batches,
        limits: Limits,
        position: Position,
        share: Share,
    ) -> Result<Self, TrainError> {
        let mut feed = Self { limits, share, ..Self::idle(data, batches) };
        feed.restart(position)?;
        Ok(feed)
    }

    /// For a job that does not train: the data may lack the split `train`.
    pub(super) fn idle(data: Data, batches: Batches) -> Self {
        Self {
            data: Arc::new(data),
            loader: None,
            batches,
            limits: Limits::default(),
            share: Share::whole(),
            apart: None,
            waited_before: Duration::ZERO,
        }
    }

    /// Updates of one epoch.
    pub(super) fn steps_per_epoch(&self) -> u64 {
        let batches = self.loader.as_ref().map_or(0, Loader::batches_per_epoch);
        (batches as u64).div_ceil(self.batches.accumulate)
    }

    /// Samples that an epoch trains on, of all ranks together.
    pub(super) fn samples_per_epoch(&self) -> u64 {
        let (all, size) = (self.training_samples(), self.batches.size.max(1) as u64);
        let all = if self.batches.drop_last { all / size * size } else { all };
        self.limits.of_epoch().map_or(all, |batches| all.min(batches.saturating_mul(size)))
    }

    /// Samples of the training split.
    pub(super) fn training_samples(&self) -> u64 {
        self.data.splits.get(TRAIN).map_or(0, |split| split.len() as u64)
    }

    /// How long the loop waited for data in all.
    pub(super) fn waited(&self) -> Duration {
        self.loader.as_ref().map_or(Duration::ZERO, Loader::waited)
    }

    pub(super) fn begin_epoch(&mut self) {
        self.apart = None;
        self.waited_before = self.waited();
    }

    /// How long the loop waited for data since the epoch began.
    pub(super) fn waited_in_epoch(&self) -> Duration {
        self.waited().saturating_sub(self.waited_before)
    }

    /// This rank's share of the batches of the next update, joined; `sizes` gets how many samples of each it is.
    pub(super) fn next_step(&mut self, sizes: &mut StepSizes) -> Result<StepBatch, TrainError> {
        let Some(loader) = &mut self.loader else { return Err(no_training()) };
        let first = loader.next_batch()?;
        sizes.clear();
        sizes.push(&first);
        let Batch { inputs, others, targets, .. } = first.batch;
        if self.batches.accumulate == 1 {
            return Ok(StepBatch { inputs, others, targets });
        }
        let mut others: Vec<Vec<Tensor>> = others.into_iter().map(|other| vec![other]).collect();
        let (mut is_last, mut parts) = (first.is_last, (vec![inputs], vec![targets]));
        while !is_last && sizes.batches() < self.batches.accumulate as usize {
            let next = loader.next_batch()?;
            is_last = next.is_last;
            sizes.push(&next);
            parts.0.push(next.batch.inputs);
            parts.1.push(next.batch.targets);
            others.iter_mut().zip(next.batch.others).for_each(|(parts, next)| parts.push(next));
        }
        let others = others.iter().map(|parts| Tensor::f_cat(parts, 0)).collect::<Result<_, _>>()?;
        Ok(StepBatch { inputs: Tensor::f_cat(&parts.0, 0)?, others, targets: Tensor::f_cat(&parts.1, 0)? })
    }

    /// Begins again at `position`: the prefetched batches belong to an epoch that was cut short.
    pub(super) fn restart(&mut self, position: Position) -> Result<(), TrainError> {
        let batches = self.batches;
        let split = self.data.split(TRAIN)?;
        let options = LoaderOptions {
            batch_size: batches.size,
            drop_last: batches.drop_last,
            most_batches: self.limits.of_epoch(),
            order: batches.order,
            first_epoch: position.epoch.max(1),
            // Before the first epoch, its first batch; the loader continues into the next epoch by itself.
            // There may be fewer than when the checkpoint was taken, where the command accepts that.
            first_batch: (position.step.saturating_mul(batches.accumulate) as usize)
                .min(split.len().div_ceil(batches.size.max(1))),
            last_epoch: None,
            share: self.share,
            augmentation: self.data.augmentation.clone(),
        };
        self.loader = Some(Loader::start(Arc::clone(split), options)?);
        Ok(())
    }

    /// Training batches outside the run's own order, from the batch `first` of those of `epoch` on.
    pub(super) fn apart(&mut self, epoch: u64, first: u64) -> Result<&mut Apart, TrainError> {
        let apart = match self.apart.take().filter(|apart| (apart.epoch, apart.next) == (epoch, first)) {
            Some(apart) => apart,
            None => Apart { epoch, next: first, loader: self.loader_apart(epoch, first)? },
        };
        Ok(self.apart.insert(apart))
    }

    fn loader_apart(&self, epoch: u64, first: u64) -> Result<Loader, TrainError> {
        let order = match self.batches.order {
            Order::Shuffled { seed } => Order::Shuffled { seed: seed ^ APART },
            Order::Sequential => Order::Sequential,
        };
        let (split, size) = (self.data.split(TRAIN)?, self.batches.size.max(1));
        let batches = if self.batches.drop_last { split.len() / size } else { split.len().div_ceil(size) };
        let batches = batches.max(1) as u64;
        let options = LoaderOptions {
            batch_size: self.batches.size,
            drop_last: self.batches.drop_last,
            most_batches: None,
            order,
            first_epoch: epoch.max(1).saturating_add(first / batches),
            first_batch: (first % batches) as usize,
            last_epoch: None,
            share: Share::whole(),
            augmentation: self.data.augmentation.clone(),
        };
        Ok(Loader::start(Arc::clone(split), options)?)
    }
}

/// The whole batches of a split in its own order, once, whichever rank this is.
pub(super) fn in_order(data: &Data, split: &str, batch_size: usize) -> Result<Loader, TrainError> {
    run_of_batches(data, split, batch_size, 0, None)
}

/// The whole batches of a split in its own order from `first` on, up to those that `end` leaves out.
pub(super) fn run_of_batches(
    data: &Data,
    split: &str,
    batch_size: usize,
    first: usize,
    end: Option<u64>,
) -> Result<Loader, TrainError> {
    let options = LoaderOptions {
        batch_size,
        drop_last: false,
        most_batches: end,
        order: Order::Sequential,
        first_epoch: 1,
        first_batch: first,
        last_epoch: Some(1),
        share: Share::whole(),
        augmentation: None,
    };
    Ok(Loader::start(Arc::clone(data.split(split)?), options)?)
}

/// The error of a job that does not train and is asked to.
fn no_training() -> TrainError {
    let source = std::io::Error::other("this job does not train");
    TrainError::System { action: "cannot load a batch of the training split", source }
}
