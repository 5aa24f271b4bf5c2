//! The trait that a callback implements, and what it says of itself.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::abi::kinds::{EventKind, ServiceKind};
use crate::error::Result;
use crate::event::{
    ArtifactPublished, At, Checkpoint, CheckpointWritten, Custom, Evaluation, Failed, RecordPut, Stopping, TrainEnd,
    Trigger,
};
use crate::run::Run;
use crate::services::HookSet;

/// What `new` gets besides the options.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Creation<'a> {
    /// The instance's name: the key of its state, folder and log.
    pub instance: &'a str,
}

/// The options of a callback without options.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

/// Where the hooks of a kind run by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dispatch {
    /// On the training thread: the loop waits for each hook.
    #[default]
    Inline,
    /// On the instance's own thread, behind a bounded queue.
    Background,
}

/// On which ranks a kind works by default, in a run of several processes.
///
/// The ranks compute the same steps, each with its share of the samples. A step's hooks on one rank see that share: batch,
/// outputs, taps, and the metrics so far of the epoch. Gradients, the loss and the metrics of a whole epoch are those of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranks {
    /// On the first one: for callbacks that watch, publish or print. What they ask the loop for (a stop, a checkpoint, an
    /// evaluation, a pause) all ranks do.
    #[default]
    Zero,
    /// On each of them: for callbacks that change weights, gradients, batches or hyper-parameters. Each must do the same,
    /// after the same step: from what is the same on all of them, and neither from a clock nor from a file of its own. The
    /// host compares the weights after each epoch.
    All,
}

/// When `trigger` comes by default; see the run file's `when`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// `5 epochs`, `100 steps` or `10 min`.
    pub every: Option<&'static str>,
    /// Moments: `epoch 30`, `step 100`, `end`.
    pub at: &'static [&'static str],
}

impl When {
    /// After each epoch.
    pub const EVERY_EPOCH: Self = Self { every: Some("1 epoch"), at: &[] };
}

/// Something that hooks need beyond position and metrics: the host copies only what is listed
/// for a callback in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub(crate) hook: Option<EventKind>,
    pub(crate) what: &'static str,
    pub(crate) write: bool,
    pub(crate) since: u32,
}

impl Need {
    const fn tensors(hook: EventKind, what: &'static str) -> Self {
        Self { hook: Some(hook), what, write: false, since: 0 }
    }

    /// Reads the parameters in `hook`.
    pub const fn parameters(hook: EventKind) -> Self {
        Self::tensors(hook, "parameters")
    }

    /// Reads the buffers in `hook`.
    pub const fn buffers(hook: EventKind) -> Self {
        Self::tensors(hook, "buffers")
    }

    /// Reads the gradients in `hook`.
    pub const fn gradients(hook: EventKind) -> Self {
        Self::tensors(hook, "gradients")
    }

    /// Reads the optimizer's state in `hook`.
    pub const fn optimizer(hook: EventKind) -> Self {
        Self::tensors(hook, "optimizer")
    }

    /// Reads the batch in `hook`.
    pub const fn batch(hook: EventKind) -> Self {
        Self::tensors(hook, "batch")
    }

    /// Reads the output or the loss in `hook`.
    pub const fn outputs(hook: EventKind) -> Self {
        Self::tensors(hook, "outputs")
    }

    /// Reads its taps in `hook`.
    pub const fn taps(hook: EventKind) -> Self {
        Self::tensors(hook, "taps")
    }

    /// Reads the tensors of custom events.
    pub const EVENT: Self = Self::tensors(EventKind::CUSTOM, "event");

    /// Writes checkpoints.
    pub const TRAINING_STATE: Self = Self::tensors(EventKind::CHECKPOINT, "training_state");

    /// Writes parameters, buffers or the optimizer's state: such a kind cannot run in the background.
    pub const WRITES_WEIGHTS: Self = Self { hook: None, what: "parameters", write: true, since: 0 };

    /// Writes gradients: such a kind cannot run in the background.
    pub const WRITES_GRADIENTS: Self =
        Self { hook: Some(EventKind::GRADIENTS), what: "gradients", write: true, since: 0 };

    /// Writes the batch: such a kind cannot run in the background.
    pub const WRITES_BATCH: Self = Self { hook: Some(EventKind::STEP_START), what: "batch", write: true, since: 0 };

    /// Requires `service`: a host that is older than it refuses the kind.
    pub const fn service(service: ServiceKind) -> Self {
        Self { hook: None, what: service.name(), write: false, since: service.since() }
    }
}

macro_rules! callback_trait {
    ($($(#[$doc:meta])* $method:ident($event:ident: $type:ty) -> $result:ty = $default:expr $(, if $feature:literal)?;)*) => {
        /// A callback: hooks that the host calls while it trains.
        ///
        /// Write the hooks that you need and leave out the others: `#[plugin]` derives from the
        /// methods which events the host sends, and an event that no callback handles
        /// costs the loop nothing. `#[plugin]` also fills in `VERSION` and `LICENSE` from your
        /// `Cargo.toml`, and `Options` if you have none.
        ///
        /// Hooks of one instance never overlap. Inline, they run on the training thread, and the
        /// loop waits for them; in the background, on the instance's own thread.
        ///
        /// When a hook returns an error or panics, the run's `on_error` for this instance decides
        /// what happens: `stop` (the default), `disable` or `ignore`.
        ///
        /// A hook that does not exist is a compiler error, so a typo cannot become a hook
        /// that is never called:
        ///
        /// ```compile_fail,E0407
        /// # use plugin_api::{Callback, Creation, NoOptions, Result, Run, event::At, plugin};
        /// # struct Mine;
        /// #[plugin]
        /// impl Callback for Mine {
        ///     const KIND: &'static str = "mine";
        ///     const SUMMARY: &'static str = "Has a typo";
        ///     fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        ///         Ok(Self)
        ///     }
        ///     // It is called `on_epoch_end`.
        ///     fn on_epoch_ended(&mut self, run: &mut Run<'_>, epoch: &At<'_>) -> Result<()> {
        ///         Ok(())
        ///     }
        /// }
        /// ```
        pub trait Callback: Sized + Send + 'static {
            /// The name of the kind, `[a-z0-9-]+`, by which run files choose it.
            const KIND: &'static str;
            /// What it does, in one line.
            const SUMMARY: &'static str;
            /// The plugin's version; `#[plugin]` takes your crate's.
            const VERSION: &'static str;
            /// The plugin's license; `#[plugin]` takes your crate's.
            const LICENSE: &'static str;
            /// The events that it wants; `#[plugin]` derives it from your methods.
            #[doc(hidden)]
            const HOOKS: HookSet;
            /// What its hooks need beyond position and metrics.
            const NEEDS: &'static [Need] = &[];
            /// When `trigger` comes by default.
            const WHEN: When = When::EVERY_EPOCH;
            /// Where its hooks run by default.
            const DISPATCH: Dispatch = Dispatch::Inline;
            /// Whether it runs without being named in the run file, when its library is in the folder.
            const BY_DEFAULT: bool = true;
            /// On which ranks of a run of several processes it works by default. What changes the training must be on all: the
            /// host refuses it elsewhere.
            const RANKS: Ranks = Ranks::Zero;
            /// The metrics that it puts; `*` in a name stands for any text. The host refuses a run file that waits for a
            /// metric that nobody says to put. One whose name is an option is said by the option's format instead: see
            /// [`Callback::Options`].
            const PRODUCES: &'static [&'static str] = &[];
            /// The metrics that it reads; a warning says so when their producer comes later in the order.
            const READS: &'static [&'static str] = &[];
            /// Its options. They are checked against their JSON Schema before an instance is created.
            ///
            /// A `format` in the schema, `#[schemars(extend("format" = "metric"))]`, says what a text names, so that the
            /// host checks it before the training:
            ///
            /// * `metric`: a metric that it reads, which the run must give
            /// * `produced-metric`: a metric that it puts
            /// * `produced-prefix`: what the names of metrics that it puts begin with, before a `_`
            /// * `input-path`: a file or folder that it reads, relative to the run file: it must be there, and the callback gets
            ///   it absolute
            /// * `expression`: an expression for `Run::evaluate`. `"variables" = ["old"]` beside it names your own variables
            ///   in it, and `"result" = "number"` (or `condition`, `text`) what it must give
            /// * `actions`: actions for `Run::evaluate_actions`
            /// * `output-file`, `output-folder`: what it writes, relative to the run folder. Two instances may not write
            ///   the same, and the default of an instance with a name of its own carries that name.
            /// * `output-name`: the same for the name of files whose folder and extension are the kind's
            type Options: DeserializeOwned + JsonSchema;

            /// Creates an instance.
            ///
            /// # Errors
            ///
            /// Options that the schema allows but the callback does not; the run does not start.
            fn new(options: Self::Options, creation: &Creation<'_>) -> Result<Self>;

            $(
                $(#[$doc])*
                $(#[cfg(feature = $feature)])?
                #[allow(unused_variables, reason = "the default ignores them")]
                fn $method(&mut self, run: &mut Run<'_>, $event: $type) -> Result<$result> {
                    $default
                }
            )*
        }
    };
}

callback_trait! {
    /// Once, when the model is built and nothing is trained. Look at the graph, ask for taps, and
    /// report here what you cannot do.
    on_setup(event: &At<'_>) -> () = Ok(());
    /// When a run resumes, after `setup`: what `on_save_state` returned for this instance's name. `Run::saved_version` says
    /// which version of the plugin wrote it.
    on_load_state(state: &[u8]) -> () = Ok(());
    /// When a checkpoint is taken: everything that the callback needs to continue as if nothing had happened.
    on_save_state(event: &At<'_>) -> Vec<u8> = Ok(Vec::new());
    /// Before the first epoch of this process.
    on_train_start(event: &At<'_>) -> () = Ok(());
    /// After the last epoch; always comes, for every outcome.
    on_train_end(event: &TrainEnd<'_>) -> () = Ok(());
    /// Training is over and no step follows, whatever ended it but a failure. What comes at the end is still to come: the
    /// evaluation of `test`, triggers, checkpoints, exports; they see the weights that you leave here.
    on_trained(event: &At<'_>) -> () = Ok(());
    /// Before the first step of an epoch.
    on_epoch_start(event: &At<'_>) -> () = Ok(());
    /// Right after the last step of an epoch, before its evaluation. It counts as training time, so
    /// it must be fast; slow work belongs in `on_epoch_end` or `on_trigger`.
    on_epoch_trained(event: &At<'_>) -> () = Ok(());
    /// After the evaluation of an epoch; the epoch's averages are among the metrics.
    on_epoch_end(event: &At<'_>) -> () = Ok(());
    /// Before a step. The batch may be read and changed (`TensorSet::Batch`).
    on_step_start(event: &At<'_>) -> () = Ok(());
    /// After the optimizer's update.
    on_step_end(event: &At<'_>) -> () = Ok(());
    /// After backward, before clipping and optimizer: gradients are accumulated and unscaled, and
    /// may be read and changed; `Run::skip_update` leaves out the update. Not in a step of a run in f16 whose gradients do not
    /// fit: it has no update.
    on_gradients(event: &At<'_>) -> () = Ok(());
    /// Before an evaluation.
    on_eval_start(event: &Evaluation<'_>) -> () = Ok(());
    /// Before a batch of an evaluation.
    on_eval_step_start(event: &Evaluation<'_>) -> () = Ok(());
    /// After a batch of an evaluation.
    on_eval_step_end(event: &Evaluation<'_>) -> () = Ok(());
    /// After an evaluation; its metrics are available.
    on_eval_end(event: &Evaluation<'_>) -> () = Ok(());
    /// Before the batches of a prediction job, `host predict`.
    on_predict_start(event: &Evaluation<'_>) -> () = Ok(());
    /// After a batch of a prediction job: its inputs and outputs can be read, and its targets where there are some.
    on_predict_step(event: &Evaluation<'_>) -> () = Ok(());
    /// After the batches of a prediction job.
    on_predict_end(event: &Evaluation<'_>) -> () = Ok(());
    /// An export of a saved checkpoint was asked for, `host export`.
    on_export(event: &At<'_>) -> () = Ok(());
    /// When the run's `when` says so: the run decides when, the callback what.
    on_trigger(event: &Trigger<'_>) -> () = Ok(());
    /// Somebody put a record; monitors need this.
    on_record(event: &RecordPut<'_>) -> () = Ok(());
    /// A custom event of a plugin or of the program that embeds the host; its tensors are the set
    /// [`TensorSet::Event`](crate::protocol::TensorSet::Event).
    on_custom(event: &Custom<'_>) -> () = Ok(());
    /// A checkpoint is taken, at a safe point after every callback has handled the event that asked
    /// for it. It is not written unless a callback writes it here.
    on_checkpoint(event: &Checkpoint<'_>) -> () = Ok(());
    /// A checkpoint that `Run::queue_checkpoint` took is written, or could not be. It may come within a step; the last ones
    /// come before `train_end`.
    on_checkpoint_written(event: &CheckpointWritten<'_>) -> () = Ok(());
    /// Something was published.
    on_artifact(event: &ArtifactPublished<'_>) -> () = Ok(());
    /// A stop was asked for; the end hooks still come.
    on_stopping(event: &Stopping<'_>) -> () = Ok(());
    /// Something failed; the end hooks still come.
    on_error(event: &Failed<'_>) -> () = Ok(());
    /// The end of every job, for every instance that was created, even if another's setup failed.
    on_teardown(event: &At<'_>) -> () = Ok(());
    /// The next minor's hook: at each safe point of the loop.
    on_safe_point(event: &At<'_>) -> () = Ok(()), if "next-minor";
}
