//! The interface for runs on several machines: their processes, and the four operations that they do together.
//!
//! The training calls a [`ProcessGroup`] where several processes must act as one run: gradients are averaged after
//! backward, weights come from rank zero before the first step, all ranks meet before a checkpoint, and what callbacks
//! and signals asked for is decided once for all. Evaluations do not add up their sums yet, nor is a pause shared. A [`SingleProcess`] is the only group so far: each of its
//! operations is the identity, and the loop asks [`ProcessGroup::is_single`] before it prepares anything for one.

use tch::Tensor;

/// Why processes could not do something together.
#[derive(Debug, thiserror::Error)]
#[error("the processes of this run cannot {action}: {message}")]
pub struct DistributedError {
    /// What they were doing, as in `average the gradients`.
    pub action: &'static str,
    /// What went wrong.
    pub message: String,
}

/// The processes of one run. Each operation is collective: every rank calls it, in the same order, on its training
/// thread.
pub trait ProcessGroup {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world_size(&self) -> usize;

    /// Adds up `tensors` over all ranks, in place.
    ///
    /// # Errors
    ///
    /// A rank that is gone, or tensors that differ in shape or type.
    fn all_reduce(&self, tensors: &mut [Tensor]) -> Result<(), DistributedError>;

    /// Copies `tensors` of the rank `root` to all, in place.
    ///
    /// # Errors
    ///
    /// As for [`Self::all_reduce`].
    fn broadcast(&self, tensors: &mut [Tensor], root: usize) -> Result<(), DistributedError>;

    /// Waits until every rank is here.
    ///
    /// # Errors
    ///
    /// A rank that is gone.
    fn barrier(&self) -> Result<(), DistributedError>;

    /// Makes rank zero's decision everybody's: `bytes` in, those of rank zero out.
    ///
    /// # Errors
    ///
    /// A rank that is gone.
    fn agree(&self, bytes: Vec<u8>) -> Result<Vec<u8>, DistributedError>;

    /// Whether this process is the whole run.
    #[inline]
    fn is_single(&self) -> bool {
        self.world_size() == 1
    }
}

/// A run of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProcess;

impl ProcessGroup for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _: &mut [Tensor]) -> Result<(), DistributedError> {
        Ok(())
    }

    fn broadcast(&self, _: &mut [Tensor], _: usize) -> Result<(), DistributedError> {
        Ok(())
    }

    fn barrier(&self) -> Result<(), DistributedError> {
        Ok(())
    }

    fn agree(&self, bytes: Vec<u8>) -> Result<Vec<u8>, DistributedError> {
        Ok(bytes)
    }
}
