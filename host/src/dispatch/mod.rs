//! Calls the hooks of callbacks: in the declared order, on the run's schedule, inline or in the
//! background; contains their faults and measures their time.
//!
//! The loop hands [`Dispatcher::fire`] an [`Event`] and itself as [`Services`](crate::services::Services); the rest is here.
//!
//! Invariants:
//! * One event is one pass over its subscribers, in order. The loop has finished its own work for
//!   the event before the first of them sees it.
//! * The host never enters a callback that is on the stack: a hook's records and custom events are
//!   queued, and delivered when it has returned. Those of a program's own step, which is no callback, are
//!   delivered at once.
//! * An event without subscribers costs one load and one branch.
//! * A hook's handle is spent when the hook returns, even if a plugin keeps it.

mod account;
mod background;
#[cfg(unix)]
mod crash;
mod create;
mod dispatcher;
mod event;
mod exit;
mod failure;
mod guard;
mod hook;
mod host_call;
mod inbox;
mod inline;
mod messages;
mod passes;
mod plan;
mod policy;
mod pulse;
mod remote;
mod request;
mod restart;
mod schedule;
mod sent;
mod snapshots;
mod states;
mod subscriber;
mod watchdog;
mod written;

pub use account::HookTime;
#[cfg(unix)]
pub use crash::{forget_crash_file, survive_file_limits, watch_crashes};
pub use create::create_instance;
pub use dispatcher::Dispatcher;
pub use event::{Event, EventData};
pub use exit::{Exit, forget_exits, handle_exits, watch_exits};
pub use failure::Failure;
pub use host_call::stale_calls;
pub use plan::{Dispatch, Isolated, OnError, Order, PlanError, Planned, order};
pub(crate) use policy::ENDS_RUN;
pub use schedule::{Moment, ScheduleState};
pub use states::SavedState;
pub use watchdog::{HookLimits, OnHang};
pub use written::WrittenCheckpoints;
