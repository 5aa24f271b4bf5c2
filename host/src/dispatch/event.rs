//! An event in the host: plain data that can be serialized, so that it can be sent to another
//! thread and lowered there.

use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use plugin_api::abi::{Bytes, EvaluationTable, EventTable, Text, TextsTable};
use plugin_api::protocol::Record;

use crate::history::Position;

/// Something that happened, and where.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Where the run is.
    pub position: Position,
    /// The data of the kind.
    pub data: EventData,
}

/// The data of an event's kind.
#[derive(Clone, Debug, Default)]
pub enum EventData {
    /// Nothing.
    #[default]
    None,
    /// An evaluation, or a batch of one.
    Evaluation {
        /// The split.
        split: Arc<str>,
        /// Whether it interrupts an epoch.
        mid_epoch: bool,
        /// The batch, from 1; 0 at the start and end.
        batch: u64,
        /// How many there are.
        batches: u64,
    },
    /// Up to three texts; `EventKind` documents them.
    Texts([String; 3]),
    /// A record and its author.
    Record {
        /// The instance that put it.
        author: Arc<str>,
        /// The record.
        record: Arc<Record>,
    },
    /// A custom event.
    Custom {
        /// Its name.
        name: String,
        /// The instance that sent it.
        author: Arc<str>,
        /// What it carries.
        payload: Arc<[u8]>,
    },
    /// A checkpoint that was queued.
    Written {
        /// Its path, as it was queued.
        path: String,
        /// Its size in bytes, or why it could not be written.
        written: Result<u64, String>,
    },
    /// The state of one instance.
    State {
        /// What it saved.
        bytes: Arc<[u8]>,
        /// The version of the plugin that saved it.
        version: String,
    },
}

impl Event {
    /// An event with nothing but its position.
    pub fn at(kind: EventKind, position: Position) -> Self {
        Self { kind, position, data: EventData::None }
    }

    /// An event with texts.
    pub fn with_texts(kind: EventKind, position: Position, texts: [&str; 3]) -> Self {
        Self { kind, position, data: EventData::Texts(texts.map(str::to_owned)) }
    }

    /// Lowers the event to the ABI's tables, which live as long as `body` runs.
    // Only one call of `body`, so that it is inlined.
    #[inline]
    pub(super) fn lower<R>(&self, body: impl FnOnce(&EventTable) -> R) -> R {
        let (evaluation, texts);
        let data = match &self.data {
            EventData::None => std::ptr::null(),
            EventData::Evaluation { split, mid_epoch, batch, batches } => {
                evaluation = EvaluationTable {
                    size: size_of::<EvaluationTable>() as u32,
                    mid_epoch: u32::from(*mid_epoch),
                    split: Text::new(split),
                    batch: *batch,
                    batches: *batches,
                };
                (&raw const evaluation).cast()
            }
            _ => {
                texts = self.texts();
                (&raw const texts).cast()
            }
        };
        body(&EventTable {
            size: size_of::<EventTable>() as u32,
            kind: self.kind,
            epoch: self.position.epoch,
            step: self.position.step,
            global_step: self.position.global_step,
            samples: self.position.samples,
            data,
        })
    }

    fn texts(&self) -> TextsTable {
        let mut table = TextsTable {
            size: size_of::<TextsTable>() as u32,
            number: 0,
            first: Text::new(""),
            second: Text::new(""),
            third: Text::new(""),
            bytes: Bytes::new(&[]),
            value: f64::NAN,
        };
        match &self.data {
            EventData::Texts([first, second, third]) => {
                table.first = Text::new(first);
                table.second = Text::new(second);
                table.third = Text::new(third);
            }
            EventData::Record { author, record } => {
                table.first = Text::new(&record.name);
                table.second = Text::new(author);
                table.third = Text::new(record.value.type_name());
                if let plugin_api::protocol::RecordValue::Scalar { value } = record.value {
                    table.value = value;
                }
            }
            EventData::Custom { name, author, payload } => {
                table.first = Text::new(name);
                table.second = Text::new(author);
                table.bytes = Bytes::new(payload);
            }
            EventData::Written { path, written } => {
                table.first = Text::new(path);
                match written {
                    Ok(bytes) => table.value = *bytes as f64,
                    Err(error) => table.second = Text::new(error),
                }
            }
            EventData::State { bytes, version } => {
                table.first = Text::new(version);
                table.bytes = Bytes::new(bytes);
            }
            EventData::None | EventData::Evaluation { .. } => {}
        }
        table
    }
}
