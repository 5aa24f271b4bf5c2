//! What instances and their schedules save in a checkpoint.

use std::collections::BTreeMap;

use plugin_api::abi::kinds::EventKind;

use super::dispatcher::Dispatcher;
use super::event::{Event, EventData};
use super::failure::Failure;
use super::schedule::ScheduleState;
use super::sent::EventTensors;
use super::subscriber::Runner;
use crate::services::Services;

/// What an instance saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedState {
    /// The state, as the instance wrote it.
    pub bytes: Vec<u8>,
    /// The version of the plugin that wrote it; empty where that is not known.
    pub version: String,
}

impl Dispatcher {
    /// Collects every instance's state, in order, each after the events queued for it. An instance
    /// that panicked contributes its last saved state.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn save_states(&mut self, services: &mut dyn Services) -> Result<BTreeMap<String, SavedState>, Box<Failure>> {
        let event = Event::at(EventKind::SAVE_STATE, services.position());
        for target in self.targets(EventKind::SAVE_STATE).iter() {
            if self.subscribers[target.index].is_background() {
                let snapshot = self.share(&event, &EventTensors::None, &[], services);
                let Runner::Background(worker) = &self.subscribers[target.index].runner else { continue };
                match snapshot.and_then(|snapshot| worker.save_state(event.clone(), snapshot).unwrap_or(Ok(None))) {
                    Ok(Some(state)) => self.subscribers[target.index].state = Some(state),
                    // One that has failed keeps its last.
                    Ok(None) => {}
                    Err(fault) => self.failed(target.index, event.kind, fault, services),
                }
            } else {
                self.deliver(&event, &[*target], services);
            }
        }
        self.take_failure()?;
        let own = self.subscribers.iter().filter_map(|subscriber| {
            let version = subscriber.planned.kind.descriptor().version.clone();
            Some((subscriber.name.to_string(), SavedState { bytes: subscriber.state.clone()?, version }))
        });
        Ok(self.carried.clone().into_iter().chain(own).collect())
    }

    /// Gives every instance the state saved under its name. States of instances that this run does not have are carried on,
    /// so that a run that has them again finds them.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn load_states(
        &mut self,
        states: &BTreeMap<String, SavedState>,
        services: &mut dyn Services,
    ) -> Result<(), Box<Failure>> {
        let is_here = |name: &str| self.subscribers.iter().any(|subscriber| &*subscriber.name == name);
        self.carried = states
            .iter()
            .filter(|(name, _)| !is_here(name))
            .map(|(name, state)| (name.clone(), state.clone()))
            .collect();
        // Also of one that failed before, which is started anew with it.
        for subscriber in &mut self.subscribers {
            if let Some(state) = states.get(&*subscriber.name) {
                subscriber.state = Some(state.bytes.clone());
            }
        }
        for target in self.targets(EventKind::LOAD_STATE).iter() {
            let Some(state) = states.get(&*self.subscribers[target.index].name) else { continue };
            let data = EventData::State { bytes: state.bytes.as_slice().into(), version: state.version.clone() };
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
