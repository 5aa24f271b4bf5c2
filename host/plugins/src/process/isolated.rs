//! The host's end of an instance in a process of its own: to dispatch, it is an instance like any other.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use plugin_api::abi::kinds::{ServiceKind, Status};
use plugin_api::abi::{Bytes, EventTable, HostHandle, HostTable, ReplyTable, RequestTable, TensorTable, read_table};
use plugin_api::protocol::Blob;
use plugin_api::protocol::requests::Failure;

use super::Isolation;
use super::control::{self, Remotes};
use super::link::{Link, LinkError};
use super::memory::MemoryFile;
use super::messages::{Answer, Call, Create, Event, Open, Order, PROTOCOL, Reply, Tensor};
use super::ring::Ring;
use super::start::{Process, Stop};
use super::tensors::{Incoming, Outgoing};
use crate::error::LoadError;
use crate::instance::{ENDED, Fault};
use crate::lock::Expected;
use crate::python::{self, Package};

/// How long the host looks for an answer before it sleeps. It has nothing else to do meanwhile; where the process needs this
/// thread's core, it gets it after that long.
const HOST_SPIN: Duration = Duration::from_micros(20);

/// What marks the ticket of a remote.
pub(super) const REMOTE_BIT: u64 = 1 << 63;

/// How long an instance may take to end.
const TO_END: Duration = Duration::from_secs(10);

/// An instance in another process.
pub(crate) struct Isolated {
    process: Process,
    link: Link,
    /// The host's tensors, and the child's.
    outgoing: Outgoing,
    incoming: Incoming,
    remotes: Remotes,
    timeout: Option<Duration>,
    /// When what is in progress began, or said that it waits on purpose.
    since: Instant,
    /// Why there is no process any more.
    ended: Option<String>,
    /// What a process of Python runs, which stays as long as it.
    _package: Option<Package>,
}

/// What is made in another process.
pub(crate) struct Making<'a> {
    /// The plugin's file.
    pub(crate) path: &'a std::path::Path,
    /// What it must be.
    pub(crate) expected: Option<&'a Expected>,
    /// The kind, by its place among those of the file, and its name.
    pub(crate) kind: (u32, &'a str),
    /// The instance's name.
    pub(crate) name: &'a str,
    /// Its options.
    pub(crate) options: String,
    /// For what it asks meanwhile.
    pub(crate) host: HostHandle,
    /// What a process of Python runs.
    pub(crate) package: Option<Package>,
}

impl Isolated {
    /// Starts a process with `command` and makes an instance in it. `socket` says that hooks go over a socket.
    pub(crate) fn create(
        command: std::process::Command,
        socket: bool,
        making: Making<'_>,
        isolation: &Isolation,
    ) -> Result<Self, Fault> {
        let failed = |message: String| Fault::new(message);
        let io = |error: io::Error| failed(format!("its process cannot be started: {error}"));
        let mut process = Process::start(command, making.name).map_err(io)?;
        let open = Open {
            protocol: PROTOCOL,
            path: making.path.to_string_lossy().into_owned(),
            sha256: making.expected.map(|expected| expected.sha256),
            beside: making.expected.map(|expected| expected.beside.clone()).unwrap_or_default(),
            limits: isolation.limits,
        };
        // What Python imports is not what a hook may take.
        let timeout = isolation.timeout.map(|timeout| if socket { timeout.max(python::OPENING) } else { timeout });
        let opened = process.open(open, timeout).map_err(|error| failed(error.to_string()))?;
        let (index, kind) = making.kind;
        let is_kind = |descriptors: Vec<plugin_api::protocol::Descriptor>| {
            descriptors.get(index as usize).is_some_and(|descriptor| descriptor.kind == kind)
        };
        if !opened.descriptors().is_ok_and(is_kind) {
            return Err(failed(LoadError::Changed { path: making.path.to_owned() }.to_string()));
        }
        let (outgoing, incoming) = (MemoryFile::new("host-tensors", 0), MemoryFile::new("plugin-tensors", 0));
        let (outgoing, incoming) =
            (Outgoing::new(outgoing.map_err(io)?).map_err(io)?, Incoming::new(incoming.map_err(io)?));
        let create = Order::Create(Create {
            kind: index,
            name: making.name.to_owned(),
            options: making.options,
            minor: plugin_api::abi::MINOR,
            ticket: making.host.ticket,
            socket,
            spin_us: u32::try_from(isolation.spin.as_micros()).unwrap_or(u32::MAX),
        });
        let tensors = outgoing.file().read_only().map_err(io)?;
        let send = |hooks: std::os::fd::BorrowedFd<'_>| {
            process.send_with(&create, &[hooks, tensors.as_fd(), incoming.file().as_fd()]).map_err(io)
        };
        let link = if socket {
            let (own, of_child) = std::os::unix::net::UnixStream::pair().map_err(io)?;
            send(of_child.as_fd())?;
            Link::socket(own).map_err(io)?
        } else {
            let (ring, memory) = Ring::create(HOST_SPIN).map_err(io)?;
            send(memory.as_fd())?;
            Link::ring(ring)
        };
        // SAFETY: the host's table is static and begins with its size.
        let table =
            unsafe { read_table(making.host.table) }.ok_or_else(|| failed("the host has no table".to_owned()))?;
        let remotes = Remotes::default();
        let control = process.control.try_clone().map_err(io)?;
        control::serve(control, making.name, table.call, remotes.clone()).map_err(io)?;
        let timeout = isolation.timeout;
        let since = Instant::now();
        let _package = making.package;
        let mut isolated = Self { process, link, outgoing, incoming, remotes, timeout, since, ended: None, _package };
        match isolated.exchange(None, making.host) {
            Ok((Status::OK, _)) => Ok(isolated),
            Ok((status, message)) => {
                isolated.end("no instance was made");
                Err(Fault::with(status, message, String::new()))
            }
            Err(message) => Err(failed(message)),
        }
    }

    /// Calls a hook.
    fn hook(&mut self, event: &EventTable, host: HostHandle) -> Status {
        let outcome = match &self.ended {
            Some(ended) => Err(ended.clone()),
            None => {
                // SAFETY: the host's own event, valid for this call.
                let event = unsafe { Event::of(event, host.ticket) };
                self.exchange(Some(Order::Event(event)), host)
            }
        };
        match outcome {
            Ok((status, _)) => {
                if status == Status::PANIC {
                    // It must not run again, not even its destructor.
                    self.end("it panicked in an earlier hook");
                }
                status
            }
            Err(message) => {
                tell(host, &message);
                ENDED
            }
        }
    }

    /// Sends an order, answers what the child calls, and waits until it returns: its status and its words.
    ///
    /// # Errors
    ///
    /// When the process has ended, or was ended since it took too long or sent nonsense.
    fn exchange(&mut self, order: Option<Order>, host: HostHandle) -> Result<(Status, String), String> {
        self.since = Instant::now();
        let outcome = self.try_exchange(order, host);
        self.outgoing.clear();
        self.incoming.clear();
        outcome.map_err(|error| {
            let taken = self.since.elapsed();
            let message = self.process.reason(error, taken);
            self.ended = Some(message.clone());
            message
        })
    }

    fn try_exchange(&mut self, order: Option<Order>, host: HostHandle) -> Result<(Status, String), LinkError<Stop>> {
        if let Some(order) = order {
            self.send(&order)?;
        }
        loop {
            let (process, since, timeout) = (&mut self.process, self.since, self.timeout);
            match self.link.receive(|| process.goes_on(since, timeout))? {
                Answer::Call(call) => {
                    // One that keeps calling never makes the host wait, and has no more time for it.
                    let (process, since, timeout) = (&mut self.process, self.since, self.timeout);
                    process.has_time(since, timeout).map_err(LinkError::GaveUp)?;
                    let reply = self.answer(&call, host);
                    // The child's tensors are needed until the reply only.
                    self.incoming.clear();
                    self.send(&Order::Reply(reply))?;
                }
                Answer::Returned { status, message } => {
                    // That its process is gone is for the host to say.
                    let status = Some(Status(status)).filter(|status| *status != ENDED).unwrap_or(Status::ERROR);
                    return Ok((status, message));
                }
            }
        }
    }

    fn send(&mut self, order: &Order) -> Result<(), LinkError<Stop>> {
        let (process, since, timeout) = (&mut self.process, self.since, self.timeout);
        self.link.send(order, || process.goes_on(since, timeout))
    }

    /// Passes a call on to the host, on the thread of the hook.
    fn answer(&mut self, call: &Call, host: HostHandle) -> Reply {
        if ServiceKind(call.service) == ServiceKind::KEEP_ALIVE && !host.table.is_null() {
            self.since = Instant::now();
        }
        let tables = match self.incoming.tables(&call.tensors) {
            Ok(tables) => tables,
            Err(message) => return failure(Status::ERROR, message),
        };
        // SAFETY: the host's table is static and begins with its size.
        let Some(table) = (unsafe { read_table(host.table) }) else {
            return failure(Status::ERROR, "the host has no table".to_owned());
        };
        // A remote's ticket goes over control, where it is known whose it is.
        if call.ticket & REMOTE_BIT != 0 {
            return failure(Status::STALE, "a remote's handle is not a hook's".to_owned());
        }
        let service = ServiceKind(call.service);
        let answer = call_host(&table, call.ticket, service, &call.payload.0, &tables);
        if service == ServiceKind::REMOTE
            && let Ok(ticket) = rmp_serde::from_slice(&answer.bytes)
        {
            self.remotes.add(ticket);
        }
        match answer.tensors.iter().map(|tensor| self.put(tensor, &table, call.ticket)).collect() {
            Ok(tensors) => Reply { status: answer.status.0, bytes: Blob(answer.bytes), tensors },
            Err(message) => failure(Status::ERROR, message),
        }
    }

    /// Copies a tensor that the host lent to the shared memory, from an accelerator by the host's own service.
    fn put(&mut self, tensor: &TensorTable, table: &HostTable, ticket: u64) -> Result<Tensor, String> {
        if tensor.tensor.device.is_cpu() {
            // SAFETY: lent by the host until the hook returns.
            return unsafe { self.outgoing.put(tensor) };
        }
        let copied = call_host(table, ticket, ServiceKind::TENSOR_TO_HOST, &[], std::slice::from_ref(tensor));
        match copied.tensors.first().filter(|tensor| tensor.tensor.device.is_cpu()) {
            // SAFETY: as above.
            Some(tensor) => unsafe { self.outgoing.put(tensor) },
            None => Err("a tensor of the accelerator cannot be copied".to_owned()),
        }
    }

    /// Ends the process; later hooks are told why.
    fn end(&mut self, why: &str) {
        self.process.kill();
        self.ended = Some(why.to_owned());
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.timeout = Some(self.timeout.map_or(TO_END, |timeout| timeout.min(TO_END)));
        let nobody = HostHandle { table: std::ptr::null(), ticket: 0 };
        match self.exchange(Some(Order::Destroy {}), nobody) {
            Ok((Status::OK, _)) => {
                self.process.wait();
            }
            Ok(_) => tracing::warn!("a plugin panicked while its instance was dropped"),
            Err(message) => tracing::warn!("a plugin failed while its instance was dropped: {message}"),
        }
    }
}

/// What the host answered. The tensors are valid until the hook returns.
struct HostAnswer {
    status: Status,
    bytes: Vec<u8>,
    tensors: Vec<TensorTable>,
}

/// Calls a service of the host.
fn call_host(
    table: &HostTable,
    ticket: u64,
    service: ServiceKind,
    payload: &[u8],
    tensors: &[TensorTable],
) -> HostAnswer {
    unsafe extern "C" fn take_bytes(context: *mut c_void, bytes: Bytes) {
        // SAFETY: the answer below, on the stack under this call; the bytes are borrowed until this returns.
        unsafe { (*context.cast::<HostAnswer>()).bytes.extend_from_slice(bytes.read()) };
    }
    unsafe extern "C" fn take_tensor(context: *mut c_void, tensor: *const TensorTable) {
        // SAFETY: as above; the host passes a table that begins with its size.
        unsafe { (*context.cast::<HostAnswer>()).tensors.extend(read_table(tensor)) };
    }
    let mut answer = HostAnswer { status: Status::ERROR, bytes: Vec::new(), tensors: Vec::new() };
    let request = request(payload, tensors);
    let reply = ReplyTable {
        size: size_of::<ReplyTable>() as u32,
        reserved: 0,
        context: (&raw mut answer).cast(),
        bytes: take_bytes,
        tensor: take_tensor,
    };
    // SAFETY: the host's function; both tables outlive the call.
    let status = unsafe { (table.call)(ticket, service, &raw const request, &raw const reply) };
    answer.status = status;
    answer
}

/// The table of a request, which borrows both.
pub(super) fn request(payload: &[u8], tensors: &[TensorTable]) -> RequestTable {
    RequestTable {
        size: size_of::<RequestTable>() as u32,
        tensor_count: tensors.len() as u32,
        payload: Bytes::new(payload),
        tensors: tensors.as_ptr(),
        tensor_size: size_of::<TensorTable>() as u32,
        reserved: 0,
    }
}

/// A reply that says why a call failed.
pub(super) fn failure(status: Status, message: String) -> Reply {
    let bytes = rmp_serde::to_vec_named(&Failure { message, place: String::new() }).unwrap_or_default();
    Reply { status: status.0, bytes: Blob(bytes), tensors: Vec::new() }
}

/// Tells the host why the hook in progress failed.
fn tell(host: HostHandle, message: &str) {
    // SAFETY: the host's table is static and begins with its size.
    let Some(table) = (unsafe { read_table(host.table) }) else { return };
    let failure = failure(Status::ERROR, message.to_owned());
    call_host(&table, host.ticket, ServiceKind::FAULT, &failure.bytes.0, &[]);
}

/// The function `handle` of an [`Isolated`].
///
/// # Safety
///
/// `instance` must be the pointer of one; calls do not overlap.
pub(crate) unsafe extern "C" fn handle(
    _: u32,
    instance: *mut c_void,
    event: *const EventTable,
    host: HostHandle,
) -> Status {
    let hook = || {
        // SAFETY: the caller's promise; the event is the host's own.
        let (isolated, event) = unsafe { (&mut *instance.cast::<Isolated>(), &*event) };
        isolated.hook(event, host)
    };
    catch_unwind(AssertUnwindSafe(hook)).unwrap_or(Status::PANIC)
}

/// The function `destroy` of an [`Isolated`].
///
/// # Safety
///
/// `instance` must be the pointer of one that was boxed, and is not used any more.
pub(crate) unsafe extern "C" fn destroy(_: u32, instance: *mut c_void) -> Status {
    // SAFETY: the caller's promise.
    let isolated = unsafe { Box::from_raw(instance.cast::<Isolated>()) };
    match catch_unwind(AssertUnwindSafe(|| drop(isolated))) {
        Ok(()) => Status::OK,
        Err(_) => Status::PANIC,
    }
}
