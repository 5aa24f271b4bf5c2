//! Starts an instance anew whose process has failed: with its last saved state, as after a resume.

use plugin_api::abi::kinds::EventKind;

use super::create::create;
use super::dispatcher::Dispatcher;
use super::event::{Event, EventData};
use super::inline::Target;
use super::subscriber::Runner;
use crate::plugins::Fault;
use crate::services::Services;

impl Dispatcher {
    /// Makes the instance again, and gives it `setup`, its state, and `train_start` where the training has begun. What fails now is its next failure.
    pub(super) fn restart(&mut self, instance: &str, services: &mut dyn Services) {
        let Some(index) = self.index_of(instance) else { return };
        let subscriber = &self.subscribers[index];
        let (left, planned) = (subscriber.restarts, &subscriber.planned);
        match create(&planned.kind, planned.isolation.as_ref(), &self.instances, index, &self.hub) {
            Ok(made) => self.subscribers[index].runner = Runner::Inline(made),
            Err(mut fault) => {
                fault.message = format!("it could not be started anew: {}", fault.message);
                fault.ended = true;
                self.failed(index, EventKind::CREATE, fault, services);
                return;
            }
        }
        self.index();
        tracing::warn!(
            plugin = instance,
            "`{instance}` was started anew; {}",
            match left {
                0 => "it was the last time".to_owned(),
                1 => "once more is possible".to_owned(),
                left => format!("{left} more times are possible"),
            }
        );
        let only = [Target { index, plain: true }];
        let position = services.position();
        self.deliver_if_wanted(&Event::at(EventKind::SETUP, position), only, services);
        if let Some(state) = self.subscribers[index].state.clone() {
            let version = self.subscribers[index].planned.kind.descriptor().version.clone();
            let data = EventData::State { bytes: state.into(), version };
            self.deliver_if_wanted(&Event { kind: EventKind::LOAD_STATE, position, data }, only, services);
        }
        if !self.has_begun {
            return;
        }
        self.deliver_if_wanted(&Event::at(EventKind::TRAIN_START, position), only, services);
        if let Err(error) = self.begin() {
            let fault = Fault { ended: true, ..Fault::new(format!("there is no thread for it: {error}")) };
            self.failed(index, EventKind::CREATE, fault, services);
        }
    }

    fn deliver_if_wanted(&mut self, event: &Event, only: [Target; 1], services: &mut dyn Services) {
        if self.subscribers[only[0].index].wants(event.kind) {
            self.deliver(event, &only, services);
        }
    }
}
