//! A job from the command line to its end: everything is checked, the run folder is created, the training runs.
//!
//! `plan.rs` turns a run file into what is needed and creates nothing; `run.rs` does it; `folder.rs`, `status.rs` and
//! `log.rs` write what a run leaves behind. [`Job`] is for programs that bring a model, a loss or a batch step of their
//! own.

mod builtin;
mod folder;
mod interrupt;
mod learning;
mod log;
mod model;
mod plan;
mod program;
mod run;
mod status;

pub use folder::{FolderError, RunFolder};
pub use log::Verbosity;
pub use model::PlannedModel;
pub use plan::{JobPlan, ModelPlan, Request, ResumeFrom};
pub use program::{Job, ModelContext};
pub use run::JobOutcome;
