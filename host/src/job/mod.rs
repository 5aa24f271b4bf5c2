//! A job from the command line to its end: everything is checked, the run folder is created, the training runs.
//!
//! `plan.rs` turns a run file into a plan and creates nothing; `start.rs` finds the run folder and the checkpoint to
//! resume from; `run.rs` executes the plan; `warnings.rs` says
//! what is wrong with a run that goes on; `messages.rs` tells it on the console; `status.rs` and `log.rs`
//! write the files of a run. [`Job`] is for programs that bring a model, a loss or a batch step of their
//! own.

mod batches;
mod builder;
mod builtin;
mod changes;
mod closure;
mod columns;
mod events;
mod handle;
mod input_paths;
mod interrupt;
mod isolation;
mod learning;
mod log;
mod messages;
mod metric_names;
mod model;
mod on_checkpoint;
mod output_paths;
mod plan;
mod program;
mod progress;
mod python;
mod rank_plugins;
mod ranks;
mod request;
mod results;
mod run;
mod start;
mod status;
pub(crate) mod torchelastic;
mod warnings;

pub use builder::Job;
pub use closure::{ClosureJob, EpochMetrics};
pub use handle::JobHandle;
pub use host_command::arguments::{Change, PredictionFormat};
pub use host_command::runs::folder::{FolderError, RunFolder};
pub(crate) use interrupt::exit_code as interrupted_exit_code;
pub use log::Verbosity;
pub use model::PlannedModel;
pub use on_checkpoint::{
    CheckpointJob, CheckpointJobOutcome, CheckpointRequest, Continuation, EvaluateRequest, ExportRequest,
    PredictRequest, PredictedFrom,
};
pub use plan::{JobPlan, ModelPlan};
pub use program::ModelContext;
pub use request::{Request, ResumeFrom};
pub use results::{Ending, Results};
pub use run::JobOutcome;
