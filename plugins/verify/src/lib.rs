//! Verifies an exported file: runs it with a runtime in pure Rust (tract), on samples of the run's own data, and
//! compares it with the host's predictions.

mod order;
mod policy;
mod runtime;
mod verification;

pub use order::reordered;
pub use policy::Policy;
pub use runtime::{Format, Inputs, ONNX, Request, Runtime, TFLITE, Unsupported};
pub use verification::{Point, Verdict, Verification};
