//! Events that callbacks or the program send, with the tensors that they carry.

use std::rc::Rc;

use plugin_api::abi::TensorTable;

use super::event::Event;
use crate::services::{Lent, ServiceError, Services, SharedTensor};

/// An event on its way to the callbacks.
pub(super) struct Sent {
    pub(super) event: Event,
    pub(super) tensors: EventTensors,
}

/// The tensors of a custom event. A clone shares them.
#[derive(Clone, Default)]
pub(super) enum EventTensors {
    /// None.
    #[default]
    None,
    /// Memory of the training, for callbacks on its thread.
    Lent(Rc<[Lent]>),
    /// Copies that a callback on another thread sent.
    Copied(Vec<SharedTensor>),
}

impl From<Event> for Sent {
    fn from(event: Event) -> Self {
        Self { event, tensors: EventTensors::None }
    }
}

impl From<(Event, Vec<SharedTensor>)> for Sent {
    fn from((event, tensors): (Event, Vec<SharedTensor>)) -> Self {
        Self { event, tensors: EventTensors::Copied(tensors) }
    }
}

impl Sent {
    /// As it goes to another thread, from one that has copies only.
    pub(super) fn into_message(self) -> (Event, Vec<SharedTensor>) {
        let tensors = if let EventTensors::Copied(tensors) = self.tensors { tensors } else { Vec::new() };
        (self.event, tensors)
    }
}

impl EventTensors {
    /// A plugin's tensors, whose tables are valid for this call: those that lie in what its hook was `lent` stay where they
    /// are, and others are copied, since their memory is the plugin's.
    pub(super) fn of_plugin(
        tables: &[TensorTable],
        lent: &[Lent],
        services: &mut dyn Services,
    ) -> Result<Self, ServiceError> {
        let tensors = tables.iter().map(|table| {
            let within = |lent: &&Lent| lent.holds(table);
            match lent.iter().find(within) {
                Some(lent) => Ok(lent.part(table)),
                None => Ok(services.copy_tensor(table)?.lend()),
            }
        });
        Ok(Self::Lent(tensors.collect::<Result<_, ServiceError>>()?))
    }

    /// Each of them, to be lent to a callback.
    pub(super) fn lend(&self) -> Vec<Lent> {
        match self {
            Self::None => Vec::new(),
            Self::Lent(tensors) => tensors.to_vec(),
            Self::Copied(tensors) => tensors.iter().map(SharedTensor::lend).collect(),
        }
    }

    /// Copies that any thread may read.
    pub(super) fn copies(&self, services: &mut dyn Services) -> Result<Vec<SharedTensor>, ServiceError> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::Lent(tensors) => {
                tensors.iter().map(|lent| lent.with_table(|table| services.copy_tensor(table))).collect()
            }
            Self::Copied(tensors) => Ok(tensors.clone()),
        }
    }
}
