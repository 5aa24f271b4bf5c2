//! What the notifiers have in common: which events of a run are told, the notice that describes one, templates with its
//! fields, and the queue in which notices wait, so that no training waits for a server or a program.

mod duration;
mod event;
mod notice;
mod queue;
mod template;
mod watch;

pub use duration::seconds;
pub use event::Event;
pub use notice::{Field, Notice};
pub use queue::{Deadline, Queue, Unfinished};
pub use template::Template;
pub use watch::Watch;
