//! `tensorboard`: event files for TensorBoard, from the run's metrics and from the records of any callback.
//!
//! ```text
//! <run folder>/tensorboard/<run name>/
//!   events.out.tfevents.…        hyper-parameters
//!   train/, val/, …              a folder for each split, so that curves of one name overlay
//!   projector_config.pbtxt, projector/
//! ```
//!
//! `val_loss` is the scalar `loss` of the run `val`; values without a split are in the run `train`. A confusion matrix is a
//! picture, with the names of the classes as far as there is room. Positions are
//! global steps. A resumed run cuts the files back to its checkpoint and makes readers forget later steps that they
//! have seen.

mod callback;
mod confusion;
mod event_file;
mod examples;
mod features;
mod framing;
mod graph;
mod histogram;
mod hparams;

mod options;
mod picture;
mod plot;
mod proto;
mod records;
mod runs;
mod summary;
mod values;

use plugin_api::{Kind, plugin};

pub use crate::callback::TensorBoard;
pub use crate::event_file::EventFile;
pub use crate::options::Options;
pub use crate::summary::scalar;

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<TensorBoard>()];
