//! Callbacks that measure: averages of metrics, how fast a run is, what memory it takes, and its tensors as files.

pub(crate) mod confusion_matrix;
pub(crate) mod dump_params_as_image;
pub(crate) mod dump_tensors;
pub(crate) mod gpu_utilization;
pub(crate) mod inference_runner;
pub(crate) mod memory;
pub(crate) mod moving_average;
pub(crate) mod profiler;
pub(crate) mod summaries;
mod tensor_file;
mod tensor_picture;
pub(crate) mod throughput;
mod whole_taps;
