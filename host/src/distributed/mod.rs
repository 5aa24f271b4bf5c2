//! The processes of one run, its ranks, and what they do together.
//!
//! The training asks its [`ProcessGroup`] where several processes must act as one run: gradients are summed while backward
//! still computes others, weights come from rank zero before the first step, metrics are merged, and what callbacks and
//! signals asked for on any rank is decided once for all. With one process each of this is the identity, and the loop asks
//! [`ProcessGroup::is_single`] before it prepares anything.

mod share;

use tch::Tensor;

pub use share::Share;

/// Why processes could not do something together.
#[derive(Debug, thiserror::Error)]
#[error("the processes of this run cannot {action}: {message}")]
pub struct DistributedError {
    /// What they were doing, as in `average the gradients`.
    pub action: &'static str,
    /// What went wrong.
    pub message: String,
}

/// The processes of one run. Operations are collective: every rank calls them in the same order, on its training thread.
#[derive(Debug, Default)]
pub struct ProcessGroup {}

impl ProcessGroup {
    /// A run of one process.
    pub fn single() -> Self {
        Self {}
    }

    /// This process, from 0.
    pub fn rank(&self) -> usize {
        0
    }

    /// How many there are.
    pub fn world_size(&self) -> usize {
        1
    }

    /// Whether this process is the whole run.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.world_size() == 1
    }

    /// Gives every rank what each of them has: `bytes` in, those of all ranks out, in their order. Their lengths may differ.
    ///
    /// # Errors
    ///
    /// A rank that is gone.
    pub fn exchange(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, DistributedError> {
        Ok(vec![bytes])
    }

    /// Copies `tensors` of rank zero to all, in place.
    ///
    /// # Errors
    ///
    /// A rank that is gone.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<(), DistributedError> {
        let _ = tensors;
        Ok(())
    }
}
