//! Does what other threads asked for, on the training thread.

use super::dispatcher::Dispatcher;
use super::inbox::Message;
use super::sent::Sent;
use crate::history::Position;
use crate::plugins::{Fault, reply_into};
use crate::services::{Call, Reply, Services};

impl Dispatcher {
    /// Handles the requests of other threads since the last event.
    #[inline]
    pub(super) fn read_inbox(&mut self, services: &mut dyn Services) {
        // What comes meanwhile is read at the next event: a thread that asks without end does not hold up the run.
        if !self.inbox.is_empty() {
            for message in self.inbox.take() {
                self.handle_message(message, services);
            }
        }
    }

    fn handle_message(&mut self, message: Message, services: &mut dyn Services) {
        match message {
            Message::Call { instance, hook, service, payload } => {
                let call = Call { service, instance: &instance, hook, exports: false, payload: &payload, tensors: &[] };
                let (mut ignored, mut kept) = (Vec::new(), Vec::new());
                let table = reply_into(&mut ignored);
                if let Err(error) = services.answer(&call, &mut Reply::new(&table, &mut kept))
                    && let Some(index) = self.index_of(&instance)
                {
                    let message = format!("`{}` requested in the background: {error}", service.name());
                    let fault = Fault::new(message);
                    self.failed(index, hook, fault, services);
                }
            }
            Message::Events(mut events) => {
                for (event, _) in &mut events {
                    // A remote does not know where the run is.
                    if event.position == Position::default() {
                        event.position = services.position();
                    }
                }
                self.deliver_rounds(events.into_iter().map(Sent::from).collect(), services);
            }
            Message::Times => self.publish_times(),
            Message::LeftOut { instance, count } => self.tell_left_out(&instance, count),
            Message::Restart { instance } => self.restart(&instance, services),
            Message::Fault { instance, hook, fault } => {
                if let Some(index) = self.index_of(&instance) {
                    self.failed(index, hook, fault, services);
                }
            }
        }
    }
}
