//! `wandb`: an offline run of W&B, written without W&B and without a network; `wandb sync` uploads it.
//!
//! ```text
//! <run folder>/wandb/
//!   offline-run-20260131_120000-<id>/run-<id>.wandb    a folder for each process of the run
//! ```
//!
//! A resumed run keeps its id: it cuts what earlier processes wrote back to its checkpoint and goes on in a further folder,
//! which `wandb sync` uploads after the earlier ones, as W&B itself resumes a run offline.

mod callback;
mod log_file;
mod options;
mod proto;
mod row;
mod segments;
mod values;

use plugin_api::{Kind, plugin};

pub use crate::callback::Wandb;
pub use crate::options::Options;

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Wandb>()];
