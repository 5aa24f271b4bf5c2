//! Callbacks that measure: averages of metrics, how fast a run is, what memory it takes, and its tensors as files.

pub(crate) mod dump_tensors;
pub(crate) mod inference_runner;
pub(crate) mod memory;
pub(crate) mod moving_average;
mod tensor_file;
pub(crate) mod throughput;
