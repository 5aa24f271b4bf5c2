//! One instance in the order: its hooks, its gate, its policy, its account, and where it runs.

use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use plugin_api::protocol::Need;

use super::account::Account;
use super::background::Worker;
use super::plan::{OnError, Planned};
use super::schedule::Schedule;
use crate::config::Condition;
use crate::plugins::Instance;
use crate::services::SnapshotNeeds;

// In this order and aligned, all that a hook of every step uses lies in one cache line: a step of a small model leaves
// little of the cache to its callbacks.
#[repr(C, align(64))]
pub(super) struct Subscriber {
    pub(super) runner: Runner,
    pub(super) account: Account,
    pub(super) name: Arc<str>,
    pub(super) planned: Planned,
    pub(super) hooks: u64,
    pub(super) schedule: Schedule,
    /// Its last saved state; kept when it panics.
    pub(super) state: Option<Vec<u8>>,
    /// How often its process may still be started anew.
    pub(super) restarts: u32,
}

/// Where an instance is.
pub(super) enum Runner {
    Inline(Instance),
    Background(Worker),
    /// Disabled: the host does not enter it again.
    Gone,
}

/// The hooks that `if` does not gate: a callback needs them to stay consistent.
const UNGATED: [EventKind; 9] = [
    EventKind::SETUP,
    EventKind::LOAD_STATE,
    EventKind::SAVE_STATE,
    EventKind::TRAIN_START,
    EventKind::TRAIN_END,
    EventKind::TRAINED,
    EventKind::STOPPING,
    EventKind::ERROR,
    EventKind::TEARDOWN,
];

impl Subscriber {
    pub(super) fn new(planned: Planned, runner: Runner) -> Self {
        Self {
            name: planned.name().into(),
            hooks: planned.hooks(),
            restarts: planned.options.restart,
            schedule: Schedule::new(planned.when.clone()),
            planned,
            runner,
            account: Account::new(),
            state: None,
        }
    }

    pub(super) fn wants(&self, event: EventKind) -> bool {
        self.hooks & (1 << event.0) != 0 && !matches!(self.runner, Runner::Gone)
    }

    /// The condition that must hold for `event`, if there is one.
    #[inline]
    pub(super) fn gate(&self, event: EventKind) -> Option<&Condition> {
        self.planned.condition().filter(|_| !UNGATED.contains(&event))
    }

    pub(super) fn on_error(&self) -> OnError {
        self.planned.options.on_error
    }

    pub(super) fn is_background(&self) -> bool {
        matches!(self.runner, Runner::Background(_))
    }

    /// Adds what it needs in `event` to `needs`.
    pub(super) fn needs(&self, event: EventKind, needs: &mut SnapshotNeeds) {
        for need in &self.planned.kind.descriptor().needs {
            if !need.is_for(event) {
                continue;
            }
            if need.what == Need::TRAINING_STATE {
                needs.training_state = true;
            } else if need.what.parse::<plugin_api::protocol::TensorSet>().is_ok() {
                needs.sets.insert(need.what.clone());
                needs.exports |= self.planned.handles(EventKind::EXPORT);
            }
        }
    }
}
