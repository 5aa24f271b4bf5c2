//! The hook in progress on a thread: what a callback's handle leads to while it is valid.

use std::any::Any;
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::abi::HostHandle;
use plugin_api::abi::kinds::{EventKind, ServiceKind, Status};
use plugin_api::protocol::{Artifact, Custom, Failure, Record};

use super::event::{Event, EventData};
use super::remote::{RemoteHub, is_remote};
use super::services::{Caller, Reply, Request, ServiceError};
use super::waist::HOST_TABLE;
use crate::plugins::Fault;
use crate::record::Position;

/// Who answers what the hook itself does not: the loop, or a snapshot.
pub(super) trait Answers {
    fn call(
        &mut self,
        caller: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError>;
}

/// A pass over subscribers on one thread. Entered with [`Hook::enter`]; while it is entered,
/// services reach it through the thread's pointer.
pub(super) struct Hook<'a> {
    ticket: u64,
    pub(super) event: EventKind,
    pub(super) position: Position,
    /// The names of the instances that the pass may enter, and which of them is entered.
    names: &'a [Arc<str>],
    entered: usize,
    answers: &'a mut dyn Answers,
    hub: &'a Arc<RemoteHub>,
    record: Option<&'a Arc<Record>>,
    /// What the hook left behind: most leave nothing.
    left: Option<Box<Left>>,
    kept: Vec<Box<dyn Any>>,
}

/// What a hook left behind for its dispatcher.
#[derive(Default)]
pub(super) struct Left {
    pub(super) fault: Option<Failure>,
    pub(super) state: Option<Vec<u8>>,
    /// Records, custom events and artifacts, in the order in which they were put.
    pub(super) events: Vec<Event>,
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<Hook<'static>>>> = const { Cell::new(None) };
    static NEXT_TICKET: Cell<u64> = Cell::new(first_ticket_of_thread());
}

/// Each thread numbers its tickets in a range of its own, so that none is given twice in a process.
fn first_ticket_of_thread() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    // 2^40 hooks a thread and 2^22 threads, below the remotes' bit.
    THREADS.fetch_add(1, Ordering::Relaxed) << 40
}

impl<'a> Hook<'a> {
    pub(super) fn new(
        event: &'a Event,
        names: &'a [Arc<str>],
        answers: &'a mut dyn Answers,
        hub: &'a Arc<RemoteHub>,
    ) -> Self {
        let record = match &event.data {
            EventData::Record { record, .. } => Some(record),
            _ => None,
        };
        Self {
            ticket: 0,
            event: event.kind,
            position: event.position,
            names,
            entered: 0,
            answers,
            hub,
            record,
            left: None,
            kept: Vec::new(),
        }
    }

    /// Makes this pass, of at most `calls` calls, the thread's until `body` returns. Passes nest when a
    /// hook's events are delivered; no callback is on the stack then.
    // As for `Inline::run`.
    #[inline(always)]
    pub(super) fn enter<R>(&mut self, calls: usize, body: impl FnOnce(&mut Entered) -> R) -> R {
        let pointer = NonNull::from(self).cast::<Hook<'static>>();
        let ticket = NEXT_TICKET.get();
        // All at once: each look at the thread's counter costs as much as a call.
        NEXT_TICKET.set(ticket + calls as u64);
        let mut entered = Entered { pointer, ticket, previous: CURRENT.replace(Some(pointer)) };
        body(&mut entered)
    }
}

/// A pass that is the thread's. All access to the [`Hook`] goes through the one pointer, since
/// services use it during a callback's call.
pub(super) struct Entered {
    pointer: NonNull<Hook<'static>>,
    /// The next handle's.
    ticket: u64,
    previous: Option<NonNull<Hook<'static>>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.previous);
    }
}

impl Entered {
    fn hook(&mut self) -> &mut Hook<'static> {
        // SAFETY: the hook outlives `enter`, which made this pointer from a unique borrow; no
        // callback runs while the reference is held, so that no service has another.
        unsafe { self.pointer.as_mut() }
    }

    /// A fresh handle for the callback whose name is the one at `index`; the one before is spent.
    #[inline]
    pub(super) fn handle(&mut self, index: usize) -> HostHandle {
        let ticket = self.ticket;
        self.ticket += 1;
        let hook = self.hook();
        hook.ticket = ticket;
        hook.entered = index;
        HostHandle { table: &raw const HOST_TABLE, ticket }
    }

    /// Spends the handle and gives what the hook left behind, if it left anything.
    #[inline]
    pub(super) fn finish(&mut self) -> Option<Box<Left>> {
        let hook = self.hook();
        hook.ticket = 0;
        if !hook.kept.is_empty() {
            hook.kept.clear();
        }
        hook.left.take()
    }
}

/// The fault that a failed hook told of.
pub(super) fn fault(status: Status, told: Option<Failure>) -> Fault {
    let told =
        told.unwrap_or_else(|| Failure { message: "it failed without a message".to_owned(), place: String::new() });
    Fault { message: told.message, panicked: status == Status::PANIC, place: told.place }
}

/// Answers a call with `ticket` on this thread, or as a remote's.
pub(super) fn answer(
    ticket: u64,
    service: ServiceKind,
    request: &Request<'_>,
    reply_table: &plugin_api::abi::ReplyTable,
) -> Result<(), ServiceError> {
    if is_remote(ticket) {
        return RemoteHub::answer(ticket, service, request, reply_table);
    }
    let pointer = CURRENT.get().ok_or(ServiceError::Stale)?;
    // SAFETY: `CURRENT` holds a pointer only while its hook is entered on this thread, and the
    // dispatcher holds no reference while a callback runs.
    let hook = unsafe { &mut *pointer.as_ptr() };
    if ticket == 0 || hook.ticket != ticket {
        return Err(ServiceError::Stale);
    }
    // A callback that calls services from within `reply`'s functions would find the handle spent.
    hook.ticket = 0;
    let outcome = hook.answer(service, request, reply_table);
    hook.ticket = ticket;
    outcome
}

impl Hook<'_> {
    fn answer(
        &mut self,
        service: ServiceKind,
        request: &Request<'_>,
        reply_table: &plugin_api::abi::ReplyTable,
    ) -> Result<(), ServiceError> {
        let instance = &self.names[self.entered];
        let caller = Caller { instance, hook: self.event, position: self.position };
        let mut reply = Reply::new(reply_table, &mut self.kept);
        match service {
            ServiceKind::FAULT => self.left.get_or_insert_default().fault = Some(request.decode()?),
            ServiceKind::SAVE_STATE if self.event == EventKind::SAVE_STATE => {
                self.left.get_or_insert_default().state = Some(request.payload.to_vec());
            }
            ServiceKind::SAVE_STATE => {
                return Err(ServiceError::NotAllowed("state is saved in `save_state`".to_owned()));
            }
            ServiceKind::RECORD => match self.record {
                Some(record) => reply.value(record.as_ref())?,
                None => return Err(ServiceError::NotAllowed("there is a record in `record` alone".to_owned())),
            },
            ServiceKind::RECORD_PUT => {
                let record: Record = request.decode()?;
                let author = Arc::clone(instance);
                let record = Arc::new(record);
                self.queue(EventKind::RECORD, EventData::Record { author, record });
            }
            ServiceKind::EMIT => {
                let Custom { name, payload } = request.decode()?;
                let (author, payload) = (Arc::clone(instance), payload.0.into());
                self.queue(EventKind::CUSTOM, EventData::Custom { name, author, payload });
            }
            ServiceKind::ARTIFACT => {
                let Artifact { kind, path } = request.decode()?;
                self.answers.call(&caller, service, request, &mut reply)?;
                let author = instance.to_string();
                self.queue(EventKind::ARTIFACT, EventData::Texts([kind, path, author]));
            }
            ServiceKind::REMOTE => reply.value(&self.hub.open(instance))?,
            ServiceKind::HOOK_TIMES => reply.value(&self.hub.times())?,
            _ => return self.answers.call(&caller, service, request, &mut reply),
        }
        Ok(())
    }

    fn queue(&mut self, kind: EventKind, data: EventData) {
        self.left.get_or_insert_default().events.push(Event { kind, position: self.position, data });
    }
}
