//! The hook in progress on a thread: what a callback's handle refers to while it is valid.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::TensorView;
use plugin_api::abi::kinds::{EventKind, ServiceKind, Status};
use plugin_api::abi::{HostHandle, HostTable, ReplyTable, TensorTable};
use plugin_api::protocol::requests::Failure;
use plugin_api::protocol::{Need, TensorSet};
use plugin_api::services::{Caller, Presence, Route, Site, option_of, permit, typed};

use super::event::{Event, EventData};
use super::inbox::{Inbox, post_call};
use super::pulse::Pulse;
use super::remote::{RemoteHub, is_remote};
use super::request::Request;
use super::sent::{EventTensors, Sent};
use crate::history::Position;
use crate::plugins::Fault;
use crate::services::{Call, Lent, Reply, ServiceError, Services, SharedTensor, Snapshot};

/// The most records, custom events and artifacts that one hook leaves, and that answer one event.
pub(super) const MOST_EVENTS: usize = 1 << 16;

/// The most bytes of them; a larger one fits alone.
const MOST_BYTES: usize = 256 << 20;

/// What a call needs to know about its instance.
pub(super) struct Identity {
    pub(super) name: Arc<str>,
    /// Its options, with defaults.
    pub(super) options: serde_json::Value,
    /// The needs that its kind declares.
    pub(super) needs: Vec<Need>,
    /// Whether it has the hook `on_export`.
    pub(super) exports: bool,
    /// On which ranks of the run it is.
    pub(super) presence: Presence,
    /// Whether it is in a process of its own, which is ended when a hook takes too long.
    pub(super) is_isolated: bool,
}

/// Who answers the services that the hook itself does not.
pub(super) enum Answers<'a> {
    /// The run, on the training thread.
    Run(&'a mut dyn Services),
    /// A snapshot of it; services that act wait in the inbox.
    Snapshot(&'a Snapshot, &'a Inbox),
    /// Nobody: an instance is being created.
    Nobody,
}

/// A pass over subscribers on one thread. Entered with [`Hook::enter`]; while it is entered,
/// services reach it through the thread's pointer.
pub(super) struct Hook<'a> {
    /// What the callbacks' handles point to.
    table: &'static HostTable,
    ticket: u64,
    event: EventKind,
    position: Position,
    /// The instances that the pass may enter, and which of them is entered.
    instances: &'a [Arc<Identity>],
    entered: usize,
    answers: Answers<'a>,
    hub: &'a Arc<RemoteHub>,
    /// Where a watchdog sees which hook is in progress.
    pulse: &'a Pulse,
    record: Option<&'a Arc<plugin_api::protocol::Record>>,
    /// What the event carries.
    tensors: &'a EventTensors,
    /// What the hook left; most leave nothing.
    left: Option<Box<Left>>,
    kept: Vec<Lent>,
}

/// What a hook left for its dispatcher.
#[derive(Default)]
pub(super) struct Left {
    pub(super) fault: Option<Failure>,
    pub(super) state: Option<Vec<u8>>,
    /// Records, custom events and artifacts, in the order of the calls.
    pub(super) events: Vec<Sent>,
    /// Their requests' bytes, and those of their tensors that were copied.
    pub(super) bytes: usize,
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<Hook<'static>>>> = const { Cell::new(None) };
    static NEXT_TICKET: Cell<u64> = Cell::new(first_ticket_of_thread());
}

/// Each thread numbers its tickets in a range of its own, so that each is unique in the process.
fn first_ticket_of_thread() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    // 2^40 hooks a thread and 2^22 threads, below the remotes' bit.
    THREADS.fetch_add(1, Ordering::Relaxed) << 40
}

impl<'a> Hook<'a> {
    pub(super) fn new(
        event: &'a Event,
        tensors: &'a EventTensors,
        instances: &'a [Arc<Identity>],
        answers: Answers<'a>,
        hub: &'a Arc<RemoteHub>,
        pulse: &'a Pulse,
        table: &'static HostTable,
    ) -> Self {
        let record = match &event.data {
            EventData::Record { record, .. } => Some(record),
            _ => None,
        };
        Self {
            table,
            ticket: 0,
            event: event.kind,
            position: event.position,
            instances,
            entered: 0,
            answers,
            hub,
            pulse,
            record,
            tensors,
            left: None,
            kept: Vec::new(),
        }
    }

    /// Makes this pass, of at most `calls` calls, the thread's current one until `body` returns. Passes nest when a
    /// hook's events are delivered; no callback is on the stack then.
    // As for `Inline::run`.
    #[inline(always)]
    pub(super) fn enter<R>(&mut self, calls: usize, body: impl FnOnce(&mut Entered) -> R) -> R {
        let pointer = NonNull::from(self).cast::<Hook<'static>>();
        let ticket = NEXT_TICKET.get();
        // All at once: each access to the thread-local counter costs as much as a call.
        NEXT_TICKET.set(ticket + calls as u64);
        let mut entered = Entered { pointer, ticket, previous: CURRENT.replace(Some(pointer)) };
        body(&mut entered)
    }
}

/// The current pass of the thread. All access to the [`Hook`] goes through the one pointer, since
/// services use it during a callback's call.
pub(super) struct Entered {
    pointer: NonNull<Hook<'static>>,
    /// The ticket of the next handle.
    ticket: u64,
    previous: Option<NonNull<Hook<'static>>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.hook().pulse.leave();
        CURRENT.set(self.previous);
    }
}

impl Entered {
    fn hook(&mut self) -> &mut Hook<'static> {
        // SAFETY: the hook outlives `enter`, which created this pointer from a unique borrow; no
        // callback runs while the reference is held, so that no service has another.
        unsafe { self.pointer.as_mut() }
    }

    /// A new handle for the callback at `index`; the previous one is spent.
    #[inline]
    pub(super) fn handle(&mut self, index: usize) -> HostHandle {
        let ticket = self.ticket;
        self.ticket += 1;
        let hook = self.hook();
        hook.ticket = ticket;
        hook.entered = index;
        hook.pulse.enter(ticket, index, hook.event);
        HostHandle { table: hook.table, ticket }
    }

    /// Spends the handle and returns what the hook left, if anything.
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

/// Whether a hook has failed. One that does not know its event returns `UNKNOWN` and reports no fault; one that reports a
/// fault passes on what a service answered.
pub(super) fn has_failed(status: Status, reported: Option<&Failure>) -> bool {
    match status {
        Status::OK => false,
        Status::UNKNOWN => reported.is_some(),
        _ => true,
    }
}

/// The fault that a failed hook reported.
pub(super) fn fault(status: Status, told: Option<Failure>) -> Fault {
    let told = told.unwrap_or_else(|| Failure { message: "it gave no message".to_owned(), place: String::new() });
    Fault::with(status, told.message, told.place)
}

/// The instance and the event of the hook that is on this thread. May be called in a handler of a signal, and while the hook
/// itself is in use: nothing is changed, allocated or locked.
#[cfg(unix)]
pub(super) fn with_current(use_it: impl FnOnce(Option<(&str, EventKind)>)) {
    let current = CURRENT.get().and_then(|pointer| {
        // SAFETY: `CURRENT` holds a pointer only while its hook is entered on this thread. Only fields that `handle` has
        // written before the call of the callback are read, and the thread does nothing else meanwhile.
        let (instances, entered, event) =
            unsafe { ((*pointer.as_ptr()).instances, (*pointer.as_ptr()).entered, (*pointer.as_ptr()).event) };
        Some((&*instances.get(entered)?.name, event))
    });
    use_it(current);
}

/// Answers a call with `ticket`: of the hook on this thread, or of a remote.
pub(super) fn answer(ticket: u64, request: &Request<'_>, reply_table: &ReplyTable) -> Result<(), ServiceError> {
    if is_remote(ticket) {
        return RemoteHub::answer(ticket, request, reply_table);
    }
    let pointer = CURRENT.get().ok_or(ServiceError::Stale)?;
    // SAFETY: `CURRENT` holds a pointer only while its hook is entered on this thread, and the
    // dispatcher holds no reference while a callback runs.
    let hook = unsafe { &mut *pointer.as_ptr() };
    if ticket == 0 || hook.ticket != ticket {
        return Err(ServiceError::Stale);
    }
    // If a callback called services within `reply`'s functions, it would find the handle spent.
    hook.ticket = 0;
    let outcome = hook.answer(request, reply_table);
    hook.ticket = ticket;
    outcome
}

impl Hook<'_> {
    fn answer(&mut self, request: &Request<'_>, reply_table: &ReplyTable) -> Result<(), ServiceError> {
        let &Request { service, payload, tensors } = request;
        let instance = &self.instances[self.entered];
        let caller = if let Answers::Snapshot(..) = self.answers { Caller::Background } else { Caller::Inline };
        let site = Site { caller, hook: self.event, needs: &instance.needs, presence: instance.presence };
        let route = permit(service, &site, payload)?;
        let exports = instance.exports;
        let call = Call { service, instance: &instance.name, hook: self.event, exports, payload, tensors };
        let mut reply = Reply::new(reply_table, &mut self.kept);
        match (route, &mut self.answers) {
            (Route::Direct, _) => return self.answer_directly(&call, reply_table),
            (Route::Run, _) if reads_event(&call)? => return self.lend_event(&call, reply_table),
            (Route::Later, Answers::Snapshot(_, inbox)) => post_call(inbox, &call, &instance.name)?,
            (_, Answers::Run(run)) => run.answer(&call, &mut reply)?,
            (_, Answers::Snapshot(snapshot, _)) => snapshot.answer(&call, &mut reply)?,
            (_, Answers::Nobody) => return Err(ServiceError::Stale),
        }
        if service == ServiceKind::ARTIFACT {
            let artifact = call.request(typed::ARTIFACT)?;
            let author = instance.name.to_string();
            self.make_room(&call)?;
            self.queue(EventKind::ARTIFACT, EventData::Texts([artifact.kind, artifact.path, author]));
        }
        Ok(())
    }

    /// Answers the services that do not need the loop: the hook's own record, state and fault, and events for others.
    fn answer_directly(&mut self, call: &Call<'_>, reply_table: &ReplyTable) -> Result<(), ServiceError> {
        let instance = &self.instances[self.entered];
        let mut reply = Reply::new(reply_table, &mut self.kept);
        match call.service {
            ServiceKind::FAULT => self.left.get_or_insert_default().fault = Some(call.request(typed::FAULT)?),
            ServiceKind::SAVE_STATE => self.left.get_or_insert_default().state = Some(call.payload.to_vec()),
            ServiceKind::OPTION => {
                let name = call.request(typed::OPTION)?.name;
                reply.value(option_of(&instance.options, &name)?)?;
            }
            ServiceKind::RECORD => match self.record {
                Some(record) => reply.answer(typed::RECORD, record)?,
                None => return Err(ServiceError::NotAllowed("there is no record".to_owned())),
            },
            ServiceKind::RECORD_PUT => {
                self.make_room(call)?;
                let record = Arc::new(call.request(typed::RECORD_PUT)?);
                let author = Arc::clone(&instance.name);
                self.queue(EventKind::RECORD, EventData::Record { author, record });
            }
            // An event that nobody listens to costs its author the call.
            ServiceKind::EMIT if !self.hub.has_listeners() => {}
            ServiceKind::EMIT => {
                self.make_room(call)?;
                let custom = call.request(typed::EMIT)?;
                let tensors = self.carried(call.tensors)?;
                let (author, payload) = (Arc::clone(&instance.name), custom.payload.0.into());
                let data = EventData::Custom { name: custom.name, author, payload };
                let event = Event { kind: EventKind::CUSTOM, position: self.position, data };
                self.left.get_or_insert_default().events.push(Sent { event, tensors });
            }
            ServiceKind::REMOTE => reply.answer(typed::REMOTE, &self.hub.open(&instance.name))?,
            ServiceKind::KEEP_ALIVE => self.pulse.renew(),
            ServiceKind::HOOK_TIMES => reply.answer(typed::HOOK_TIMES, &self.hub.times())?,
            // By the table of services, nothing else arrives here.
            other => return Err(ServiceError::Failed(format!("a hook does not answer `{}`", other.name()))),
        }
        Ok(())
    }

    /// Refuses an event where the hook has left too many.
    fn make_room(&mut self, call: &Call<'_>) -> Result<(), ServiceError> {
        // SAFETY: the plugin's tables are valid until the call returns.
        let tensors = call.tensors.iter().map(|table| unsafe { TensorView::from_table(*table) });
        // Eight bytes are the most that an element has.
        let elements = |shape: &[i64]| {
            shape.iter().fold(8, |all: usize, &size| all.saturating_mul(usize::try_from(size).unwrap_or(0)))
        };
        let of_tensors = tensors.map(|tensor| elements(tensor.shape()));
        let bytes = of_tensors.fold(call.payload.len(), usize::saturating_add);
        let left = self.left.get_or_insert_default();
        let all = left.bytes.saturating_add(bytes);
        if left.events.len() >= MOST_EVENTS || (all > MOST_BYTES && !left.events.is_empty()) {
            return Err(ServiceError::Failed(format!(
                "a hook leaves at most {MOST_EVENTS} records and events, and {} MiB of them",
                MOST_BYTES >> 20
            )));
        }
        left.bytes = all;
        Ok(())
    }

    fn queue(&mut self, kind: EventKind, data: EventData) {
        self.left.get_or_insert_default().events.push(Event { kind, position: self.position, data }.into());
    }

    /// The tensors of an event that this hook sends, for as long as the event needs them.
    fn carried(&mut self, tables: &[TensorTable]) -> Result<EventTensors, ServiceError> {
        match &mut self.answers {
            Answers::Run(run) => EventTensors::of_plugin(tables, &self.kept, *run),
            _ => {
                // SAFETY: the plugin's tables are valid until the call returns.
                let views = tables.iter().map(|table| unsafe { TensorView::from_table(*table) });
                Ok(EventTensors::Copied(views.map(|view| SharedTensor::copy_of(&view)).collect::<Result<_, _>>()?))
            }
        }
    }

    /// Answers a call that reads the event's tensors.
    fn lend_event(&mut self, call: &Call<'_>, reply_table: &ReplyTable) -> Result<(), ServiceError> {
        let (request, tensors) = (call.request(typed::TENSOR_READ)?, self.tensors.lend());
        let mut reply = Reply::new(reply_table, &mut self.kept);
        if call.service == ServiceKind::TENSOR_LIST {
            return reply.answer(typed::TENSOR_LIST, &tensors.iter().map(Lent::info).collect());
        }
        reply.lend_named(tensors, &request.set, &request.names)
    }
}

/// Whether a call reads the tensors of the event that its hook handles.
fn reads_event(call: &Call<'_>) -> Result<bool, ServiceError> {
    // By the table of services they can be read in this hook only.
    let reads = matches!(call.service, ServiceKind::TENSOR_LIST | ServiceKind::TENSOR_READ);
    Ok(reads && call.hook == EventKind::CUSTOM && call.request(typed::TENSOR_READ)?.set == TensorSet::Event)
}
