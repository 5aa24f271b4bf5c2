//! The consequences of a failed hook: the run's policy for its instance, and the event `error`.

use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;

use super::dispatcher::Dispatcher;
use super::event::{Event, EventData};
use super::failure::Failure;
use super::hook::{Left, MOST_EVENTS, fault, has_failed};
use super::inbox::Message;
use super::inline::Stopped;
use super::passes::ROUNDS;
use super::plan::OnError;
use super::sent::Sent;
use super::subscriber::Runner;
use crate::history::Position;
use crate::plugins::Fault;
use crate::services::Services;

/// The target of the log's lines about a failure that ends the run: the end of the run shows it with what to do, so the
/// console leaves these out.
pub(crate) const ENDS_RUN: &str = "ends_run";

/// What of an instance was left out, and how much of that the log has.
#[derive(Default)]
pub(super) struct LeftOut {
    all: u64,
    told: u64,
}

/// Logs a failure, with what the message does not say.
fn report(failure: &Failure, ends_run: bool) {
    let Failure { instance, hook, fault, .. } = failure;
    let place = (!fault.place.is_empty()).then_some(fault.place.as_str());
    if ends_run {
        tracing::error!(target: ENDS_RUN, plugin = instance, hook, place, "{failure}");
    } else {
        tracing::error!(plugin = instance, hook, place, "{failure}");
    }
}

impl Dispatcher {
    /// Handles a hook that failed or left something; returns the events.
    pub(super) fn settle(&mut self, event: &Event, stopped: Stopped) -> Vec<Sent> {
        let Stopped { index, status, left: Left { fault: told, state, mut events, .. } } = stopped;
        if let Some(state) = state {
            self.subscribers[index].state = Some(state);
        }
        if has_failed(status, told.as_ref()) {
            events.extend(self.settle_fault(index, event.kind, event.position, fault(status, told)));
        }
        events
    }

    pub(super) fn settle_fault(
        &mut self,
        index: usize,
        hook: EventKind,
        position: Position,
        fault: Fault,
    ) -> Vec<Sent> {
        let event = self.record_failure(index, hook, position, fault);
        // A failing `error` hook must not call itself.
        if hook == EventKind::ERROR { Vec::new() } else { vec![event.into()] }
    }

    /// A failure outside a pass: the `error` event is delivered at once.
    pub(super) fn failed(&mut self, index: usize, hook: EventKind, fault: Fault, services: &mut dyn Services) {
        let events = self.settle_fault(index, hook, services.position(), fault);
        self.deliver_rounds(events, services);
    }

    /// A failure of `instance` that its `hook` caused and that showed later, in the host's own work. It may end the run, as
    /// [`Self::check`] tells.
    pub fn blame(&mut self, instance: &str, hook: EventKind, message: String, services: &mut dyn Services) {
        if let Some(index) = self.index_of(instance) {
            self.failed(index, hook, Fault::new(message), services);
        }
    }

    /// Applies the policy, and returns the `error` event.
    fn record_failure(&mut self, index: usize, hook: EventKind, position: Position, fault: Fault) -> Event {
        let subscriber = &mut self.subscribers[index];
        // Its process is started anew before the next event; how often that is possible, its entry says.
        let starts_anew = fault.is_final()
            && subscriber.planned.isolation.is_some()
            && subscriber.restarts > 0
            && hook != EventKind::TEARDOWN;
        let failure = Failure {
            instance: subscriber.name.to_string(),
            kind: subscriber.planned.kind.descriptor().kind.clone(),
            path: subscriber.planned.kind.path().to_owned(),
            hook: hook.name(),
            fault,
            on_error: if starts_anew { OnError::Ignore } else { subscriber.on_error() },
        };
        let ends_run = failure.on_error == OnError::Stop && self.stopping.is_none();
        report(&failure, ends_run);
        if starts_anew {
            subscriber.restarts -= 1;
            self.inbox.post(Message::Restart { instance: Arc::clone(&subscriber.name) });
        }
        if failure.fault.is_final() {
            // An instance that a panic left inconsistent must not run again, not even its destructor.
            match std::mem::replace(&mut subscriber.runner, Runner::Gone) {
                // Of one in another process, what is here is in order, and its process gone.
                Runner::Inline(instance) if subscriber.planned.isolation.is_none() => std::mem::forget(instance),
                _ => {}
            }
        } else if failure.on_error == OnError::Disable {
            subscriber.hooks &= 1 << EventKind::TEARDOWN.0;
        }
        self.index();
        let event =
            Event::with_texts(EventKind::ERROR, position, [&failure.instance, failure.hook, &failure.fault.message]);
        if ends_run {
            self.stopping = Some(Box::new(failure.clone()));
        }
        self.failures.push(failure);
        event
    }

    /// Fails the author of the round that exceeds the limit. The rounds before it show the loop; its start is in the
    /// first ones and not part of it.
    pub(super) fn loop_of_callbacks(&mut self, rounds: &[Vec<Sent>]) {
        let pending = rounds.last().map_or(&[] as &[Sent], Vec::as_slice);
        let texts = rounds.iter().skip(ROUNDS / 2).flatten().filter_map(|sent| match &sent.event.data {
            EventData::Record { author, record } => Some(format!("`{author}` puts the record `{}`", record.name)),
            EventData::Custom { author, name, .. } => Some(format!("`{author}` sends `{name}`")),
            EventData::Texts([kind, _, author]) => Some(format!("`{author}` publishes `{kind}`")),
            _ => None,
        });
        let mut links: Vec<String> = Vec::new();
        for text in texts {
            if !links.contains(&text) {
                links.push(text);
            }
        }
        let message = format!("callbacks still answer each other after {ROUNDS} rounds: {}", links.join(", "));
        self.fail_author(pending, message);
    }

    /// Fails the author of the last of so many events that answer one.
    pub(super) fn too_many_answers(&mut self, answers: &[Sent]) {
        let last = answers.last().map_or(&[] as &[Sent], std::slice::from_ref);
        let message = format!("more than {MOST_EVENTS} records and events answer one event; they are left out");
        self.fail_author(last, message);
    }

    /// Fails the first author of these events, which are not delivered.
    fn fail_author(&mut self, events: &[Sent], message: String) {
        let author = events.iter().find_map(|sent| match &sent.event.data {
            EventData::Record { author, .. } | EventData::Custom { author, .. } => Some(Arc::clone(author)),
            _ => None,
        });
        let index = author
            .and_then(|author| self.subscribers.iter().position(|subscriber| subscriber.name == author))
            .unwrap_or(0);
        let fault = Fault::new(message);
        let (hook, position) = events
            .first()
            .map_or((EventKind::CUSTOM, Position::default()), |sent| (sent.event.kind, sent.event.position));
        // No `error` event: it would be another round.
        self.record_failure(index, hook, position, fault);
    }

    /// Says how much of what a plugin asked for on a thread of its own did not fit: at first, and each time that it has doubled.
    pub(super) fn tell_left_out(&mut self, instance: &Arc<str>, count: u64) {
        let LeftOut { all, told } = self.left_out.entry(Arc::clone(instance)).or_default();
        *all = all.saturating_add(count);
        if *all >= told.saturating_mul(2) {
            *told = *all;
            tracing::warn!(
                "plugin `{instance}` asks for more than the run can read: {all} records or other requests are left out so far"
            );
        }
    }

    /// The same at the end, in all.
    pub(super) fn tell_all_left_out(&mut self) {
        for (instance, LeftOut { all, told }) in &mut self.left_out {
            if all != told {
                *told = *all;
                tracing::warn!("plugin `{instance}`: {all} records or other requests were left out in all");
            }
        }
    }
}
