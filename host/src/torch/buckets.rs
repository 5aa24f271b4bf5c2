//! Gradients summed over ranks while backward still computes others.

use std::ptr::{self, NonNull};
use std::rc::Rc;

use tch::Tensor;

use super::c10d::Group;
use super::{TorchError, error::check, shim};

/// How large buckets are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketSizes {
    /// Of the first, whose gradients come first: a small one starts early.
    pub first: u64,
    /// Of the others.
    pub other: u64,
}

impl Default for BucketSizes {
    /// As PyTorch's `DistributedDataParallel` has them: 1 MiB and 25 MiB.
    fn default() -> Self {
        Self { first: 1 << 20, other: 25 << 20 }
    }
}

/// The gradients of parameters, in buckets whose layout is a function of the parameters that learn and of nothing else. Belongs
/// to the training thread.
#[derive(Debug)]
pub struct Buckets {
    buckets: NonNull<shim::Buckets>,
    slots: usize,
    /// Outlives the buckets.
    _group: Rc<Group>,
}

impl Buckets {
    /// Buckets for `parameters`, which stay the same objects; `slots` numbers are summed along with each step's last bucket.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn new<'t>(
        group: Rc<Group>,
        parameters: impl IntoIterator<Item = &'t Tensor>,
        sizes: BucketSizes,
        slots: usize,
    ) -> Result<Buckets, TorchError> {
        let pointers: Vec<_> = parameters.into_iter().map(Tensor::as_ptr).collect();
        let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
        let mut buckets = ptr::null_mut();
        // SAFETY: a live group, which is kept beside the buckets, and live tensors borrowed for the call.
        let status = unsafe {
            shim::host_torch_buckets_new(
                group.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                bytes(sizes.first),
                bytes(sizes.other),
                slots,
                &mut buckets,
            )
        };
        check(status, "Buckets::new")?;
        let buckets = NonNull::new(buckets)
            .ok_or(TorchError::Operation { operation: "Buckets::new", message: "no buckets were made".to_owned() })?;
        Ok(Buckets { buckets, slots, _group: group })
    }

    /// Before the last backward pass of a step: gradients that it completes, times `scale`, are summed from now on, and `slots`
    /// with the last of them.
    ///
    /// # Errors
    ///
    /// When there are more or fewer slots.
    pub fn begin(&mut self, slots: &[f32], scale: f64) -> Result<(), TorchError> {
        // SAFETY: live buckets, and numbers borrowed for the call.
        let status =
            unsafe { shim::host_torch_buckets_begin(self.buckets.as_ptr(), slots.as_ptr(), slots.len(), scale) };
        check(status, "Buckets::begin")
    }

    /// Waits for the sums, and makes them the gradients, divided by the first slot's sum. A parameter of which no rank has a
    /// gradient has none. Returns the sums of the slots.
    ///
    /// # Errors
    ///
    /// When a rank is gone.
    pub fn finish(&mut self) -> Result<Vec<f32>, TorchError> {
        let mut slots = vec![0.0; self.slots];
        let mut overlapped = 0;
        // SAFETY: live buckets, room for the slots, and a place to write to.
        let status =
            unsafe { shim::host_torch_buckets_finish(self.buckets.as_ptr(), slots.as_mut_ptr(), &mut overlapped) };
        check(status, "all_reduce")?;
        tracing::trace!(overlapped, "buckets whose sum began during backward");
        Ok(slots)
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // SAFETY: made by `host_torch_buckets_new`, freed once, before the group.
        unsafe { shim::host_torch_buckets_free(self.buckets.as_ptr()) }
    }
}
