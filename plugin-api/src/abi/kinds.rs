//! The kinds: transparent integers with named constants, the part of the ABI that grows.

/// How a call ended.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// It did what it was asked.
    pub const OK: Self = Self(0);
    /// It failed; the message says why.
    pub const ERROR: Self = Self(1);
    /// It panicked; the panic was caught and the message says where.
    pub const PANIC: Self = Self(2);
    /// The handle was used after its hook, from another thread, or a remote after the run.
    pub const STALE: Self = Self(3);
    /// The receiver does not know this event, service or index.
    pub const UNKNOWN: Self = Self(4);
    /// No such name; the failure lists the nearest ones.
    pub const NO_SUCH_NAME: Self = Self(5);
    /// Not allowed here: not at a safe point, not in this hook, or not in the background.
    pub const NOT_ALLOWED: Self = Self(6);
}

macro_rules! kinds {
    ($(#[$outer:meta])* $type:ident { $($(#[$doc:meta])* $constant:ident = $number:literal $name:literal since $since:literal $(if $feature:literal)?;)* }) => {
        $(#[$outer])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(pub u32);

        impl $type {
            $($(#[$doc])* $(#[cfg(feature = $feature)])? pub const $constant: Self = Self($number);)*

            /// Every kind that this SDK knows.
            pub const ALL: &'static [Self] = &[$($(#[cfg(feature = $feature)])? Self::$constant),*];

            /// The name by which descriptors, run files and logs call it; `unknown` for one that this SDK does not know.
            pub const fn name(self) -> &'static str {
                match self.0 { $($(#[cfg(feature = $feature)])? $number => $name,)* _ => "unknown" }
            }

            /// The minor version of the ABI that brought it.
            pub const fn since(self) -> u32 {
                match self.0 { $($(#[cfg(feature = $feature)])? $number => $since,)* _ => u32::MAX }
            }

            /// The kind called `name`.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($(#[cfg(feature = $feature)])? $name => Some(Self::$constant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// Which event. Behind each name: the table in [`EventTable::data`](super::EventTable::data), none where nothing is said.
    EventKind {
        /// Once, when the model is built and nothing is trained.
        SETUP = 1 "setup" since 0;
        /// When a run resumes, after `setup`. [`TextsTable`](super::TextsTable): `bytes`, what `save_state` gave.
        LOAD_STATE = 2 "load_state" since 0;
        /// When a checkpoint is taken; the state goes to [`ServiceKind::SAVE_STATE`].
        SAVE_STATE = 3 "save_state" since 0;
        /// Before the first epoch of this process.
        TRAIN_START = 4 "train_start" since 0;
        /// After the last. [`TextsTable`](super::TextsTable): `first` the outcome, `second` the reason.
        TRAIN_END = 5 "train_end" since 0;
        /// Before the first step of an epoch.
        EPOCH_START = 6 "epoch_start" since 0;
        /// Right after the last step of an epoch, before its evaluation.
        EPOCH_TRAINED = 7 "epoch_trained" since 0;
        /// After the evaluation of an epoch.
        EPOCH_END = 8 "epoch_end" since 0;
        /// Before a step; the batch may be changed.
        STEP_START = 9 "step_start" since 0;
        /// After the optimizer's update.
        STEP_END = 10 "step_end" since 0;
        /// After backward, before clipping and optimizer.
        GRADIENTS = 11 "gradients" since 0;
        /// Before an evaluation. [`EvaluationTable`](super::EvaluationTable).
        EVAL_START = 12 "eval_start" since 0;
        /// Before a batch of it. [`EvaluationTable`](super::EvaluationTable).
        EVAL_STEP_START = 13 "eval_step_start" since 0;
        /// After a batch of it. [`EvaluationTable`](super::EvaluationTable).
        EVAL_STEP_END = 14 "eval_step_end" since 0;
        /// After an evaluation. [`EvaluationTable`](super::EvaluationTable).
        EVAL_END = 15 "eval_end" since 0;
        /// Before a prediction job.
        PREDICT_START = 16 "predict_start" since 0;
        /// After a batch of it.
        PREDICT_STEP = 17 "predict_step" since 0;
        /// After a prediction job.
        PREDICT_END = 18 "predict_end" since 0;
        /// An export was asked for.
        EXPORT = 19 "export" since 0;
        /// The run's schedule says so. [`TextsTable`](super::TextsTable): `first` the cause.
        TRIGGER = 20 "trigger" since 0;
        /// Somebody put a record. [`TextsTable`](super::TextsTable): `first` its name, `second` its author, `third` its type, `value` of a scalar.
        RECORD = 21 "record" since 0;
        /// An event of a plugin or program. [`TextsTable`](super::TextsTable): `first` its name, `second` its author, `bytes` the payload.
        CUSTOM = 22 "custom" since 0;
        /// A checkpoint is taken. [`TextsTable`](super::TextsTable): `first` who asked, `second` why.
        CHECKPOINT = 23 "checkpoint" since 0;
        /// Something was published. [`TextsTable`](super::TextsTable): `first` its kind, `second` its path, `third` its author.
        ARTIFACT = 24 "artifact" since 0;
        /// A stop was asked for. [`TextsTable`](super::TextsTable): `first` who, `second` why.
        STOPPING = 25 "stopping" since 0;
        /// Something failed. [`TextsTable`](super::TextsTable): `first` who, `second` in which hook, `third` the message.
        ERROR = 26 "error" since 0;
        /// The end of every job, for every instance that was created.
        TEARDOWN = 27 "teardown" since 0;
        /// The next minor's event: after each safe point of the loop.
        SAFE_POINT = 28 "safe_point" since 1 if "next-minor";
    }
}

kinds! {
    /// Which service of the host. The request and reply of each are in [`protocol`](crate::protocol).
    ServiceKind {
        /// The glue of a plugin tells why its hook failed. Request `Failure`.
        FAULT = 1 "fault" since 0;
        /// The state that a `save_state` hook gives. Request: raw bytes.
        SAVE_STATE = 2 "save_state" since 0;
        /// Puts a metric. Request `MetricPut`.
        METRIC_PUT = 3 "metric_put" since 0;
        /// The latest metrics. Reply: map of name to number.
        METRICS = 4 "metrics" since 0;
        /// Puts a record for the monitors. Request `Record`.
        RECORD_PUT = 5 "record_put" since 0;
        /// The record that the event at hand is about. Reply `Record`.
        RECORD = 6 "record" since 0;
        /// The names in the history. Reply: list of text.
        HISTORY_NAMES = 7 "history_names" since 0;
        /// A series of the history. Request `Name`; reply: list of `Point`.
        HISTORY_SERIES = 8 "history_series" since 0;
        /// A series of arrays. Request `Name`; reply: list of `ArrayPoint`.
        HISTORY_ARRAYS = 9 "history_arrays" since 0;
        /// Puts an array into the history. Request `ArrayPut`.
        ARRAY_PUT = 10 "array_put" since 0;
        /// The hyper-parameters. Reply: list of `ParameterGroup`.
        HYPER_PARAMETERS = 11 "hyper_parameters" since 0;
        /// Sets one. Request `HyperParameterSet`.
        HYPER_PARAMETER_SET = 12 "hyper_parameter_set" since 0;
        /// Asks the loop for something. Request `ControlRequest`.
        CONTROL = 13 "control" since 0;
        /// Names, shapes and types of a set of tensors. Request `TensorsRequest`; reply: list of `TensorInfo`.
        TENSOR_LIST = 14 "tensor_list" since 0;
        /// Reads tensors. Request `TensorsRequest`; reply: tensors.
        TENSOR_READ = 15 "tensor_read" since 0;
        /// Writes tensors. Request `TensorsRequest` and tensors.
        TENSOR_WRITE = 16 "tensor_write" since 0;
        /// Copies a tensor to the CPU. Request: one tensor that a service gave; reply: one tensor.
        TENSOR_TO_HOST = 17 "tensor_to_host" since 0;
        /// Named copies of the weights. Request `CopyRequest`.
        WEIGHTS_COPY = 18 "weights_copy" since 0;
        /// Snapshots of the whole training state. Request `CopyRequest`.
        SNAPSHOT = 19 "snapshot" since 0;
        /// Trains outside the run's history. Request `TrainSteps`; reply: list of losses.
        TRAIN_STEPS = 20 "train_steps" since 0;
        /// The model's graph. Reply: JSON bytes, not MessagePack.
        GRAPH = 21 "graph" since 0;
        /// Outputs in inference mode. Request `Predict` and tensors; reply: tensors.
        PREDICT = 22 "predict" since 0;
        /// Metrics over a split. Request `Measure`; reply: map of name to number.
        MEASURE = 23 "measure" since 0;
        /// Estimates the batch-norm statistics anew. Request `Recalibrate`.
        RECALIBRATE_BATCH_NORM = 24 "recalibrate_batch_norm" since 0;
        /// A batch of a split. Request `BatchRequest`; reply: tensors `inputs` and `targets`.
        BATCH = 25 "batch" since 0;
        /// Sends a custom event. Request `Custom`.
        EMIT = 26 "emit" since 0;
        /// Writes a checkpoint. Request `Path`; reply `CheckpointWritten`.
        WRITE_CHECKPOINT = 27 "write_checkpoint" since 0;
        /// Announces something published. Request `Artifact`.
        ARTIFACT = 28 "artifact" since 0;
        /// What the run is. Reply `RunInfo`.
        RUN_INFO = 29 "run_info" since 0;
        /// Prints a line. Request `Line`.
        CONSOLE_LINE = 30 "console_line" since 0;
        /// Shows or, with an empty text, takes away a status line. Request `StatusLine`.
        CONSOLE_STATUS = 31 "console_status" since 0;
        /// Asks, in `setup`, for a value to be fetched along with each step. Request `Tap`.
        TAP = 32 "tap" since 0;
        /// The step's loss; waits for the device. Reply: number.
        LOSS = 33 "loss" since 0;
        /// A ticket that any thread may use until `train_end`. Reply: number.
        REMOTE = 34 "remote" since 0;
        /// What each hook of each callback has cost so far. Reply: list of `HookTime`.
        HOOK_TIMES = 36 "hook_times" since 0;
        /// The newest lines of the console. Request `LinesAfter`; reply: list of `ConsoleLine`.
        CONSOLE_LINES = 37 "console_lines" since 0;
        /// The next minor's service: seconds since the run began. Reply: number.
        UPTIME = 35 "uptime" since 1 if "next-minor";
    }
}

impl EventKind {
    /// How many numbers the events of this SDK take up; for tables indexed by kind.
    pub const COUNT: usize = 29;
}
