//! What the notifiers have in common: the events of a run that they report, the notice that describes one, templates
//! with its fields, and the queue of notices, so that the training never waits for a server or a program.

mod duration;
mod event;
mod notice;
mod notifier;
mod queue;
mod template;
mod watch;

pub use duration::seconds;
pub use event::Event;
pub use notice::{Field, Notice};
pub use notifier::{Notifier, Notify, Settings};
pub use queue::{Deadline, Queue, Unfinished};
pub use template::Template;
pub use watch::Watch;
