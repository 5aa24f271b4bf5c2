//! Batches gathered off the training thread.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};

use super::{
    Augmentation, Batch, DataError, Dataset,
    order::{Order, epoch_order},
};
use crate::distributed::Share;

/// Messages that may wait in the channel, in addition to the one being filled.
const QUEUED_MESSAGES: usize = 2;

/// The most bytes of inputs in a message of several batches. Waking the other thread costs some microseconds, as much
/// as gathering a small batch, so small batches are sent together.
const MESSAGE_BYTES: usize = 256 * 1024;

/// The most batches of a message, and so the most that are wasted when a run stops.
const MESSAGE_BATCHES: usize = 16;

/// What batches consist of, and their order.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Samples per batch, of all ranks together; the last batch of an epoch has the remaining ones.
    pub batch_size: usize,
    /// Whether a last batch of fewer samples is left out.
    pub drop_last: bool,
    /// The most batches of an epoch, if it is cut short: the first ones.
    pub most_batches: Option<u64>,
    /// The order of an epoch.
    pub order: Order,
    /// The epoch of the first batch.
    pub first_epoch: u64,
    /// The first batch, counted from 0 in its epoch; at the end of the epoch, the next one starts.
    pub first_batch: usize,
    /// The last epoch, after which no batch comes; `None` for one epoch after another.
    pub last_epoch: Option<u64>,
    /// The slice of each batch that is gathered. Which batches there are, and what they consist of, does not depend on it.
    pub share: Share,
    /// The changes to the samples of each batch.
    pub augmentation: Option<Arc<Augmentation>>,
}

/// A batch and its place.
#[derive(Debug)]
pub struct LoadedBatch {
    /// The samples of this rank's share, maybe none.
    pub batch: Batch,
    /// How many samples all ranks have of it together, at least one.
    pub global_size: usize,
    /// Its epoch.
    pub epoch: u64,
    /// Its position in the epoch, counted from 0.
    pub index: usize,
    /// Whether it ends its epoch.
    pub is_last: bool,
}

type Message = Result<Vec<LoadedBatch>, DataError>;

/// The batches of a data set, epoch after epoch, gathered ahead by a thread.
///
/// The thread continues with the next epoch while the training thread evaluates. Memory is bounded: some 64 small
/// batches ahead, or four large ones. Dropping the loader ends the thread. Of the data only this rank's share is read.
#[derive(Debug)]
pub struct Loader {
    /// `None` only while it is dropped.
    messages: Option<Receiver<Message>>,
    worker: Option<JoinHandle<()>>,
    /// The batches of the newest message, next one first.
    ready: std::vec::IntoIter<LoadedBatch>,
    waited: Duration,
    batches_per_epoch: usize,
}

impl Loader {
    /// Starts gathering. `dataset` must have at least one sample, and a batch at least one.
    pub fn start(dataset: Arc<dyn Dataset>, options: LoaderOptions) -> Result<Loader, DataError> {
        if options.batch_size == 0 {
            return Err(DataError::Option {
                option: "batch_size".to_owned(),
                value: "0".to_owned(),
                expected: "at least 1",
            });
        }
        let length =
            u32::try_from(dataset.len()).map_err(|_| DataError::TooManySamples { limit: u32::MAX as usize })?;
        if length == 0 {
            return Err(DataError::TooFewSamples {
                split: "of a loader".to_owned(),
                what: "no samples".to_owned(),
                available: 0,
            });
        }
        let batches_per_epoch = match options.drop_last {
            true => dataset.len() / options.batch_size,
            false => dataset.len().div_ceil(options.batch_size),
        };
        let most = options.most_batches.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let batches_per_epoch = batches_per_epoch.min(most);
        if batches_per_epoch == 0 {
            return Err(DataError::TooFewSamples {
                split: "of a loader".to_owned(),
                what: format!("no whole batch of {} samples", options.batch_size),
                available: dataset.len(),
            });
        }
        let (sender, receiver) = bounded(QUEUED_MESSAGES);
        let worker = std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || gather_all(&*dataset, length, batches_per_epoch, &options, &sender))
            .map_err(|source| DataError::WorkerNotStarted { source })?;
        Ok(Loader {
            messages: Some(receiver),
            worker: Some(worker),
            ready: Vec::new().into_iter(),
            waited: Duration::ZERO,
            batches_per_epoch,
        })
    }

    /// The next batch, waiting for it if necessary. After an error there are no more.
    pub fn next_batch(&mut self) -> Result<LoadedBatch, DataError> {
        loop {
            if let Some(batch) = self.ready.next() {
                return Ok(batch);
            }
            self.ready = self.receive()?.into_iter();
        }
    }

    /// How long [`Loader::next_batch`] has waited for the thread in all.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The number of batches in an epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.batches_per_epoch
    }

    /// The next message. The clock is read only if there is none yet.
    fn receive(&mut self) -> Message {
        let Some(messages) = &self.messages else {
            return Err(ended());
        };
        match messages.try_recv() {
            Ok(message) => return message,
            Err(TryRecvError::Empty) => {
                let start = Instant::now();
                let message = messages.recv();
                self.waited += start.elapsed();
                if let Ok(message) = message {
                    return message;
                }
            }
            Err(TryRecvError::Disconnected) => {}
        }
        // The thread ends by itself only after its last epoch or a reported error, or by a panic.
        Err(match self.worker.take().map(JoinHandle::join) {
            Some(Err(panic)) => DataError::WorkerPanicked { message: panic_message(&*panic) },
            _ => ended(),
        })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // The thread ends when it cannot send any more.
        self.messages = None;
        if let Some(worker) = self.worker.take() {
            // Nobody needs a batch any more, so a panic does not matter.
            let _ = worker.join();
        }
    }
}

fn ended() -> DataError {
    DataError::WorkerPanicked { message: "it ended after an earlier error, or after its last epoch".to_owned() }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no message".to_owned())
}

/// Gathers batch after batch until the receiver is gone, a batch fails or the last epoch is over.
fn gather_all(
    dataset: &dyn Dataset,
    length: u32,
    batches_per_epoch: usize,
    options: &LoaderOptions,
    messages: &Sender<Message>,
) {
    let batch_bytes = options.share.range(options.batch_size).len().saturating_mul(dataset.sample_bytes());
    let batches_per_message = (MESSAGE_BYTES / batch_bytes.max(1)).clamp(1, MESSAGE_BATCHES);
    let mut ready = Vec::with_capacity(batches_per_message);
    let mut first_batch = options.first_batch;
    for epoch in options.first_epoch..=options.last_epoch.unwrap_or(u64::MAX) {
        let order = epoch_order(options.order, epoch, length);
        let batches = || order.chunks(options.batch_size).take(batches_per_epoch);
        let count = batches().len();
        for (index, indices) in batches().enumerate().skip(first_batch) {
            let global_size = indices.len();
            match gather(dataset, &indices[options.share.range(global_size)], epoch, options) {
                Ok(batch) => ready.push(LoadedBatch { batch, global_size, epoch, index, is_last: index + 1 == count }),
                Err(error) => {
                    // The batches gathered before the error are valid.
                    let _ = messages.send(Ok(ready));
                    let _ = messages.send(Err(error));
                    return;
                }
            }
            if ready.len() == batches_per_message {
                let message = std::mem::replace(&mut ready, Vec::with_capacity(batches_per_message));
                if messages.send(Ok(message)).is_err() {
                    return;
                }
            }
        }
        first_batch = 0;
    }
    if !ready.is_empty() {
        // Nobody may be there any more.
        let _ = messages.send(Ok(ready));
    }
}

/// The samples at `indices`, changed as in this epoch.
fn gather(dataset: &dyn Dataset, indices: &[u32], epoch: u64, options: &LoaderOptions) -> Result<Batch, DataError> {
    let mut batch = dataset.gather(indices)?;
    if let Some(augmentation) = &options.augmentation {
        batch.inputs = augmentation.apply(&batch.inputs, indices, epoch)?;
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::{Augment, MemoryDataset, Targets};

    fn dataset(length: usize) -> Arc<dyn Dataset> {
        let features = (0..length).map(|index| index as f32).collect();
        Arc::new(MemoryDataset::new(features, Targets::classes(vec![0; length]), vec![1]))
    }

    fn options(first_epoch: u64, first_batch: usize) -> LoaderOptions {
        LoaderOptions {
            batch_size: 4,
            drop_last: false,
            most_batches: None,
            order: Order::Shuffled { seed: 3 },
            first_epoch,
            first_batch,
            last_epoch: None,
            share: Share::whole(),
            augmentation: None,
        }
    }

    /// Positions and samples of the next `count` batches.
    fn take(loader: &mut Loader, count: usize) -> Vec<(u64, usize, bool, Vec<f64>)> {
        (0..count)
            .map(|_| {
                let loaded = loader.next_batch().unwrap();
                let samples = Vec::try_from(loaded.batch.inputs.reshape([-1])).unwrap();
                assert_eq!(samples.len(), loaded.batch.size);
                (loaded.epoch, loaded.index, loaded.is_last, samples)
            })
            .collect()
    }

    #[test]
    fn an_epoch_may_be_its_first_batches() {
        let first = LoaderOptions { most_batches: Some(2), ..options(1, 1) };
        let mut loader = Loader::start(dataset(22), first).unwrap();
        assert_eq!(loader.batches_per_epoch(), 2);
        let mut whole = Loader::start(dataset(22), options(1, 1)).unwrap();
        let next = |loader: &mut Loader| {
            let next = loader.next_batch().unwrap();
            (next.epoch, next.index, next.is_last, next.batch.inputs)
        };
        let (epoch, index, _, inputs) = next(&mut whole);
        assert_eq!(next(&mut loader), (epoch, index, true, inputs), "as those of a whole epoch");
        let (epoch, index, is_last, _) = next(&mut loader);
        assert_eq!((epoch, index, is_last), (2, 0, false));
    }

    #[test]
    fn an_epoch_holds_every_sample_once_and_its_last_batch_the_rest() {
        let mut loader = Loader::start(dataset(10), options(1, 0)).unwrap();
        assert_eq!(loader.batches_per_epoch(), 3);
        for epoch in 1..=20 {
            let batches = take(&mut loader, 3);
            let places: Vec<_> = batches.iter().map(|(epoch, index, last, _)| (*epoch, *index, *last)).collect();
            assert_eq!(places, [(epoch, 0, false), (epoch, 1, false), (epoch, 2, true)]);
            assert_eq!(batches[2].3.len(), 2);
            let mut samples: Vec<_> = batches.into_iter().flat_map(|batch| batch.3).collect();
            samples.sort_by(f64::total_cmp);
            assert_eq!(samples, (0..10).map(f64::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_last_batch_that_is_smaller_is_left_out_on_request() {
        let start = |length, position| {
            let (epoch, batch) = position;
            Loader::start(dataset(length), LoaderOptions { drop_last: true, ..options(epoch, batch) })
        };
        let whole = take(&mut start(10, (1, 0)).unwrap(), 6);
        let places: Vec<_> =
            whole.iter().map(|(epoch, index, last, samples)| (*epoch, *index, *last, samples.len())).collect();
        assert_eq!(places, (1..=3).flat_map(|epoch| [(epoch, 0, false, 4), (epoch, 1, true, 4)]).collect::<Vec<_>>());
        // The samples that an epoch leaves out are others in the next one, and a position means the same.
        assert_eq!(take(&mut start(10, (2, 1)).unwrap(), 3), whole[3..]);
        assert_eq!(
            take(&mut start(8, (1, 0)).unwrap(), 4),
            take(&mut Loader::start(dataset(8), options(1, 0)).unwrap(), 4)
        );
        assert!(matches!(start(3, (1, 0)), Err(DataError::TooFewSamples { available: 3, .. })));
    }

    #[test]
    fn it_goes_on_at_any_position_with_the_same_batches() {
        let all = take(&mut Loader::start(dataset(10), options(1, 0)).unwrap(), 12);
        for position in 0..9 {
            let (epoch, batch) = (1 + position as u64 / 3, position % 3);
            let mut resumed = Loader::start(dataset(10), options(epoch, batch)).unwrap();
            assert_eq!(take(&mut resumed, 12 - position), all[position..]);
        }
        // A position after the last batch of an epoch is the start of the next.
        let mut resumed = Loader::start(dataset(10), options(1, 3)).unwrap();
        assert_eq!(take(&mut resumed, 3), all[3..6]);
    }

    /// Images of one pixel that are read one by one, and how often each was.
    struct Counted {
        samples: Arc<dyn Dataset>,
        reads: Vec<std::sync::atomic::AtomicUsize>,
    }

    impl Dataset for Counted {
        fn len(&self) -> usize {
            self.samples.len()
        }

        fn sample_shape(&self) -> &[i64] {
            self.samples.sample_shape()
        }

        fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
            for index in indices {
                self.reads[*index as usize].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            self.samples.gather(indices)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn the_slices_of_all_ranks_are_the_batches_of_one_process_and_each_sample_is_read_once(
            length in 1usize..30,
            batch_size in 1usize..9,
            world_size in 1usize..6,
            drop_last: bool,
            most_batches in prop::option::of(1u64..4),
            first_batch in 0usize..3,
            seed: u64,
        ) {
            let images = |samples| Augmentation::new(&[Augment::RandomErase { p: 0.5, area: [0.5, 0.9] }], samples, 1);
            let of_rank = |share| LoaderOptions {
                batch_size,
                drop_last,
                most_batches,
                order: Order::Shuffled { seed },
                first_epoch: 1,
                first_batch,
                last_epoch: Some(2),
                share,
                augmentation: images(&[1, 2, 1]).unwrap().map(Arc::new),
            };
            let data = Arc::new(Counted {
                samples: Arc::new(MemoryDataset::new(
                    (0..2 * length).map(|index| 1.0 + index as f32).collect(),
                    Targets::classes((0..length as i64).collect()),
                    vec![1, 2, 1],
                )),
                reads: (0..length).map(|_| 0.into()).collect(),
            });
            let start = |share| Loader::start(Arc::clone(&data) as Arc<dyn Dataset>, of_rank(share));
            let reads = || data.reads.iter().map(|count| count.swap(0, std::sync::atomic::Ordering::Relaxed));
            let Ok(mut whole) = start(Share::whole()) else { return Ok(()) };
            let batches = whole.batches_per_epoch();
            let count = 2 * batches - first_batch.min(batches);
            let expected: Vec<_> = (0..count).map(|_| whole.next_batch().unwrap()).collect();
            prop_assert!(whole.next_batch().is_err());
            let once: Vec<_> = reads().collect();

            let mut ranks: Vec<_> =
                (0..world_size).map(|rank| start(Share::new(rank, world_size)).unwrap()).collect();
            prop_assert!(ranks.iter().all(|loader| loader.batches_per_epoch() == batches));
            for whole in expected {
                prop_assert_eq!(whole.global_size, whole.batch.size);
                let parts: Vec<_> = ranks.iter_mut().map(|loader| loader.next_batch().unwrap()).collect();
                for part in &parts {
                    prop_assert_eq!(
                        (part.global_size, part.epoch, part.index, part.is_last),
                        (whole.global_size, whole.epoch, whole.index, whole.is_last)
                    );
                    let size = part.batch.size as i64;
                    prop_assert_eq!(part.batch.inputs.size(), [size, 1, 2, 1]);
                    prop_assert_eq!(part.batch.targets.size(), [size]);
                }
                let joined = |of: &dyn Fn(&Batch) -> tch::Tensor| {
                    tch::Tensor::cat(&parts.iter().map(|part| of(&part.batch)).collect::<Vec<_>>(), 0)
                };
                prop_assert_eq!(joined(&|batch| batch.inputs.shallow_clone()), whole.batch.inputs);
                prop_assert_eq!(joined(&|batch| batch.targets.shallow_clone()), whole.batch.targets);
            }
            prop_assert!(ranks.iter_mut().all(|loader| loader.next_batch().is_err()));
            prop_assert_eq!(reads().collect::<Vec<_>>(), once);
        }
    }

    #[test]
    fn no_batch_comes_after_the_last_epoch() {
        let all = take(&mut Loader::start(dataset(10), options(1, 0)).unwrap(), 6);
        let mut two = Loader::start(dataset(10), LoaderOptions { last_epoch: Some(2), ..options(1, 1) }).unwrap();
        assert_eq!(take(&mut two, 5), all[1..]);
        assert!(two.next_batch().unwrap_err().to_string().contains("after its last epoch"));
    }

    #[test]
    fn options_that_give_no_batches_are_errors() {
        let mut none = options(1, 0);
        none.batch_size = 0;
        assert!(matches!(Loader::start(dataset(3), none), Err(DataError::Option { .. })));
        assert!(matches!(Loader::start(dataset(0), options(1, 0)), Err(DataError::TooFewSamples { .. })));
    }

    /// Fails from a sample on, by error or by panic.
    struct Broken {
        from: u32,
        panics: bool,
    }

    impl Dataset for Broken {
        fn len(&self) -> usize {
            8
        }

        fn sample_shape(&self) -> &[i64] {
            &[1]
        }

        fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
            if indices.contains(&self.from) {
                assert!(!self.panics, "the disk is on fire");
                return Err(DataError::OutOfRange { index: self.from, length: 8 });
            }
            dataset(8).gather(indices)
        }
    }

    fn broken(panics: bool) -> Loader {
        let mut sequential = options(1, 0);
        sequential.order = Order::Sequential;
        Loader::start(Arc::new(Broken { from: 4, panics }), sequential).unwrap()
    }

    #[test]
    fn an_error_comes_after_the_batches_before_it() {
        let mut loader = broken(false);
        assert!(loader.next_batch().is_ok());
        assert!(matches!(loader.next_batch(), Err(DataError::OutOfRange { index: 4, .. })));
        assert!(loader.next_batch().is_err());
    }

    #[test]
    fn a_panic_of_the_worker_is_an_error_with_its_message() {
        let error = broken(true).next_batch().unwrap_err();
        assert!(error.to_string().contains("the disk is on fire"), "{error}");
    }

    #[test]
    fn dropping_the_loader_ends_its_thread() {
        let data = dataset(10);
        let loader = Loader::start(data.clone(), options(1, 0)).unwrap();
        drop(loader);
        assert_eq!(Arc::strong_count(&data), 1);
    }
}
