//! Passes: one event over its subscribers in order, and the rounds of events that their hooks put.

use std::borrow::Cow;
use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use plugin_api::protocol::TensorSet;

use super::background::waits_for_answer;
use super::dispatcher::Dispatcher;
use super::event::Event;
use super::hook::MOST_EVENTS;
use super::inline::{Inline, Stopped, Target};
use super::sent::{EventTensors, Sent};
use super::snapshots::SharedSnapshot;
use super::subscriber::Runner;
use crate::plugins::Fault;
use crate::services::{Services, SnapshotNeeds};

/// The most rounds of records and custom events after one hook. More means that callbacks answer each other in
/// a loop.
pub(super) const ROUNDS: usize = 8;

impl Dispatcher {
    /// A pass, and the rounds of events that its hooks put. Failures are reported after it, so that nobody hears of an
    /// error in an event that it has not seen yet.
    pub(super) fn deliver(&mut self, event: &Event, targets: &[Target], services: &mut dyn Services) {
        self.deliver_from(0, Vec::new(), event, targets, services);
    }

    /// The pass from `next` on, after `left`, which earlier hooks left.
    pub(super) fn deliver_from(
        &mut self,
        mut next: usize,
        mut left: Vec<Sent>,
        event: &Event,
        targets: &[Target],
        services: &mut dyn Services,
    ) {
        let mut shared = None;
        let mut targets = Cow::Borrowed(targets);
        let mut errors = Vec::new();
        loop {
            let (failed, queued): (Vec<Sent>, Vec<Sent>) =
                left.into_iter().partition(|sent| sent.event.kind == EventKind::ERROR);
            let failures = self.failures.len();
            if !queued.is_empty() {
                // One of the rounds may need a snapshot, which waits until this one is released.
                shared = None;
                self.deliver_rounds(queued, services);
            }
            if self.failures.len() > failures {
                // An instance that was disabled in a round does not see the rest.
                let stays = |target: &&Target| self.subscribers[target.index].wants(event.kind);
                targets = targets[next..].iter().filter(stays).copied().collect();
                next = 0;
            }
            errors.extend(failed);
            if next == targets.len() {
                break;
            }
            left = self.pass(event, &EventTensors::None, &targets, &mut next, &mut shared, services);
        }
        self.deliver_rounds(errors, services);
    }

    /// Events that hooks put: each round's hooks put those of the next.
    pub(super) fn deliver_rounds(&mut self, mut pending: Vec<Sent>, services: &mut dyn Services) {
        let mut rounds = Vec::new();
        while !pending.is_empty() {
            if rounds.len() == ROUNDS {
                rounds.push(pending);
                self.loop_of_callbacks(&rounds);
                return;
            }
            let mut following = Vec::new();
            for Sent { event, tensors } in &pending {
                if following.len() > MOST_EVENTS {
                    self.too_many_answers(&following);
                    return;
                }
                let targets = self.targets(event.kind);
                let (mut next, mut shared) = (0, None);
                while next < targets.len() {
                    following.extend(self.pass(event, tensors, &targets, &mut next, &mut shared, services));
                }
            }
            rounds.push(std::mem::replace(&mut pending, following));
        }
    }

    /// Calls the hooks from `targets[*next]` on, until one leaves events or the pass is done;
    /// returns those events.
    fn pass(
        &mut self,
        event: &Event,
        tensors: &EventTensors,
        targets: &[Target],
        next: &mut usize,
        shared: &mut Option<SharedSnapshot>,
        services: &mut dyn Services,
    ) -> Vec<Sent> {
        while let Some(&target) = targets.get(*next) {
            if target.plain {
                if let Some(stopped) = self.run_plain(event, tensors, targets, next, services) {
                    return self.settle(event, stopped);
                }
                continue;
            }
            *next += 1;
            let subscriber = &self.subscribers[target.index];
            if !subscriber.wants(event.kind) {
                continue;
            }
            if let Some(condition) = subscriber.gate(event.kind)
                && !condition.holds(services)
            {
                continue;
            }
            if subscriber.is_background() && !waits_for_answer(event.kind) {
                if let Err(fault) = self.send(target.index, event, tensors, targets, shared, services) {
                    return self.settle_fault(target.index, event.kind, event.position, fault);
                }
                continue;
            }
            let only = [Target { index: target.index, plain: true }];
            if let Some(stopped) = self.run_plain(event, tensors, &only, &mut 0, services) {
                return self.settle(event, stopped);
            }
        }
        Vec::new()
    }

    /// Calls inline hooks one after the other; see [`Inline::run`].
    fn run_plain(
        &mut self,
        event: &Event,
        tensors: &EventTensors,
        targets: &[Target],
        next: &mut usize,
        services: &mut dyn Services,
    ) -> Option<Stopped> {
        let Self { subscribers, instances, hub, sampling, guard, .. } = self;
        Inline { subscribers, instances, hub, sampling, guard }.run(event, tensors, targets, next, services)
    }

    /// Queues an event for a callback in the background.
    fn send(
        &mut self,
        index: usize,
        event: &Event,
        tensors: &EventTensors,
        targets: &[Target],
        shared: &mut Option<SharedSnapshot>,
        services: &mut dyn Services,
    ) -> Result<(), Fault> {
        let before = self.clock.raw();
        if shared.is_none() {
            *shared = Some(self.share(event, tensors, targets, services)?);
        }
        let subscriber = &mut self.subscribers[index];
        if let (Runner::Background(worker), Some(shared)) = (&subscriber.runner, shared) {
            worker.send(event.clone(), shared.clone());
        }
        subscriber.account.wait(self.clock.raw() - before);
        Ok(())
    }

    /// The snapshot that `targets` share for `event`, with copies of the event's tensors if one of them reads these.
    pub(super) fn share(
        &mut self,
        event: &Event,
        tensors: &EventTensors,
        targets: &[Target],
        services: &mut dyn Services,
    ) -> Result<SharedSnapshot, Fault> {
        let mut needs = SnapshotNeeds::default();
        for target in targets {
            let subscriber = &self.subscribers[target.index];
            let gated = subscriber.gate(event.kind).is_some_and(|gate| !gate.holds(services));
            if subscriber.is_background() && !gated {
                subscriber.needs(event.kind, &mut needs);
            }
        }
        let lease = (!needs.is_empty()).then(|| self.leases.take());
        let of_event = TensorSet::Event.to_string();
        let copied = services.snapshot(event.kind, &needs).and_then(|mut snapshot| {
            if needs.sets.contains(&of_event) {
                snapshot.tensors.insert(of_event, tensors.copies(services)?);
            }
            Ok(snapshot)
        });
        let snapshot = copied.map_err(|error| Fault::new(format!("the host could not copy what it needs: {error}")))?;
        Ok(SharedSnapshot::new(Arc::new(snapshot), lease))
    }
}
