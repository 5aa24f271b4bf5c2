//! The hot path: hooks on the training thread, called one after the other.
//!
//! Between two hooks there is no allocation, no lock and no atomic operation, and no access to a thread-local variable.

use std::sync::Arc;

use plugin_api::abi::kinds::{EventKind, Status};

use super::account::Sampling;
use super::event::Event;
use super::guard::Guard;
use super::hook::{Answers, Hook, Identity, Left};
use super::host_call::HOST_TABLE;
use super::remote::RemoteHub;
use super::sent::EventTensors;
use super::subscriber::{Runner, Subscriber};
use crate::services::Services;

/// A subscriber of an event.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) index: usize,
    /// Inline and without a gate: nothing to check before its hook.
    pub(super) plain: bool,
}

/// A hook that failed or left something.
pub(super) struct Stopped {
    pub(super) index: usize,
    pub(super) status: Status,
    pub(super) left: Left,
}

/// The parts of the dispatcher that a pass over inline hooks uses.
pub(super) struct Inline<'a> {
    pub(super) subscribers: &'a mut [Subscriber],
    /// The subscribers, as services know them.
    pub(super) instances: &'a [Arc<Identity>],
    pub(super) hub: &'a Arc<RemoteHub>,
    pub(super) sampling: &'a mut Sampling,
    pub(super) guard: &'a mut Guard,
}

impl Inline<'_> {
    /// Calls the hooks of `targets[*next]` and those after it. Stops at one that is not plain, and after one that
    /// failed or left something.
    // Not inlined, passing the arguments costs as much as a hook.
    #[inline(always)]
    pub(super) fn run(
        self,
        event: &Event,
        tensors: &EventTensors,
        targets: &[Target],
        next: &mut usize,
        services: &mut dyn Services,
    ) -> Option<Stopped> {
        let Self { subscribers, instances, hub, sampling, guard } = self;
        let mut hook = Hook::new(event, tensors, instances, Answers::Run(services), hub, &hub.pulse, &HOST_TABLE);
        let frequent = is_frequent(event.kind);
        let mut stopwatch = sampling.next(frequent);
        let (before, first, looks_after_each) = (guard.before(frequent), *next, !frequent || guard.looks_after_each);
        let stopped = hook.enter(targets.len() - *next, |entered| {
            event.lower(|table| {
                while let Some(target) = targets.get(*next).filter(|target| target.plain) {
                    *next += 1;
                    let subscriber = &mut subscribers[target.index];
                    // The targets are those of the pass's beginning; one that failed since is disabled.
                    let Runner::Inline(instance) = &mut subscriber.runner else { continue };
                    if !frequent {
                        tracing::debug!(target: "hook", hook = event.kind.name(), plugin = %subscriber.name);
                    }
                    let handle = entered.handle(target.index);
                    let status = stopwatch.time(&mut subscriber.account, event.kind, || instance.handle(table, handle));
                    if !before.rounds_as_before(frequent) {
                        guard.round_again(before, &subscriber.name, event.kind);
                    }
                    if looks_after_each && !before.has_its_threads() {
                        guard.thread_again(before, &subscriber.name, event.kind);
                    }
                    let left = entered.finish();
                    if left.is_some() || status != Status::OK {
                        let left = left.map_or_else(Left::default, |left| *left);
                        return Some(Stopped { index: target.index, status, left });
                    }
                }
                None
            })
        });
        if !looks_after_each && !before.has_its_threads() {
            guard.thread_again_after(before, targets.get(first..*next).unwrap_or_default(), instances, event.kind);
        }
        stopped
    }
}

/// Events that come once a step or more often. They are not logged: they would fill the log.
fn is_frequent(event: EventKind) -> bool {
    matches!(
        event,
        EventKind::STEP_START
            | EventKind::GRADIENTS
            | EventKind::STEP_END
            | EventKind::EVAL_STEP_START
            | EventKind::EVAL_STEP_END
            | EventKind::PREDICT_STEP
            | EventKind::RECORD
            | EventKind::CUSTOM
    )
}
