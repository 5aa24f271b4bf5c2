//! The services of the host: one table that defines each of them.
//!
//! A hook asks the host for something by calling a service: with a number, a request and, if it reads, a place for the
//! reply. An author in Rust calls the methods of [`Run`](crate::Run); this table is for hosts, and for plugins in other
//! languages. It determines everything about a service: the documentation of `Run`'s methods, what the host
//! permits on the training thread, in the background and from a remote, what `host plugins check` permits, and
//! [`testing`](crate::testing).
//!
//! For each service, the table says:
//!
//! * **reads** or **acts**: a service that reads never changes a run;
//! * in which hooks it may be called: `any`, `always` (while an instance is created, too), a list, or `idle`, which is every hook but those in which a step or a batch
//!   of an evaluation can be in progress (`step_start`, `gradients`, `eval_step_start`, `eval_step_end`, `record`,
//!   `custom`, `artifact`, `error`);
//! * what it does for a callback in the background: it answers from the `snapshot` that was made with the event, acts
//!   `later` (before the next event of the run), answers at once as on the training thread (`direct`), or is not
//!   available (`never`);
//! * whether a [`Remote`](crate::Remote) may call it;
//! * on which ranks of a run of several it may be called: `any`, or `every`, which is what changes the training: only an
//!   instance that runs on all of them (`ranks = "all"`) may call it, on the training thread, and it must do the same on each;
//!   `by content` if that depends on the request.

mod names;
mod rules;

use std::collections::BTreeMap;
use std::marker::PhantomData;

use crate::protocol::requests::{
    ArrayPut, Artifact, BatchRequest, ControlRequest, CopyRequest, Custom, Evaluate, Failure, Freeze,
    HyperParameterSet, LimitBatches, Line, LinesAfter, Measure, MetricPut, Name, OpenSplit, Path, Predict, Profile,
    QueueCheckpoint, Recalibrate, StatusLine, TensorsRequest, TrainSteps,
};
use crate::protocol::{
    ArrayPoint, CheckpointWritten, ConsoleLine, Evaluated, HookTime, ParameterGroup, Point, Record, RunInfo, Span, Tap,
    TensorInfo, WeightsInfo,
};

pub use names::{
    did_you_mean, fits, fitting, list_names, nearest, no_batch, no_such_name, no_value, nothing_learns, option_of,
    split_is_there,
};
pub use rules::{
    Background, Caller, Effect, HookSet, Hooks, Presence, Ranks, Refusal, Route, Rule, Site, permit, tensors_readable,
    tensors_writable,
};

/// A service with the types of its request and its reply.
pub struct Service<Q, R> {
    kind: ServiceKind,
    types: PhantomData<fn(Q) -> R>,
}

impl<Q, R> Service<Q, R> {
    const fn new(kind: ServiceKind) -> Self {
        Self { kind, types: PhantomData }
    }

    /// Its number.
    pub const fn kind(&self) -> ServiceKind {
        self.kind
    }
}

/// The request or reply of a service that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

/// Bytes as they are, not MessagePack.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

/// Tensors, beside or instead of a MessagePack value.
#[derive(Clone, Copy, Debug)]
pub struct Tensors;

/// Any value: the schema of an option defines its type.
#[derive(Clone, Copy, Debug)]
pub struct AnyValue;

macro_rules! services {
    ($(
        $(#[doc = $doc:literal])+
        $constant:ident = $number:literal $name:literal since $since:literal $([$draft:ident])? $(if $feature:literal)?:
        $request:ty => $reply:ty;
        $effect:ident, hooks $hooks:tt, background $background:ident, remote $remote:ident, ranks $ranks:ident.
    )*) => {
        /// A service of the host; [`services`](crate::services) defines what each takes, returns and requires.
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct ServiceKind(pub u32);

        impl ServiceKind {
            $(
                $(#[doc = $doc])+
                #[doc = ""]
                #[doc = concat!("Number ", $number, ", request `", stringify!($request), "`, reply `", stringify!($reply), "`.")]
                #[doc = ""]
                #[doc = rule_sentence!($effect $hooks $background $remote $ranks $($draft)?)]
                $(#[cfg(feature = $feature)])?
                pub const $constant: Self = Self($number);
            )*

            /// Every service that this SDK knows.
            pub const ALL: &'static [Self] = &[$($(#[cfg(feature = $feature)])? Self::$constant),*];

            /// Its row in the table; `None` for one that this SDK does not know.
            pub const fn rule(self) -> Option<&'static Rule> {
                match self.0 {
                    $($(#[cfg(feature = $feature)])? $number => {
                        const RULE: Rule = Rule {
                            name: $name,
                            since: $since,
                            is_draft: !concat!($(stringify!($draft))?).is_empty(),
                            effect: rules::Effect::$effect,
                            hooks: rules::hooks!($hooks),
                            background: rules::Background::$background,
                            remote: rules::yes!($remote),
                            ranks: rules::Ranks::$ranks,
                        };
                        Some(&RULE)
                    })*
                    _ => None,
                }
            }

            /// The service called `name`.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($(#[cfg(feature = $feature)])? $name => Some(Self::$constant),)* _ => None }
            }
        }

        /// The services with the types of their requests and replies.
        pub mod typed {
            use super::*;
            $(
                $(#[doc = $doc])+
                $(#[cfg(feature = $feature)])?
                pub const $constant: Service<$request, $reply> = Service::new(ServiceKind::$constant);
            )*
        }

        /// A service's row in the table, as a sentence of documentation.
        macro_rules! service_rule {
            $(($constant) => {
                concat!("\n*Service `", $name, "`: ", rule_sentence!($effect $hooks $background $remote $ranks $($draft)?), "*")
            };)*
        }
    };
}

/// A row of the table in words.
macro_rules! rule_sentence {
    ($effect:ident [$($hook:ident)*] $($rest:tt)*) => {
        rule_sentence!(@ $effect concat!("in", $(" `", stringify!($hook), "`",)*) ; $($rest)*)
    };
    ($effect:ident always $($rest:tt)*) => { rule_sentence!(@ $effect "in any hook and in `create`"; $($rest)*) };
    ($effect:ident any $($rest:tt)*) => { rule_sentence!(@ $effect "in any hook"; $($rest)*) };
    ($effect:ident idle $($rest:tt)*) => { rule_sentence!(@ $effect "in hooks in which no step can be in progress"; $($rest)*) };
    ($effect:ident content $($rest:tt)*) => { rule_sentence!(@ $effect "in hooks that depend on the request"; $($rest)*) };
    (@ $effect:ident $hooks:expr; $background:ident $remote:ident $ranks:ident $($draft:ident)?) => {
        concat!(
            $("A ", stringify!($draft), ". ",)?
            stringify!($effect), " ", $hooks,
            "; background: ", stringify!($background),
            "; remote: ", stringify!($remote),
            "; ranks: ", stringify!($ranks), "."
        )
    };
}

services! {
    /// The SDK's glue reports why a hook failed.
    FAULT = 1 "fault" since 0: Failure => Nothing;
        Acts, hooks always, background Direct, remote no, ranks Any.
    /// Passes the state that a `save_state` hook returns.
    SAVE_STATE = 2 "save_state" since 0: Raw => Nothing;
        Acts, hooks [SAVE_STATE], background Direct, remote no, ranks Any.
    /// Puts a metric: it is readable at once, and part of the history.
    METRIC_PUT = 3 "metric_put" since 0: MetricPut => Nothing;
        Acts, hooks any, background Later, remote no, ranks Any.
    /// The latest value of each metric that has one.
    METRICS = 4 "metrics" since 0: Nothing => BTreeMap<String, f64>;
        Reads, hooks any, background Snapshot, remote yes, ranks Any.
    /// Puts a record for the monitors.
    RECORD_PUT = 5 "record_put" since 0: Record => Nothing;
        Acts, hooks any, background Direct, remote yes, ranks Any.
    /// The record of the current `record` event.
    RECORD = 6 "record" since 0: Nothing => Record;
        Reads, hooks [RECORD], background Direct, remote no, ranks Any.
    /// The names in the history.
    HISTORY_NAMES = 7 "history_names" since 0: Nothing => Vec<String>;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// A series of the history, oldest first.
    HISTORY_SERIES = 8 "history_series" since 0: Name => Vec<Point>;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// A series of arrays, oldest first.
    HISTORY_ARRAYS = 9 "history_arrays" since 0: Name => Vec<ArrayPoint>;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Puts an array into the history.
    ARRAY_PUT = 10 "array_put" since 0: ArrayPut => Nothing;
        Acts, hooks any, background Later, remote no, ranks Any.
    /// The hyper-parameters of each parameter group.
    HYPER_PARAMETERS = 11 "hyper_parameters" since 0: Nothing => Vec<ParameterGroup>;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Sets a hyper-parameter of one group, or of every group that has it.
    HYPER_PARAMETER_SET = 12 "hyper_parameter_set" since 0: HyperParameterSet => Nothing;
        Acts, hooks any, background Later, remote no, ranks Every.
    /// Asks the loop for something, at its next safe point. An update can be skipped only in `gradients`, inline.
    CONTROL = 13 "control" since 0: ControlRequest => Nothing;
        Acts, hooks content, background Later, remote yes, ranks ByContent.
    /// Names, shapes and types of a set of tensors.
    TENSOR_LIST = 14 "tensor_list" since 0: TensorsRequest => Vec<TensorInfo>;
        Reads, hooks content, background Snapshot, remote no, ranks Any.
    /// Reads tensors of a set; the reply is tensors.
    TENSOR_READ = 15 "tensor_read" since 0: TensorsRequest => Tensors;
        Reads, hooks content, background Snapshot, remote no, ranks Any.
    /// Writes tensors of a set: the request has one tensor for each name.
    TENSOR_WRITE = 16 "tensor_write" since 0: TensorsRequest => Nothing;
        Acts, hooks content, background Never, remote no, ranks Every.
    /// Copies a tensor to the CPU. The request is one tensor that a service returned, the reply one tensor.
    TENSOR_TO_HOST = 17 "tensor_to_host" since 0: Tensors => Tensors;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Takes, restores or drops a named copy of the weights.
    WEIGHTS_COPY = 18 "weights_copy" since 0: CopyRequest => Nothing;
        Acts, hooks content, background Never, remote no, ranks ByContent.
    /// Takes, restores or drops a named copy of the whole training state.
    TRAINING_STATE_COPY = 19 "training_state_copy" since 0: CopyRequest => Nothing;
        Acts, hooks content, background Never, remote no, ranks ByContent.
    /// Trains some updates outside the run's history, and returns their losses.
    TRAIN_STEPS = 20 "train_steps" since 0: TrainSteps => Vec<f64>;
        Acts, hooks idle, background Never, remote no, ranks Every.
    /// The model's graph, as JSON.
    GRAPH = 21 "graph" since 0: Nothing => Raw;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Outputs in inference mode; inputs and reply are tensors.
    PREDICT = 22 "predict" since 0: Predict => Tensors;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Metrics over a split.
    MEASURE = 23 "measure" since 0: Measure => BTreeMap<String, f64>;
        Reads, hooks any, background Never, remote no, ranks Any.
    /// Estimates the batch-norm statistics again.
    RECALIBRATE_BATCH_NORM = 24 "recalibrate_batch_norm" since 0: Recalibrate => Nothing;
        Acts, hooks idle, background Never, remote no, ranks Every.
    /// A batch of a split; the reply is the tensors `inputs` and `targets` and, on request, the other inputs of the model.
    BATCH = 25 "batch" since 0: BatchRequest => Tensors;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Sends a custom event, with the tensors of the request, each under its name.
    EMIT = 26 "emit" since 0: Custom => Nothing;
        Acts, hooks any, background Direct, remote no, ranks Any.
    /// Writes the checkpoint that is being taken.
    WRITE_CHECKPOINT = 27 "write_checkpoint" since 0: Path => CheckpointWritten;
        Reads, hooks [CHECKPOINT], background Snapshot, remote no, ranks Any.
    /// Announces something published.
    ARTIFACT = 28 "artifact" since 0: Artifact => Nothing;
        Acts, hooks any, background Later, remote no, ranks Any.
    /// The description of the run.
    RUN_INFO = 29 "run_info" since 0: Nothing => RunInfo;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Prints a line on the host's console.
    CONSOLE_LINE = 30 "console_line" since 0: Line => Nothing;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Shows a status line or, with an empty text, removes it.
    CONSOLE_STATUS = 31 "console_status" since 0: StatusLine => Nothing;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Asks for a value to be fetched with each step.
    TAP = 32 "tap" since 0: Tap => Nothing;
        Acts, hooks [SETUP], background Never, remote no, ranks Any.
    /// The loss of the current step or evaluation batch; waits for the device.
    LOSS = 33 "loss" since 0: Nothing => f64;
        Reads, hooks [GRADIENTS STEP_END TRIGGER EVAL_STEP_END], background Snapshot, remote no, ranks Any.
    /// A ticket that any thread may use until `train_end`.
    REMOTE = 34 "remote" since 0: Nothing => u64;
        Reads, hooks any, background Direct, remote no, ranks Any.
    /// The next minor version's service: seconds since the run began.
    UPTIME = 35 "uptime" since 1 if "next-minor": Nothing => f64;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// The cost of each hook of each callback so far.
    HOOK_TIMES = 36 "hook_times" since 0: Nothing => Vec<HookTime>;
        Reads, hooks any, background Direct, remote no, ranks Any.
    /// The newest lines of the console.
    CONSOLE_LINES = 37 "console_lines" since 0: LinesAfter => Vec<ConsoleLine>;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// The latest value of one metric: `NO_VALUE` if the run has not given it yet, `NO_SUCH_NAME` for
    /// one that it does not know.
    METRIC = 38 "metric" since 0: Name => f64;
        Reads, hooks any, background Snapshot, remote yes, ranks Any.
    /// One option of the instance, or its default, as a MessagePack value; `a.b` is `b` in the table `a`. It may also be
    /// called while the instance is created.
    OPTION = 39 "option" since 0: Name => AnyValue;
        Reads, hooks always, background Direct, remote no, ranks Any.
    /// The latest value of each metric, with the position at which it was measured.
    METRIC_POINTS = 40 "metric_points" since 0: Nothing => BTreeMap<String, Point>;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// The latest array of each series of arrays, such as a confusion matrix.
    LATEST_ARRAYS = 41 "latest_arrays" since 0: Nothing => BTreeMap<String, ArrayPoint>;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// After which step the model's weights were those of the training, and what was measured of them. A callback may have
    /// restored earlier ones.
    WEIGHTS_INFO = 42 "weights_info" since 0: Nothing => WeightsInfo;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// The value of an expression, in the language of the run file's `if`; or what actions in it ask for, which this
    /// service does not do.
    EVALUATE = 43 "evaluate" since 0: Evaluate => Evaluated;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
    /// Freezes parameters, so that training leaves them as they are, or lets frozen ones learn again.
    FREEZE = 44 "freeze" since 0: Freeze => Nothing;
        Acts, hooks idle, background Never, remote no, ranks Every.
    /// Takes only the first batches of a split from now on: in each evaluation, and in each epoch after the one in progress.
    LIMIT_BATCHES = 45 "limit_batches" since 0: LimitBatches => Nothing;
        Acts, hooks idle, background Never, remote no, ranks Every.
    /// Reads other data as the run's own was read, and adds it as a split.
    OPEN_SPLIT = 46 "open_split" since 0: OpenSplit => Nothing;
        Acts, hooks [SETUP], background Never, remote no, ranks Any.
    /// What was recorded of the time of steps since the last call; records from now on what the request says. It costs nothing
    /// until somebody asks.
    PROFILE = 47 "profile" since 0: Profile => Vec<Span>;
        Reads, hooks any, background Never, remote no, ranks Any.
    /// The hook waits on purpose, such as for a person: how long it takes is counted from now on again, so that it is neither
    /// named nor ended as one that does not return.
    KEEP_ALIVE = 48 "keep_alive" since 0: Nothing => Nothing;
        Reads, hooks any, background Direct, remote no, ranks Any.
    /// Copies the checkpoint that is being taken, and writes it on a thread of the host after those that were queued before;
    /// `checkpoint_written` tells the end. Leaves out those of `instead_of` whose writing has not begun, and answers which.
    QUEUE_CHECKPOINT = 49 "queue_checkpoint" since 0: QueueCheckpoint => Vec<String>;
        Reads, hooks [CHECKPOINT], background Never, remote no, ranks Any.
    /// Forgets every value and array of a name, and its latest value. It may get new ones; a name without any is no error.
    HISTORY_REMOVE = 50 "history_remove" since 0: Name => Nothing;
        Acts, hooks any, background Later, remote no, ranks Any.
    /// The newest point of a series of the history: `NO_SUCH_NAME` if it has none.
    HISTORY_LATEST = 51 "history_latest" since 0: Name => Point;
        Reads, hooks any, background Snapshot, remote no, ranks Any.
}

#[cfg(test)]
mod tests;
