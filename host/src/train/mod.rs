//! Training: the loop, and what it is made of.
//!
//! Start with `run.rs`: the loop on one screen. `session.rs` holds what the loop works on, `step.rs` and `evaluate.rs`
//! do the work, `services/` answers callbacks. This module names no plugin.
//!
//! A program that trains something of its own brings a network ([`Network::custom`](crate::model::Network::custom)), a
//! loss ([`Loss::Custom`]) or the way from a batch to its loss ([`BatchStep`]); the loop and the callbacks stay the same.
//! [`Job`](crate::job::Job) puts them together with a run file and plugins.

mod checkpointing;
mod control;
mod custom;
mod error;
mod evaluate;
#[cfg(test)]
mod figures;
pub mod loss;
pub mod metrics;
pub mod optimizer;
mod precision;
pub mod range;
mod recording;
#[cfg(test)]
mod reference;
mod run;
pub mod schedule;
mod services;
mod session;
mod step;
pub mod threads;

pub use checkpointing::{Resume, ResumeError};
pub use custom::{BatchStep, BatchStepFunction, Computed, Loss, LossFunction};
pub use error::TrainError;
pub use precision::Precision;
pub use run::{Ended, Trainer};
pub use session::{Ambience, EvaluationPlan, Interrupt, Length, Parts, Plan, Screen, Session};
