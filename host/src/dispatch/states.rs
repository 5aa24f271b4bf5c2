//! What instances and their schedules save in a checkpoint.

use std::collections::BTreeMap;

use plugin_api::abi::kinds::EventKind;

use super::dispatcher::Dispatcher;
use super::event::{Event, EventData};
use super::failure::Failure;
use super::schedule::ScheduleState;
use super::subscriber::Runner;
use crate::services::Services;

impl Dispatcher {
    /// Collects every instance's state, in order, each after the events queued for it. An instance
    /// that panicked contributes its last saved state.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn save_states(&mut self, services: &mut dyn Services) -> Result<BTreeMap<String, Vec<u8>>, Box<Failure>> {
        let event = Event::at(EventKind::SAVE_STATE, services.position());
        for target in self.targets(EventKind::SAVE_STATE).iter() {
            if self.subscribers[target.index].is_background() {
                let snapshot = self.share(&event, &[], services);
                let Runner::Background(worker) = &self.subscribers[target.index].runner else { continue };
                match snapshot.and_then(|snapshot| worker.save_state(event.clone(), snapshot).unwrap_or(Ok(Vec::new())))
                {
                    Ok(state) => self.subscribers[target.index].state = Some(state),
                    Err(fault) => self.failed(target.index, event.kind, fault, services),
                }
            } else {
                self.deliver(&event, &[*target], services);
            }
        }
        self.take_failure()?;
        Ok(self
            .subscribers
            .iter()
            .filter_map(|subscriber| Some((subscriber.name.to_string(), subscriber.state.clone()?)))
            .collect())
    }

    /// Gives every instance the state saved under its name.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn load_states(
        &mut self,
        states: &BTreeMap<String, Vec<u8>>,
        services: &mut dyn Services,
    ) -> Result<(), Box<Failure>> {
        for target in self.targets(EventKind::LOAD_STATE).iter() {
            let Some(state) = states.get(&*self.subscribers[target.index].name) else { continue };
            self.subscribers[target.index].state = Some(state.clone());
            let data = EventData::State(state.as_slice().into());
            let event = Event { kind: EventKind::LOAD_STATE, position: services.position(), data };
            self.deliver(&event, &[*target], services);
        }
        self.take_failure()
    }

    /// What the schedules must remember across a resume, by instance.
    pub fn schedule_states(&self) -> BTreeMap<String, ScheduleState> {
        self.subscribers
            .iter()
            .map(|subscriber| (subscriber.name.to_string(), subscriber.schedule.state.clone()))
            .collect()
    }

    /// Restores the schedules.
    pub fn restore_schedules(&mut self, states: &BTreeMap<String, ScheduleState>) {
        for subscriber in &mut self.subscribers {
            if let Some(state) = states.get(&*subscriber.name) {
                subscriber.schedule.state = state.clone();
            }
        }
    }
}
