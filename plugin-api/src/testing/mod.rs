//! A fake host, to test a callback without a training, a model or libtorch.
//!
//! [`FakeHost`] creates your callback and sends it events through the same `extern "C"` functions that
//! a real host calls; the services answer from what the test has set. The test then reads what the
//! callback did.
//!
//! ```
//! use plugin_api::event::At;
//! use plugin_api::testing::{FakeHost, json};
//! use plugin_api::{Callback, Creation, Result, Run, plugin};
//!
//! #[plugin]
//! #[derive(Default)]
//! struct Options {
//!     /// The loss at which training is good enough.
//!     goal: f64,
//! }
//!
//! struct StopAtGoal {
//!     goal: f64,
//! }
//!
//! #[plugin]
//! impl Callback for StopAtGoal {
//!     const KIND: &'static str = "stop-at-goal";
//!     const SUMMARY: &'static str = "Ends the run when the validation loss is low enough";
//!     type Options = Options;
//!
//!     fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
//!         Ok(Self { goal: options.goal })
//!     }
//!
//!     fn on_epoch_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
//!         if run.metric("val_loss")? <= self.goal {
//!             run.stop("the goal is reached")?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut host = FakeHost::new::<StopAtGoal>(json!({ "goal": 0.5 }))?;
//!
//! host.put_metric("val_loss", 0.7);
//! host.epoch_end(1)?;
//! assert_eq!(host.stopped(), None);
//!
//! host.put_metric("val_loss", 0.4);
//! host.epoch_end(2)?;
//! assert_eq!(host.stopped(), Some("the goal is reached"));
//! # Ok::<(), plugin_api::Error>(())
//! ```
//!
//! As with a real host, an event that the callback does not subscribe to does not reach it; a hook
//! that returns an error makes the call return it; a panic comes back as an error with its place, and
//! the instance gets no event afterwards; a handle used after its hook is an error.
//!
//! What the fake host does not do: it trains nothing, sends no event by itself (a record that the
//! callback puts is collected, not delivered), and applies no schedule and no failure policy.

mod fake_host;
mod host_call;
mod services;
#[cfg(test)]
mod tests;
mod world;

pub use fake_host::FakeHost;
/// `serde_json`'s value and macro, for options.
pub use serde_json::{Value, json};
