//! The kinds: transparent integers with named constants; the part of the ABI that grows.

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
    /// No such name; the message lists the nearest ones.
    pub const NO_SUCH_NAME: Self = Self(5);
    /// Not allowed here: not at a safe point, not in this hook, or not in the background.
    pub const NOT_ALLOWED: Self = Self(6);
    /// The name is known but has no value yet.
    pub const NO_VALUE: Self = Self(7);
}

pub use crate::services::ServiceKind;

macro_rules! events {
    ($(#[$outer:meta])* $type:ident { $(
        $(#[$doc:meta])*
        $constant:ident = $number:literal $name:literal since $since:literal $([$draft:ident])? $(if $feature:literal)?;
    )* }) => {
        $(#[$outer])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(pub u32);

        impl $type {
            $(
                $(#[$doc])*
                #[doc = ""]
                #[doc = concat!("Number ", $number, ".", $(" A ", stringify!($draft), ".")?)]
                $(#[cfg(feature = $feature)])?
                pub const $constant: Self = Self($number);
            )*

            /// Every event that this SDK knows.
            pub const ALL: &'static [Self] = &[$($(#[cfg(feature = $feature)])? Self::$constant),*];

            /// The name by which descriptors, run files and logs call it; `unknown` for one that this SDK does not know.
            pub const fn name(self) -> &'static str {
                match self.0 { 0 => "new", $($(#[cfg(feature = $feature)])? $number => $name,)* _ => "unknown" }
            }

            /// The minor version of the ABI that added it.
            pub const fn since(self) -> u32 {
                match self.0 { $($(#[cfg(feature = $feature)])? $number => $since,)* _ => u32::MAX }
            }

            /// Whether it is not stable yet: it may change or disappear in any version.
            pub const fn is_draft(self) -> bool {
                match self.0 { $($(#[cfg(feature = $feature)])? $number => !concat!($(stringify!($draft))?).is_empty(),)* _ => false }
            }

            /// The event called `name`.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($(#[cfg(feature = $feature)])? $name => Some(Self::$constant),)* _ => None }
            }
        }
    };
}

events! {
    /// Which event. Each names its table in [`EventTable::data`](super::EventTable::data); without a name there is none.
    EventKind {
        /// Once, when the model is built and nothing is trained.
        SETUP = 1 "setup" since 0;
        /// When a run resumes, after `setup`. [`TextsTable`](super::TextsTable): `bytes` what `save_state` gave, `first` the version of the plugin that gave it.
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
        /// Before the batches of a prediction job. [`EvaluationTable`](super::EvaluationTable).
        PREDICT_START = 16 "predict_start" since 0;
        /// After a batch of it. [`EvaluationTable`](super::EvaluationTable).
        PREDICT_STEP = 17 "predict_step" since 0;
        /// After the batches of a prediction job. [`EvaluationTable`](super::EvaluationTable).
        PREDICT_END = 18 "predict_end" since 0;
        /// An export was asked for, of a saved checkpoint.
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
        /// Training is over: no step follows. Before what comes at the end, whatever ended it but a failure.
        TRAINED = 29 "trained" since 0;
        /// A checkpoint that was queued is written, or could not be. [`TextsTable`](super::TextsTable): `first` its path, `second` what failed or empty, `value` its bytes.
        CHECKPOINT_WRITTEN = 30 "checkpoint_written" since 0;
        /// The next minor's event: after each safe point of the loop.
        SAFE_POINT = 28 "safe_point" since 1 if "next-minor";
    }
}

impl EventKind {
    /// Not an event: the creation of an instance, as the hook in which a service is called.
    pub const CREATE: Self = Self(0);

    /// The greatest number of an event of this SDK, plus one; for tables indexed by kind.
    pub const COUNT: usize = {
        let (mut greatest, mut index) = (0, 0);
        while index < Self::ALL.len() {
            if Self::ALL[index].0 > greatest {
                greatest = Self::ALL[index].0;
            }
            index += 1;
        }
        greatest as usize + 1
    };
}

// A set of events is 64 bits.
const _: () = assert!(EventKind::COUNT <= 64);

impl ServiceKind {
    /// The name by which descriptors and messages call it; `unknown` for one that this SDK does not know.
    pub const fn name(self) -> &'static str {
        match self.rule() {
            Some(rule) => rule.name,
            None => "unknown",
        }
    }

    /// The minor version of the ABI that added it.
    pub const fn since(self) -> u32 {
        match self.rule() {
            Some(rule) => rule.since,
            None => u32::MAX,
        }
    }

    /// Whether it is not stable yet: it may change or disappear in any version.
    pub const fn is_draft(self) -> bool {
        match self.rule() {
            Some(rule) => rule.is_draft,
            None => false,
        }
    }
}
