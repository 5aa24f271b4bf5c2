//! Requests of other threads to the run, which wait for the training thread: bounded, whatever a plugin's thread does.
//!
//! What waits at most: of the requests for one control of one instance, the last; of records and of each other kind of request
//! of one instance, a number and a size. What does not fit is refused where somebody can be told, else it is left out; in
//! either case the log says how much. Messages of the host's own always fit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::Control;
use plugin_api::services::typed;

use super::event::Event;
use crate::plugins::Fault;
use crate::services::{Call, ServiceError, SharedTensor};

/// The most records, events and other requests of one instance that wait.
pub(super) const MOST_WAITING: usize = 4096;

/// The most bytes of them; a larger one fits where none of its instance waits.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// A request of another thread to the run.
pub(super) enum Message {
    /// A service that acts on the run.
    Call { instance: Arc<str>, hook: EventKind, service: ServiceKind, payload: Vec<u8> },
    /// Records, and custom events with their tensors.
    Events(Vec<(Event, Vec<SharedTensor>)>),
    /// A callback asks for the cost of the hooks.
    Times,
    /// The process of an instance has failed, and is started anew.
    Restart { instance: Arc<str> },
    /// A hook in the background failed.
    Fault { instance: Arc<str>, hook: EventKind, fault: Fault },
    /// So many requests of an instance did not fit.
    LeftOut { instance: Arc<str>, count: u64 },
}

/// The messages, in order of arrival. Checking an empty inbox costs one load.
#[derive(Default)]
pub(super) struct Inbox {
    full: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The number of the next message.
    next: u64,
    messages: Vec<(u64, Message)>,
    /// Requests for a control, by instance and control.
    controls: BTreeMap<(Arc<str>, &'static str), (u64, Message)>,
    of_instances: BTreeMap<Arc<str>, OfInstance>,
}

/// What waits of an instance, apart from controls.
#[derive(Default)]
struct OfInstance {
    count: usize,
    bytes: usize,
    left_out: u64,
}

/// Too much of an instance waits.
#[derive(Debug)]
pub(super) struct Full;

impl From<Full> for ServiceError {
    fn from(_: Full) -> Self {
        Self::Failed(format!(
            "too much waits for the run: {MOST_WAITING} requests or {} MiB of this plugin that it has not read",
            MOST_BYTES >> 20
        ))
    }
}

impl Inbox {
    /// A message of the host's own, which always fits.
    pub(super) fn post(&self, message: Message) {
        self.with(|waiting| waiting.push(message));
    }

    /// A message of `instance` that stands for `count` requests of `bytes` in all.
    pub(super) fn post_of(
        &self,
        instance: &Arc<str>,
        count: usize,
        bytes: usize,
        message: Message,
    ) -> Result<(), Full> {
        self.with(|waiting| {
            let own = waiting.of_instances.entry(Arc::clone(instance)).or_default();
            let fits = own.count + count <= MOST_WAITING && own.bytes.saturating_add(bytes) <= MOST_BYTES;
            if own.count > 0 && !fits {
                own.left_out = own.left_out.saturating_add(count as u64);
                return Err(Full);
            }
            own.count += count;
            own.bytes = own.bytes.saturating_add(bytes);
            waiting.push(message);
            Ok(())
        })
    }

    /// A request of `instance` for a control, which replaces an earlier one that still waits: the last one counts, so that a
    /// pause after a resume is a pause.
    pub(super) fn post_control(&self, instance: &Arc<str>, control: Control, message: Message) {
        self.with(|waiting| {
            let number = waiting.number();
            waiting.controls.insert((Arc::clone(instance), name(control)), (number, message));
        });
    }

    fn with<R>(&self, change: impl FnOnce(&mut Waiting) -> R) -> R {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut waiting);
        self.full.store(true, Ordering::Release);
        changed
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.full.load(Ordering::Acquire)
    }

    /// Everything that waits, in order, and then what did not fit.
    pub(super) fn take(&self) -> Vec<Message> {
        let Waiting { mut messages, controls, of_instances, .. } = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.full.store(false, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        messages.extend(controls.into_values());
        messages.sort_by_key(|(number, _)| *number);
        let left_out = of_instances.into_iter().filter(|(_, own)| own.left_out > 0);
        let left_out = left_out.map(|(instance, own)| Message::LeftOut { instance, count: own.left_out });
        messages.into_iter().map(|(_, message)| message).chain(left_out).collect()
    }
}

/// Posts the `call` of a service that acts on the run, from another thread than the run's.
pub(super) fn post_call(inbox: &Inbox, call: &Call<'_>, instance: &Arc<str>) -> Result<(), ServiceError> {
    let payload = call.payload.to_vec();
    let message = Message::Call { instance: Arc::clone(instance), hook: call.hook, service: call.service, payload };
    if call.service == ServiceKind::CONTROL {
        inbox.post_control(instance, call.request(typed::CONTROL)?.action, message);
        return Ok(());
    }
    Ok(inbox.post_of(instance, 1, call.payload.len(), message)?)
}

impl Waiting {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn push(&mut self, message: Message) {
        let number = self.number();
        self.messages.push((number, message));
    }
}

/// A control as a key; those that this host does not know have no effect, and one of them is enough.
fn name(control: Control) -> &'static str {
    match control {
        Control::Stop => "stop",
        Control::EndEpoch => "end_epoch",
        Control::SkipUpdate => "skip_update",
        Control::Evaluate => "evaluate",
        Control::Checkpoint => "checkpoint",
        Control::Pause => "pause",
        Control::Resume => "resume",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(instance: &Arc<str>, number: u8) -> Message {
        let (hook, service) = (EventKind::CUSTOM, ServiceKind::CONTROL);
        Message::Call { instance: Arc::clone(instance), hook, service, payload: vec![number] }
    }

    fn numbers(messages: &[Message]) -> Vec<u8> {
        let number = |message: &Message| match message {
            Message::Call { payload, .. } => payload.first().copied(),
            _ => None,
        };
        messages.iter().filter_map(number).collect()
    }

    #[test]
    fn the_last_of_the_same_controls_stays_and_the_order_is_kept() {
        let (inbox, one, other): (_, Arc<str>, Arc<str>) = (Inbox::default(), "one".into(), "other".into());
        assert!(inbox.is_empty());
        inbox.post_control(&one, Control::Pause, call(&one, 1));
        inbox.post_of(&one, 1, 1, call(&one, 2)).unwrap();
        inbox.post_control(&one, Control::Resume, call(&one, 3));
        inbox.post_control(&other, Control::Pause, call(&other, 4));
        inbox.post_control(&one, Control::Pause, call(&one, 5));
        inbox.post(call(&other, 6));
        assert!(!inbox.is_empty());
        assert_eq!(numbers(&inbox.take()), [2, 3, 4, 5, 6]);
        assert!(inbox.is_empty() && inbox.take().is_empty());
        for _ in 0..100_000 {
            inbox.post_control(&one, Control::Pause, call(&one, 7));
        }
        assert_eq!(inbox.take().len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_counted() {
        let (inbox, one, other): (_, Arc<str>, Arc<str>) = (Inbox::default(), "one".into(), "other".into());
        for count in 0..MOST_WAITING + 10 {
            assert_eq!(inbox.post_of(&one, 1, 1, call(&one, 0)).is_ok(), count < MOST_WAITING);
        }
        inbox.post_of(&other, 1, 1, call(&other, 1)).unwrap();
        inbox.post(call(&one, 2));
        let messages = inbox.take();
        assert_eq!(messages.len(), MOST_WAITING + 3);
        assert!(matches!(&messages[MOST_WAITING + 2], Message::LeftOut { instance, count: 10 } if *instance == one));
        inbox.post_of(&one, 1, 1, call(&one, 0)).unwrap();
        assert_eq!(inbox.take().len(), 1, "what was taken makes room");
        // By size: a large one fits alone.
        inbox.post_of(&one, 1, usize::MAX, call(&one, 0)).unwrap();
        assert!(inbox.post_of(&one, 1, 1, call(&one, 0)).is_err());
        assert_eq!(inbox.take().len(), 2);
    }
}
