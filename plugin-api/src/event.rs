//! The arguments of hooks. Everything that costs a copy or waits for the device is fetched from
//! [`Run`](crate::Run) on demand.

use std::borrow::Cow;
use std::ops::Deref;

use crate::abi::{EvaluationTable, EventTable, TextsTable, read_table};

/// Where the run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The epoch in progress, from 1; 0 before the first.
    pub epoch: u64,
    /// The step within the epoch, from 1; 0 before the first.
    pub step: u64,
    /// Optimizer updates since the run began, from 1; 0 before the first.
    pub global_step: u64,
    /// Training samples seen since the run began.
    pub samples: u64,
}

impl From<&EventTable> for Position {
    fn from(event: &EventTable) -> Self {
        Self { epoch: event.epoch, step: event.step, global_step: event.global_step, samples: event.samples }
    }
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct $name<'a> {
            /// Where the run is; its fields can be read from the event itself.
            pub position: Position,
            $($(#[$field_doc])* pub $field: $type,)*
            pub(crate) borrowed: std::marker::PhantomData<&'a ()>,
        }

        impl Deref for $name<'_> {
            type Target = Position;
            fn deref(&self) -> &Position {
                &self.position
            }
        }
    )* };
}

events! {
    /// An event with only the run's position.
    At {}
    /// The end of the training.
    TrainEnd {
        /// How it ended.
        outcome: Outcome,
        /// The reason, if one was given.
        reason: Cow<'a, str>,
    }
    /// An evaluation of a split, or a batch of one.
    Evaluation {
        /// The split's name.
        split: Cow<'a, str>,
        /// Whether it interrupts an epoch.
        mid_epoch: bool,
        /// The batch within the evaluation, from 1; 0 at its start and end.
        batch: u64,
        /// How many batches it has.
        batches: u64,
    }
    /// The run's schedule says that it is time.
    Trigger {
        /// The cause: `epoch`, `step`, `time`, `at`, `end`, or `best <metric>`.
        cause: Cow<'a, str>,
    }
    /// Somebody put a record; `Run::current_record` fetches it.
    RecordPut {
        /// Its name.
        name: Cow<'a, str>,
        /// The instance that put it.
        author: Cow<'a, str>,
        /// `scalar`, `histogram`, `image`, `text`, `table`, `curve`, `graph`, `hyper_parameters`, or a type of a newer host.
        type_name: Cow<'a, str>,
        /// The value of a scalar.
        scalar: Option<f64>,
    }
    /// A custom event of a plugin or of the program that embeds the host. The tensors that it carries are fetched with
    /// [`Run::tensors`](crate::Run::tensors), from the set [`TensorSet::Event`](crate::protocol::TensorSet::Event).
    Custom {
        /// Its name.
        name: Cow<'a, str>,
        /// The instance that sent it.
        author: Cow<'a, str>,
        /// What it carries.
        payload: &'a [u8],
    }
    /// A checkpoint is taken: the host has collected everything; `Run::write_checkpoint` writes it.
    Checkpoint {
        /// The instance that asked for it, or `host`.
        asked_by: Cow<'a, str>,
        /// Why.
        reason: Cow<'a, str>,
    }
    /// A checkpoint that [`Run::queue_checkpoint`](crate::Run::queue_checkpoint) took is on the disk, or could not be written.
    CheckpointWritten {
        /// Its path, as it was queued.
        path: Cow<'a, str>,
        /// The size of its files in bytes, or why it could not be written.
        written: std::result::Result<u64, Cow<'a, str>>,
    }
    /// Something was published.
    ArtifactPublished {
        /// What it is.
        kind: Cow<'a, str>,
        /// Where it is.
        path: Cow<'a, str>,
        /// The instance that published it.
        author: Cow<'a, str>,
    }
    /// A stop was asked for.
    Stopping {
        /// The instance that asked, or `host` for a signal.
        by: Cow<'a, str>,
        /// Why.
        reason: Cow<'a, str>,
    }
    /// Something failed.
    Failed {
        /// The instance that failed, or `host`.
        by: Cow<'a, str>,
        /// In which hook.
        hook: Cow<'a, str>,
        /// The message.
        message: Cow<'a, str>,
    }
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All epochs or steps are done.
    Finished,
    /// A callback asked for a stop; not a failure.
    Stopped,
    /// Something failed.
    Failed,
    /// A signal ended it.
    Interrupted,
}

impl Outcome {
    /// Its name in `status.json`, logs and the ABI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    fn from_name(name: &str) -> Self {
        match name {
            "finished" => Self::Finished,
            "stopped" => Self::Stopped,
            "interrupted" => Self::Interrupted,
            // An outcome of a newer host: not a success that this plugin knows.
            _ => Self::Failed,
        }
    }
}

const BORROWED: std::marker::PhantomData<&()> = std::marker::PhantomData;

/// The texts of an event; empty if the host gave none.
struct Texts<'a> {
    first: Cow<'a, str>,
    second: Cow<'a, str>,
    third: Cow<'a, str>,
    bytes: &'a [u8],
    value: f64,
}

/// Reads an event's `TextsTable`.
///
/// # Safety
///
/// `event.data` must be null or a `TextsTable` valid for `'a`.
unsafe fn texts<'a>(event: &EventTable) -> Texts<'a> {
    // SAFETY: the caller's promise; `read_table` takes null.
    match unsafe { read_table::<TextsTable>(event.data.cast()) } {
        // SAFETY: the texts are valid for `'a`.
        Some(table) => unsafe {
            Texts {
                first: table.first.read(),
                second: table.second.read(),
                third: table.third.read(),
                bytes: table.bytes.read(),
                value: table.value,
            }
        },
        None => Texts {
            first: Cow::Borrowed(""),
            second: Cow::Borrowed(""),
            third: Cow::Borrowed(""),
            bytes: &[],
            value: f64::NAN,
        },
    }
}

/// Reads an event's table into what the author sees.
pub(crate) trait FromTable<'a>: Sized {
    /// # Safety
    ///
    /// `event` must be of a kind whose table this event reads, and valid for `'a`.
    unsafe fn from_table(event: &EventTable) -> Self;
}

impl<'a> FromTable<'a> for At<'a> {
    unsafe fn from_table(event: &EventTable) -> Self {
        At { position: event.into(), borrowed: BORROWED }
    }
}

impl<'a> FromTable<'a> for Evaluation<'a> {
    unsafe fn from_table(event: &EventTable) -> Self {
        // SAFETY: the kind's table, by this function's contract.
        let table = unsafe { read_table::<EvaluationTable>(event.data.cast()) };
        let (split, mid_epoch, batch, batches) = match table {
            // SAFETY: the text is valid for `'a`.
            Some(table) => (unsafe { table.split.read() }, table.mid_epoch != 0, table.batch, table.batches),
            None => (Cow::Borrowed(""), false, 0, 0),
        };
        Evaluation { position: event.into(), split, mid_epoch, batch, batches, borrowed: BORROWED }
    }
}

macro_rules! from_texts {
    ($($name:ident($texts:ident) { $($field:ident: $value:expr),* })*) => { $(
        impl<'a> FromTable<'a> for $name<'a> {
            unsafe fn from_table(event: &EventTable) -> Self {
                // SAFETY: the kind's table is a `TextsTable`, by this function's contract.
                let $texts = unsafe { texts(event) };
                $name { position: event.into(), $($field: $value,)* borrowed: BORROWED }
            }
        }
    )* };
}

from_texts! {
    TrainEnd(texts) { outcome: Outcome::from_name(&texts.first), reason: texts.second }
    Trigger(texts) { cause: texts.first }
    RecordPut(texts) {
        scalar: (texts.third == "scalar").then_some(texts.value),
        name: texts.first,
        author: texts.second,
        type_name: texts.third
    }
    Custom(texts) { name: texts.first, author: texts.second, payload: texts.bytes }
    Checkpoint(texts) { asked_by: texts.first, reason: texts.second }
    CheckpointWritten(texts) {
        path: texts.first,
        written: if texts.second.is_empty() { Ok(texts.value as u64) } else { Err(texts.second) }
    }
    ArtifactPublished(texts) { kind: texts.first, path: texts.second, author: texts.third }
    Stopping(texts) { by: texts.first, reason: texts.second }
    Failed(texts) { by: texts.first, hook: texts.second, message: texts.third }
}

/// The bytes of a `load_state` event, and the version of the plugin that saved them; empty of an older host.
///
/// # Safety
///
/// `event` must be a `load_state` event, valid for `'a`.
pub(crate) unsafe fn saved_state<'a>(event: &EventTable) -> (&'a [u8], Cow<'a, str>) {
    // SAFETY: the kind's table is a `TextsTable`, by this function's contract.
    let texts = unsafe { texts(event) };
    (texts.bytes, texts.first)
}
