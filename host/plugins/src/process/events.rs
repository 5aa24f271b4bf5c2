//! Events, from the tables of the ABI to messages and back.

use plugin_api::abi::kinds::EventKind;
use plugin_api::abi::{Bytes, EvaluationTable, EventTable, Text, TextsTable, read_table};
use plugin_api::protocol::Blob;

use super::messages::{Data, Event};

/// The events whose data is an [`EvaluationTable`]; that of all others is a [`TextsTable`].
const EVALUATIONS: [EventKind; 4] =
    [EventKind::EVAL_START, EventKind::EVAL_STEP_START, EventKind::EVAL_STEP_END, EventKind::EVAL_END];

impl Event {
    /// The message of an event.
    ///
    /// # Safety
    ///
    /// `table.data` must be null or the table that belongs to the event's kind, valid for this call.
    pub(super) unsafe fn of(table: &EventTable, ticket: u64) -> Self {
        let data = if EVALUATIONS.contains(&table.kind) {
            // SAFETY: the caller's promise; null is not read.
            let data = unsafe { read_table::<EvaluationTable>(table.data.cast()) };
            data.map(|data| Data::Evaluation {
                // SAFETY: as above.
                split: unsafe { data.split.read() }.into_owned(),
                mid_epoch: data.mid_epoch != 0,
                batch: data.batch,
                batches: data.batches,
            })
        } else {
            // SAFETY: the caller's promise; null is not read.
            let data = unsafe { read_table::<TextsTable>(table.data.cast()) };
            // SAFETY: as above.
            data.map(|data| unsafe {
                Data::Texts {
                    number: data.number,
                    first: data.first.read().into_owned(),
                    second: data.second.read().into_owned(),
                    third: data.third.read().into_owned(),
                    bytes: Blob(data.bytes.read().to_vec()),
                    value: data.value,
                }
            })
        };
        Self {
            kind: table.kind.0,
            ticket,
            epoch: table.epoch,
            step: table.step,
            global_step: table.global_step,
            samples: table.samples,
            data,
        }
    }

    /// Lowers it to the ABI's tables, which live as long as `body` runs.
    pub(super) fn lower<R>(&self, body: impl FnOnce(&EventTable) -> R) -> R {
        let (evaluation, texts);
        let data = match &self.data {
            None => std::ptr::null(),
            Some(Data::Evaluation { split, mid_epoch, batch, batches }) => {
                evaluation = EvaluationTable {
                    size: size_of::<EvaluationTable>() as u32,
                    mid_epoch: u32::from(*mid_epoch),
                    split: Text::new(split),
                    batch: *batch,
                    batches: *batches,
                };
                (&raw const evaluation).cast()
            }
            Some(Data::Texts { number, first, second, third, bytes, value }) => {
                texts = TextsTable {
                    size: size_of::<TextsTable>() as u32,
                    number: *number,
                    first: Text::new(first),
                    second: Text::new(second),
                    third: Text::new(third),
                    bytes: Bytes::new(&bytes.0),
                    value: *value,
                };
                (&raw const texts).cast()
            }
        };
        body(&EventTable {
            size: size_of::<EventTable>() as u32,
            kind: EventKind(self.kind),
            epoch: self.epoch,
            step: self.step,
            global_step: self.global_step,
            samples: self.samples,
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, data: Option<Data>) -> Event {
        Event { kind: kind.0, ticket: 7, epoch: 1, step: 2, global_step: 3, samples: 4, data }
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        let evaluation = Data::Evaluation { split: "val".to_owned(), mid_epoch: true, batch: 3, batches: 9 };
        let texts = Data::Texts {
            number: 5,
            first: "one".to_owned(),
            second: String::new(),
            third: "three".to_owned(),
            bytes: Blob(vec![0, 255]),
            value: 0.5,
        };
        for event in [
            event(EventKind::STEP_END, None),
            event(EventKind::EVAL_STEP_END, Some(evaluation)),
            event(EventKind::CUSTOM, Some(texts)),
        ] {
            // SAFETY: the table that belongs to the kind, valid for the call.
            let again = event.lower(|table| unsafe { Event::of(table, 7) });
            assert_eq!(again, event);
        }
    }
}
