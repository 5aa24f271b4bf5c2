//! Training: the optimizer, its schedule, losses, metrics and the choice of threads.

pub mod loss;
pub mod metrics;
pub mod optimizer;
pub mod schedule;
pub mod threads;
