//! What a plugin calls: its calls cross to the host, from the thread of its hooks and from any other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use plugin_api::TensorView;
use plugin_api::abi::kinds::{ServiceKind, Status};
use plugin_api::abi::{
    Bytes, HostTable, LogTable, MINOR, ReplyTable, RequestTable, TensorTable, read_table, read_tables,
};
use plugin_api::protocol::Blob;
use plugin_api::protocol::requests::Failure;

use crate::process::isolated::{REMOTE_BIT, failure};
use crate::process::link::{Link, LinkError, read_frame, write_frame};
use crate::process::messages::{Answer, Call, Order, Reply, Report, Tensor};
use crate::process::tensors::{Incoming, Outgoing};

/// What the plugin's handles point to.
pub(super) static HOST_TABLE: HostTable = HostTable { size: size_of::<HostTable>() as u32, minor: MINOR, call };

/// The channel of hooks: of the thread that calls them.
pub(super) struct Hooks {
    link: Link,
    incoming: Incoming,
    outgoing: Outgoing,
    /// That of the hook in progress; 0 between hooks.
    ticket: u64,
    /// What the tensors of the hook in progress point to.
    kept: Vec<Vec<Tensor>>,
    /// What it reported as its failure.
    reported: Option<String>,
}

impl Hooks {
    pub(super) fn new(link: Link, incoming: Incoming, outgoing: Outgoing) -> Self {
        Self { link, incoming, outgoing, ticket: 0, kept: Vec::new(), reported: None }
    }

    fn send(&mut self, answer: &Answer) -> Result<(), LinkError<Infallible>> {
        self.link.send(answer, || Ok(()))
    }

    fn receive(&mut self) -> Result<Order, LinkError<Infallible>> {
        self.link.receive(|| Ok(()))
    }

    /// Calls a service of the host; its tensors are valid until the hook returns.
    fn call(&mut self, call: Call) -> Result<(Reply, Vec<TensorTable>), String> {
        let crossed = self.send(&Answer::Call(call)).and_then(|()| self.receive());
        let mut reply = match crossed {
            Ok(Order::Reply(reply)) => reply,
            Ok(_) => return Err("the host says what it does not say here".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        // The tables point to names and shapes, which stay where they are when the list moves.
        let tensors = std::mem::take(&mut reply.tensors);
        let tables = self.incoming.tables(&tensors)?;
        self.kept.push(tensors);
        Ok((reply, tables))
    }
}

thread_local! {
    static HOOKS: RefCell<Option<Hooks>> = const { RefCell::new(None) };
}

/// Control: of all threads.
struct Control {
    socket: UnixStream,
    writing: Mutex<()>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    last: u64,
    waiting: HashMap<u64, Sender<Reply>>,
}

static CONTROL: OnceLock<Control> = OnceLock::new();

impl Control {
    fn report(&self, report: &Report) -> io::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&self.socket, report)
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls a service by a remote, and waits for the answer.
    fn call(&self, call: Call) -> Result<Reply, String> {
        let (answered, answer) = channel();
        let id = {
            let mut calls = self.calls();
            calls.last += 1;
            let id = calls.last;
            calls.waiting.insert(id, answered);
            id
        };
        self.report(&Report::Call { id, call }).map_err(|error| error.to_string())?;
        answer.recv().map_err(|error| error.to_string())
    }

    /// Hands out the answers until the host is gone; then there is nothing to do for this process.
    fn read(&self) {
        while let Ok(Some(order)) = read_frame::<Order>(&self.socket) {
            if let Order::Answered { id, reply } = order
                && let Some(waiting) = self.calls().waiting.remove(&id)
            {
                // Who waits has not gone: it waits as long as it takes.
                let _ = waiting.send(reply);
            }
        }
        // SAFETY: ends the process at once; a plugin's destructors and handlers must not run on this thread.
        unsafe { libc::_exit(0) }
    }
}

/// From now on calls cross: those of hooks on this thread.
pub(super) fn begin(control: UnixStream, hooks: Hooks) -> io::Result<()> {
    let control = Control { socket: control, writing: Mutex::default(), calls: Mutex::default() };
    let control = CONTROL.get_or_init(|| control);
    std::thread::Builder::new().name("control".to_owned()).spawn(|| control.read())?;
    HOOKS.set(Some(hooks));
    Ok(())
}

fn with_hooks<R>(body: impl FnOnce(&mut Hooks) -> R) -> io::Result<R> {
    HOOKS.with_borrow_mut(|hooks| hooks.as_mut().map(body)).ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// A hook begins: its handle is valid.
pub(super) fn enter(ticket: u64) {
    let _ = with_hooks(|hooks| hooks.ticket = ticket);
}

/// The hook has returned: its handle is spent, and so are its tensors. What it reported as its failure.
pub(super) fn leave() -> Option<String> {
    let left = with_hooks(|hooks| {
        hooks.ticket = 0;
        hooks.kept.clear();
        hooks.incoming.clear();
        hooks.outgoing.clear();
        hooks.reported.take()
    });
    left.ok().flatten()
}

/// Sends what the host waits for.
pub(super) fn send(answer: &Answer) -> io::Result<()> {
    with_hooks(|hooks| hooks.send(answer))?.map_err(io::Error::other)
}

/// Waits for the next order over hooks.
pub(super) fn receive() -> io::Result<Order> {
    with_hooks(Hooks::receive)?.map_err(io::Error::other)
}

/// The function `log` of a plugin.
pub(super) unsafe extern "C" fn take_record(record: *const LogTable) {
    // SAFETY: the library passes a table that begins with its size and outlives the call.
    let Some(record) = (unsafe { read_table(record) }) else { return };
    // SAFETY: the texts are borrowed until this function returns.
    let (target, message) = unsafe { (record.target.read().into_owned(), record.message.read().into_owned()) };
    if let Some(control) = CONTROL.get() {
        // Without a host there is no log.
        let _ = control.report(&Report::Log { level: record.level, target, message });
    }
}

/// The function `call` of the host's table, in this process.
unsafe extern "C" fn call(
    ticket: u64,
    service: ServiceKind,
    request: *const RequestTable,
    reply: *const ReplyTable,
) -> Status {
    // SAFETY: the plugin passes null or a table that begins with its size and outlives the call; without one there is
    // no place for an answer.
    let Some(reply) = (unsafe { read_table(reply) }) else { return Status::ERROR };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the plugin passes null or a table that begins with its size.
        let request = unsafe { read_table(request) }.ok_or("the request has no table")?;
        // SAFETY: the plugin passes as many tables as the request says, that far apart, borrowed until the call returns.
        let tensors = unsafe { read_tables(request.tensors, request.tensor_count, request.tensor_size) }
            .ok_or("the request has tensors without tables")?;
        // SAFETY: borrowed until the call returns.
        let payload = unsafe { request.payload.read() };
        answer(ticket, service, payload, &tensors)
    }));
    let (answered, tensors) = match outcome {
        Ok(Ok(answered)) => answered,
        Ok(Err(message)) => (failure(Status::ERROR, message), Vec::new()),
        Err(_) => (failure(Status::ERROR, format!("the call of `{}` failed", service.name())), Vec::new()),
    };
    // SAFETY: the plugin's functions, with its own context; bytes and tables outlive the calls.
    unsafe {
        if !answered.bytes.0.is_empty() {
            (reply.bytes)(reply.context, Bytes::new(&answered.bytes.0));
        }
        for tensor in &tensors {
            (reply.tensor)(reply.context, std::ptr::from_ref(tensor));
        }
    }
    Status(answered.status)
}

/// Lets the host answer a call: over hooks with the handle of the hook in progress on this thread, else over control.
fn answer(
    ticket: u64,
    service: ServiceKind,
    payload: &[u8],
    tensors: &[TensorTable],
) -> Result<(Reply, Vec<TensorTable>), String> {
    let call = |tensors| Call { ticket, service: service.0, payload: Blob(payload.to_vec()), tensors };
    let on_hook = HOOKS.with(|hooks| {
        // A call within the functions of a reply finds the handle spent.
        let Ok(mut hooks) = hooks.try_borrow_mut() else { return None };
        let hooks = hooks.as_mut().filter(|hooks| ticket & REMOTE_BIT == 0 && ticket != 0 && hooks.ticket == ticket)?;
        if service == ServiceKind::TENSOR_TO_HOST {
            // All tensors of this process are on the CPU.
            return Some(Ok((Reply { status: 0, bytes: Blob::default(), tensors: Vec::new() }, tensors.to_vec())));
        }
        if service == ServiceKind::FAULT {
            hooks.reported = rmp_serde::from_slice::<Failure>(payload).ok().map(|failure| failure.message);
        }
        // SAFETY: the plugin's tensors are valid until its call returns.
        let sent = tensors.iter().map(|table| unsafe { put(&mut hooks.outgoing, table) });
        let answered = sent.collect::<Result<Vec<_>, _>>().and_then(|tensors| hooks.call(call(tensors)));
        hooks.outgoing.clear();
        Some(answered)
    });
    if let Some(answered) = on_hook {
        return answered;
    }
    let control = CONTROL.get().ok_or("there is no host")?;
    if !tensors.is_empty() {
        return Ok((failure(Status::STALE, "the handle was spent".to_owned()), Vec::new()));
    }
    Ok((control.call(call(Vec::new()))?, Vec::new()))
}

/// Copies a tensor of the plugin to the shared memory.
///
/// # Safety
///
/// The table must be valid.
unsafe fn put(outgoing: &mut Outgoing, table: &TensorTable) -> Result<Tensor, String> {
    // SAFETY: the caller's promise.
    let view = unsafe { TensorView::from_table(*table) };
    if !view.device().is_cpu() {
        return Err(format!("tensor `{}` is not on the CPU", view.name()));
    }
    // SAFETY: the caller's promise.
    unsafe { outgoing.put(table) }
}
