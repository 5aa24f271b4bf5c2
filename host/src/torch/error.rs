//! Failures inside libtorch.

use std::ffi::{CStr, c_int};

/// An operation of libtorch failed. The messages are the first lines of libtorch's, without its C++ stack trace.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TorchError {
    /// A function of the C++ shim failed.
    #[error("libtorch failed in `{operation}`: {message}")]
    Operation {
        /// The operation, by PyTorch's name for it.
        operation: &'static str,
        /// The message of libtorch.
        message: String,
    },
    /// An operator called through tch failed.
    #[error("libtorch failed: {message}")]
    Operator {
        /// The message of libtorch.
        message: String,
    },
    /// The host runs on the CPU and on CUDA devices.
    #[error("device `{device:?}` is not supported; use `cpu` or `cuda:N`")]
    UnsupportedDevice {
        /// The requested device.
        device: tch::Device,
    },
    /// Autocast does not support the dtype.
    #[error("autocast to `{kind:?}` is not supported; use bf16 or f16")]
    UnsupportedPrecision {
        /// The requested dtype.
        kind: tch::Kind,
    },
    /// Lists that belong together differ in length.
    #[error("`{operation}` needs lists of one length, found {lengths:?}")]
    LengthMismatch {
        /// The operation, by PyTorch's name for it.
        operation: &'static str,
        /// The lengths, in the order of the arguments.
        lengths: Vec<usize>,
    },
}

impl From<tch::TchError> for TorchError {
    fn from(error: tch::TchError) -> TorchError {
        TorchError::Operator { message: without_backtrace(&error.to_string()).to_owned() }
    }
}

/// Turns a status of the shim into a result; the message belongs to the calling thread.
pub(super) fn check(status: c_int, operation: &'static str) -> Result<(), TorchError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the shim returns a NUL-terminated string of this thread that lives until the thread's next failure.
    let message = unsafe { CStr::from_ptr(super::shim::host_torch_last_error()) };
    Err(TorchError::Operation { operation, message: without_backtrace(&message.to_string_lossy()).to_owned() })
}

/// libtorch appends the location of the throw and a C++ stack trace to the errors of its operators. In the message of a
/// panic, the line break is escaped.
pub(crate) fn without_backtrace(message: &str) -> &str {
    let begins = ["\nException raised from", "\\nException raised from"];
    let end = begins.iter().find_map(|begin| message.find(begin)).unwrap_or(message.len());
    message[..end].trim_end()
}
