//! Write callbacks for the training host: what happens around a training, in a shared library that you
//! drop into a folder.
//!
//! The host owns the loop, the data, the model and the optimizer. Everything else is a callback: a type
//! with hooks that the host calls, and a [`Run`] through which a hook reads metrics and tensors, puts
//! records, and asks for a stop or a checkpoint. You depend only on this crate, never on libtorch; a
//! library that you build today works with next year's host, and with one that another compiler built.
//!
//! This is a whole plugin:
//!
//! ```
//! use plugin_api::event::At;
//! use plugin_api::{Callback, Creation, Error, Kind, Result, Run, decode_state, encode_state, plugin};
//!
//! /// What a run file may say under `options`; doc comments become the descriptions in its schema.
//! #[plugin]
//! struct Options {
//!     /// The metric to watch.
//!     metric: String,
//!     /// How many epochs in a row it may get worse.
//!     patience: u64,
//! }
//!
//! impl Default for Options {
//!     fn default() -> Self {
//!         Self { metric: "val_loss".to_owned(), patience: 3 }
//!     }
//! }
//!
//! struct StopWhenWorse {
//!     options: Options,
//!     last: Option<f64>,
//!     worse: u64,
//! }
//!
//! #[plugin]
//! impl Callback for StopWhenWorse {
//!     const KIND: &'static str = "stop-when-worse";
//!     const SUMMARY: &'static str = "Ends the run when a metric keeps getting worse";
//!     type Options = Options;
//!
//!     fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
//!         if options.patience == 0 {
//!             return Err(Error::new("`patience` must be at least 1"));
//!         }
//!         Ok(Self { options, last: None, worse: 0 })
//!     }
//!
//!     // The hooks that you write are the ones that the host calls.
//!     fn on_epoch_end(&mut self, run: &mut Run<'_>, epoch: &At<'_>) -> Result<()> {
//!         let value = run.metric(&self.options.metric)?;
//!         let worse = self.last.replace(value).is_some_and(|last| value > last);
//!         self.worse = if worse { self.worse + 1 } else { 0 };
//!         if self.worse == self.options.patience {
//!             run.stop(&format!("`{}` was {value} after epoch {}", self.options.metric, epoch.epoch))?;
//!         }
//!         Ok(())
//!     }
//!
//!     // What a checkpoint must hold, so that a resumed run stops where an unbroken one does.
//!     fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
//!         encode_state(&(self.last, self.worse))
//!     }
//!
//!     fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
//!         (self.last, self.worse) = decode_state(state)?;
//!         Ok(())
//!     }
//! }
//!
//! #[plugin]
//! const KINDS: &[Kind] = &[Kind::of::<StopWhenWorse>()];
//! # fn main() {}
//! ```
//!
//! Its `Cargo.toml` says `crate-type = ["cdylib"]` under `[lib]`. Build it with `--release`, put the library
//! into a folder, and it runs with `host run --plugins FOLDER`; a run file names it to set its options:
//!
//! ```toml
//! [[plugins]]
//! kind = "stop-when-worse"
//! options = { patience = 5 }
//! ```
//!
//! `host plugins new NAME` creates such a project for you, and `host plugins check FILE` calls every hook of
//! a library. [`testing`] has a fake host, with which you test your callback without a training.
//!
//! # When hooks run
//!
//! ```text
//! setup, load_state (when resuming), train_start
//! for each epoch:
//!     epoch_start
//!     for each step:
//!         step_start → forward, backward → gradients → clipping, optimizer → step_end
//!     epoch_trained
//!     eval_start, for each batch: eval_step_start → forward → eval_step_end, then eval_end
//!     epoch_end, trigger
//!     save_state, checkpoint (when one was asked for)
//! trained, the evaluation of `test`, trigger and checkpoint at the end
//! checkpoint_written (for each that was queued, at any event until here)
//! train_end, teardown
//! ```
//!
//! Jobs on a saved checkpoint, which [`RunInfo::job`](protocol::RunInfo::job) names, have `setup`, then the hooks of an
//! evaluation, or `predict_start`, `predict_step` for each batch and `predict_end`, or `export`; then `teardown`.
//!
//! [`Callback`] documents each of them. Each event goes to all its subscribers in the run's order, and
//! the host has done its own part before the first one sees it. An earlier callback's metric is available to
//! the later ones of the same event. Records and custom events are delivered when the hook that sent them
//! has returned; a hook's requests to the loop take effect at the next safe point, after the whole event.
//!
//! **During a step** come `step_start`, `gradients` and `step_end`: the loop waits for them, and
//! a hook there that takes a tenth of a step makes the training a tenth slower. A hook that does nothing
//! costs a few nanoseconds, one that is not written nothing. Position and metrics are already in the host's
//! memory; [`Run::loss`] and tensors wait for an accelerator. A value from inside the model that you need
//! at each step is cheaper as a [tap](Run::tap), which is computed with the step.
//!
//! **After it** comes everything from `epoch_end` on. `epoch_trained` comes in between: before the
//! evaluation, and within the time that is measured as the epoch's training, so **it must be fast**: take
//! a time, swap weights in, no more. Slow work belongs in `trigger`, which comes when the run's `when` says
//! so: you decide *what* to do, the run decides *when*. Slow work that only reads can run in the background
//! ([`Callback::DISPATCH`], or `dispatch = "background"` in the run file): the same hooks, in the same order, on a
//! thread of the instance's own, with the values of the moment at which the event was sent. List what its hooks
//! read there in [`Callback::NEEDS`].
//!
//! # Changing what is trained
//!
//! A callback may write gradients in `gradients`, the batch in `step_start`, and weights when no step is
//! in progress. Nothing checks that it makes sense:
//!
//! * The optimizer continues from what you wrote with its present moments: after a jump of the weights,
//!   they belong to other weights. Write [`TensorSet::Optimizer`](protocol::TensorSet::Optimizer) too, or keep
//!   the learning rate small for some steps.
//! * Weights that you exchange for an evaluation must be back before the next step, and before a checkpoint
//!   is taken: it stores the weights that are there.
//! * A hyper-parameter that you set is yours: the host's schedule no longer changes it.
//! * A run with such a callback gives other results. One that only reads changes no bit, and a run with it is the
//!   same as one without; let yours only read if you can, with [`Run::measure`] and [`Run::predict`].
//! * What `on_save_state` does not save is lost at a resume, and the resumed run differs from an unbroken one.
//!
//! # Which events still come
//!
//! | what happens | what still comes |
//! |---|---|
//! | [`Stop`](protocol::Control::Stop) within an epoch | `stopping`; `trained`; `trigger` for those whose `when` has `at = "end"`, and the checkpoint that they request; `train_end` (stopped); `teardown`. No evaluation, no `epoch_trained`, no `epoch_end` |
//! | `Stop` from `epoch_end` or `trigger` | the event is finished for all; then as above |
//! | [`EndEpoch`](protocol::Control::EndEpoch) | `epoch_trained`, the evaluation, `epoch_end` and `trigger`, as usual; then the next epoch |
//! | [`SkipUpdate`](protocol::Control::SkipUpdate) | `step_end`, as usual; the weights do not change |
//! | [`Evaluate`](protocol::Control::Evaluate) | `eval_start` to `eval_end`, with `mid_epoch` if it interrupts an epoch |
//! | [`Checkpoint`](protocol::Control::Checkpoint) | `save_state` and `checkpoint`, to all that have the hooks |
//! | [`Pause`](protocol::Control::Pause) | nothing until [`Resume`](protocol::Control::Resume), or a stop; then as usual |
//! | a signal (Ctrl-C) | as for a stop; `train_end` says interrupted |
//! | a hook returns an error, `on_error = "stop"` | the event is finished for the others; `error` to all; `trigger` for those whose `when` has `at = "failure"`, and the checkpoint that they request; `train_end` (failed); `teardown` |
//! | the same, `"disable"` | this instance gets only `teardown`; `error` to the others, which see everything as usual |
//! | the same, `"ignore"` | `error` to all; everything as usual |
//! | a hook panics | this instance gets nothing more, not even `teardown`, and is not dropped; its last saved state stays in the checkpoints; for the others as after an error: with `"ignore"` they continue, as with `"disable"` |
//! | `new` fails | `teardown` for every instance that was created; the run does not start, whatever `on_error` says |
//! | `setup` fails | with `on_error = "stop"` the same; with `"disable"` the run goes on, and the instance gets only `teardown` |
//! | the host itself fails (a disk, a device) | `error` to all; `train_end` (failed); `teardown` |
//!
//! A stop is not a failure, no matter who asks for it: a run that stopped early succeeds. A callback that cannot do
//! its work returns an error, and lets the run's `on_error` decide what that means.
//!
//! # Which hosts load which plugins
//!
//! A library and a host are compatible when the major version of the ABI ([`abi::MAJOR`]) is the same, and the host
//! has at least the minor version that the kind's hooks and the services in its [`Callback::NEEDS`] need, not
//! that of the SDK that it was built with. So a plugin built with a newer SDK runs in an older host as long as
//! it uses nothing newer; a call of a missing service that is not declared is an error of kind
//! [`ErrorKind::Unknown`], which a plugin can handle. An incompatible library is refused
//! with one sentence before any of its code runs. Compilers and their versions do not matter.
//!
//! # Where things are
//!
//! [`Callback`] has the hooks, [`event`] their arguments, [`Run`] the services, [`protocol`] the values that
//! those take and return. [`services`] and [`abi`] are for hosts, and for plugins in C; plugins in Rust do not need them.
#![deny(missing_docs)]

extern crate self as plugin_api;

#[macro_use]
pub mod services;

pub mod abi;
mod call;
mod callback;
mod direction;
mod error;
pub mod event;
#[doc(hidden)]
pub mod export;
pub mod graph;
mod log;
pub mod protocol;
mod remote;
mod run;
mod state;
mod tensor;
pub mod testing;

pub use abi::kinds::{EventKind, ServiceKind};
pub use callback::{Callback, Creation, Dispatch, Need, NoOptions, Ranks, When};
pub use direction::Direction;
pub use error::{Error, ErrorKind, Result};
pub use export::Kind;
pub use plugin_api_macros::plugin;
pub use remote::Remote;
pub use run::Run;
pub use state::{decode_state, encode_state};
pub use tensor::{Element, Tensor, TensorView};

/// Logs of a plugin: `plugin_api::tracing::info!(…)` reaches the host's log.
pub use tracing;

// What `#[plugin]` expands to.
#[doc(hidden)]
pub use services::HookSet;
#[doc(hidden)]
pub use {schemars, serde};
