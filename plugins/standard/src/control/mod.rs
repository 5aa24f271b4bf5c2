//! The callbacks that steer the loop: when it ends, and what a person asks of it through files.

mod duration;
pub(crate) mod time_limit;
