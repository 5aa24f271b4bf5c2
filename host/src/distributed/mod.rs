//! The processes of one run, its ranks, and what they do together.
//!
//! The training asks its [`ProcessGroup`] where several processes must act as one run: gradients are summed while backward
//! still computes others, weights come from rank zero before the first step, metrics are merged, and what callbacks and
//! signals asked for on any rank is decided once for all. With one process each of this is the identity, and the loop asks
//! [`ProcessGroup::is_single`] before it prepares anything.
//!
//! libtorch's own engine does the work: `torch::c10d` and `torch::buckets`. What is here is who the ranks are ([`Meeting`]),
//! and who is the reason when one of them is gone (`watch`).

mod end;
mod error;
mod join;
pub mod launch;
mod share;
#[cfg(test)]
mod tests;
mod watch;

use std::rc::Rc;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::torch::buckets::{BucketSizes, Buckets};
use crate::torch::c10d::Group;

pub use end::RankEnd;
pub use error::DistributedError;
use join::Joined;
pub use join::Meeting;
pub use launch::{Launch, LaunchError, Origin};
pub use share::Share;
use watch::Doing;

/// The processes of one run. Operations are collective: every rank calls them in the same order, on its training thread.
#[derive(Debug, Default)]
pub struct ProcessGroup {
    joined: Option<Joined>,
}

impl ProcessGroup {
    /// A run of one process.
    pub fn single() -> Self {
        Self { joined: None }
    }

    /// Waits for the other ranks of a run, and connects all of them.
    ///
    /// # Errors
    ///
    /// When not all come in time, or one is of another version.
    pub fn join(meeting: &Meeting) -> Result<Self, DistributedError> {
        Ok(Self { joined: Some(Joined::meet(meeting)?) })
    }

    /// This process, from 0.
    pub fn rank(&self) -> usize {
        self.joined.as_ref().map_or(0, |joined| joined.rank)
    }

    /// How many there are.
    pub fn world_size(&self) -> usize {
        self.joined.as_ref().map_or(1, |joined| joined.world_size)
    }

    /// Whether this process is the whole run.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.joined.is_none()
    }

    /// Gives every rank what each of them has: `bytes` in, those of all ranks out, in their order. Their lengths may differ.
    ///
    /// # Errors
    ///
    /// A rank that is gone.
    pub fn exchange(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, DistributedError> {
        let Some(joined) = &self.joined else { return Ok(vec![bytes]) };
        joined.watch.operation("exchange what they have", || exchange(&joined.group, &bytes))
    }

    /// Copies `tensors` of rank zero to all, in place.
    ///
    /// # Errors
    ///
    /// A rank that is gone.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<(), DistributedError> {
        let Some(joined) = &self.joined else { return Ok(()) };
        joined.watch.operation("copy the weights of rank 0", || joined.group.broadcast(tensors))
    }

    /// Checks that this rank has what rank zero has, before any tensors are exchanged: gloo ends the process where their
    /// sizes differ. `what` is how a rank would differ, as in `another model`; `own` is a digest or a short text.
    ///
    /// # Errors
    ///
    /// When it has another, or a rank is gone.
    pub fn compare(&self, what: &'static str, own: &str) -> Result<(), DistributedError> {
        let Some(joined) = &self.joined else { return Ok(()) };
        let key = format!("same/{what}");
        if joined.rank == 0 {
            let failed = |source| joined.watch.explain("compare what they are made from", source);
            return joined.store.set(&key, own.as_bytes()).map_err(failed);
        }
        let of_zero = joined.wait_for(&key)?;
        if of_zero == own.as_bytes() {
            return Ok(());
        }
        Err(joined.differs(what, own.to_owned(), String::from_utf8_lossy(&of_zero).into_owned()))
    }

    /// Rank zero's `value`, for all: through the store, so that the others wait for it however long that takes.
    ///
    /// # Errors
    ///
    /// A rank that is gone.
    pub fn tell(&self, key: &str, value: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, DistributedError> {
        let Some(joined) = &self.joined else { return Ok(value()) };
        let key = format!("told/{key}");
        if joined.rank != 0 {
            return joined.wait_for(&key);
        }
        let value = value();
        let failed = |source| joined.watch.explain("be told", source);
        joined.store.set(&key, &value).map_err(failed)?;
        Ok(value)
    }

    /// The buckets of the gradients of `parameters`; `None` with one process.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn buckets<'t>(
        &self,
        parameters: impl IntoIterator<Item = &'t Tensor>,
        sizes: BucketSizes,
        slots: usize,
    ) -> Result<Option<Buckets>, DistributedError> {
        let Some(joined) = &self.joined else { return Ok(None) };
        let buckets = Buckets::new(Rc::clone(&joined.group), parameters, sizes, slots);
        let failed = |source| DistributedError::Operation {
            world_size: joined.world_size,
            action: "prepare the sums of gradients",
            source,
        };
        buckets.map(Some).map_err(failed)
    }

    /// Ends a step's backward: waits until the gradients are summed. Returns the sums of the slots.
    ///
    /// # Errors
    ///
    /// A rank that is gone.
    pub fn finish(&self, buckets: &mut Buckets) -> Result<Vec<f32>, DistributedError> {
        let Some(joined) = &self.joined else { return Ok(Vec::new()) };
        joined.watch.operation("sum gradients", || buckets.finish())
    }

    /// The ranks for statistics of batch normalization; `None` with one process.
    pub fn statistics(&self) -> Option<Rc<Group>> {
        self.joined.as_ref().map(|joined| Rc::clone(&joined.statistics))
    }

    /// Says that this rank computes from now on, or that what it does may take any time: the others wait for a callback however
    /// long it takes, but not for a computation that does not end.
    #[inline]
    pub fn set_computing(&self, computes: bool) {
        if let Some(joined) = &self.joined {
            joined.watch.set_doing(if computes { Doing::Computing } else { Doing::Anything });
        }
    }

    /// Why a computation failed in which ranks work together: the rank that is the reason, if one is found within some seconds.
    pub fn find_reason(&self) -> Option<DistributedError> {
        self.joined.as_ref()?.watch.search()
    }

    /// What ends this rank for the others; it outlives the group.
    pub fn rank_end(&self) -> RankEnd {
        let joined = self.joined.as_ref();
        RankEnd {
            connection: joined.map(|joined| end::Connection {
                store: Arc::clone(&joined.store),
                _served: Arc::clone(&joined.served),
                rank: joined.rank,
                world_size: joined.world_size,
            }),
        }
    }

    /// After a failure: operations that have begun may never end, and nobody waits for them.
    pub fn abandon(&self) {
        if let Some(joined) = &self.joined {
            joined.group.abandon();
            joined.statistics.abandon();
        }
    }
}

/// The length of a message's first part, of which most need no second.
const FIRST: usize = 256;

/// Its room for bytes: their number comes first.
const ROOM: usize = FIRST - size_of::<u64>();

fn exchange(group: &Group, bytes: &[u8]) -> Result<Vec<Vec<u8>>, crate::torch::TorchError> {
    let mut first = [0u8; FIRST];
    first[..size_of::<u64>()].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    let (head, rest) = bytes.split_at(bytes.len().min(ROOM));
    first[size_of::<u64>()..][..head.len()].copy_from_slice(head);
    let mut all = rows(&group.all_gather(&Tensor::from_slice(&first))?)?;
    let mut lengths = Vec::new();
    for row in &mut all {
        let (length, _) = row.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        row.drain(..size_of::<u64>());
        row.truncate(length);
        lengths.push(length);
    }
    let longest = lengths.iter().map(|length| length.saturating_sub(ROOM)).max().unwrap_or(0);
    if longest == 0 {
        return Ok(all);
    }
    let padded = Tensor::f_zeros([longest as i64], (Kind::Uint8, Device::Cpu))?;
    padded.f_narrow(0, 0, rest.len() as i64)?.f_copy_(&Tensor::from_slice(rest))?;
    let seconds = rows(&group.all_gather(&padded)?)?;
    for ((row, length), second) in all.iter_mut().zip(lengths).zip(seconds) {
        row.extend(&second[..length.saturating_sub(ROOM).min(second.len())]);
    }
    Ok(all)
}

fn rows(tensor: &Tensor) -> Result<Vec<Vec<u8>>, crate::torch::TorchError> {
    let rows = tensor.f_unbind(0)?;
    rows.iter().map(|row| Ok(Vec::<u8>::try_from(row)?)).collect()
}
