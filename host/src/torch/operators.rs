//! The operators that libtorch runs, with their times, for profiles.

use std::ffi::{c_char, c_void};

use super::error::{self, TorchError};
use super::shim;

/// An operator that has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RanOperator {
    /// Its name, such as `aten::addmm`.
    pub name: String,
    /// When it began, in nanoseconds of [`now`].
    pub began: i64,
    /// How long it took, in nanoseconds; of one on a GPU, until it was queued there.
    pub nanoseconds: i64,
}

/// The clock of the operators' times, in nanoseconds.
pub fn now() -> i64 {
    // SAFETY: takes no pointers.
    unsafe { shim::host_torch_now() }
}

/// Records the operators that this thread runs, and those of its backward passes. Dropping it, on the same thread, ends that.
pub struct OperatorRecorder(());

impl OperatorRecorder {
    /// Records from now on.
    ///
    /// # Errors
    ///
    /// When libtorch refuses.
    pub fn begin() -> Result<Self, TorchError> {
        // SAFETY: takes no pointers.
        error::check(unsafe { shim::host_torch_operators_begin() }, "operators")?;
        Ok(Self(()))
    }

    /// What was recorded since the last call, in the order in which the operators ended.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn take(&self) -> Result<Vec<RanOperator>, TorchError> {
        let mut taken: Vec<RanOperator> = Vec::new();
        // SAFETY: the context outlives the call, and `visit` reads it as what it is.
        let status = unsafe { shim::host_torch_operators_take((&raw mut taken).cast(), visit) };
        error::check(status, "operators")?;
        Ok(taken)
    }
}

impl Drop for OperatorRecorder {
    fn drop(&mut self) {
        // SAFETY: takes no pointers. A failure leaves the recording on, which costs time and nothing else.
        let _ = unsafe { shim::host_torch_operators_end() };
    }
}

unsafe extern "C" fn visit(context: *mut c_void, name: *const c_char, length: usize, began: i64, nanoseconds: i64) {
    // SAFETY: `context` is the vector of `take`, which waits for this call.
    let taken = unsafe { &mut *context.cast::<Vec<RanOperator>>() };
    // SAFETY: the shim lends that many bytes for the call.
    let name = unsafe { std::slice::from_raw_parts(name.cast::<u8>(), length) };
    taken.push(RanOperator { name: String::from_utf8_lossy(name).into_owned(), began, nanoseconds });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_recorded_with_those_of_the_backward_pass_while_somebody_asks() {
        let weight = tch::Tensor::ones([4, 4], (tch::Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let run = || weight.matmul(&weight).sum(tch::Kind::Float).backward();
        run();
        let recorder = OperatorRecorder::begin().unwrap();
        assert_eq!(recorder.take().unwrap(), []);
        let before = now();
        run();
        let taken = recorder.take().unwrap();
        let of = |name: &str| taken.iter().filter(|operator| operator.name == name).count();
        assert!(of("aten::mm") == 3 && of("aten::sum") >= 1, "{taken:?}");
        assert!(taken.iter().all(|operator| operator.began >= before && operator.nanoseconds >= 0));
        drop(recorder);
        run();
        assert_eq!(OperatorRecorder::begin().unwrap().take().unwrap(), []);
    }
}
