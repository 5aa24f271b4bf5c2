//! Training: the loop and its parts.
//!
//! Start with `run.rs`: the loop on one screen. `session.rs` lists the parts that the loop works on, `step.rs` and
//! `evaluate.rs` do the work, `answers/` answers callbacks. This module names no plugin.
//!
//! A program with a training of its own brings a network ([`Network::custom`](crate::model::Network::custom)), a
//! loss ([`Loss::Custom`]) or the way from a batch to its loss ([`BatchStep`]); the loop and the callbacks stay the same.
//! [`Job`](crate::job::Job) combines them with a run file and plugins.

mod answers;
mod changes;
mod checkpointing;
mod control;
mod custom;
mod dtype;
mod error;
mod evaluate;
mod feed;
#[cfg(test)]
mod figures;
mod jobs;
mod kept;
pub mod kernels;
mod learner;
mod limits;
pub mod loss;
mod loss_scale;
mod meaning;
mod measured;
pub mod metrics;
mod names;
mod not_finite;
pub mod optimizer;
mod precision;
mod profile;
mod progress;
pub mod range;
mod ranks;
#[cfg(test)]
mod reference;
mod run;
pub mod schedule;
mod session;
mod step;
pub mod threads;

pub use checkpointing::{Fingerprints, Resume, ResumeError};
pub use control::{Interrupt, Requests};
pub use custom::{BatchStep, BatchStepFunction, Computed, Loss, LossFunction};
pub use error::TrainError;
pub use evaluate::EvaluationPlan;
pub use feed::Batches;
pub use jobs::PredictedBatch;
pub use meaning::{Meaning, targets};
pub use names::metric_names;
pub use not_finite::NotFinite;
pub use precision::Precision;
pub use progress::{Length, LiveProgress, Started};
pub use run::{Ended, Trainer};
pub(crate) use session::EPOCH_LOG;
pub use session::{Parts, Purpose, RunOutputs, Session, TrainingPlan};
