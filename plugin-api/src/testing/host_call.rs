//! The fake host's end of a call: the one function that the callback calls, its remotes and its log.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::services::{Answer, decode};
use super::world::{World, refused};
use crate::abi::kinds::{EventKind, ServiceKind, Status};
use crate::abi::{Bytes, HostHandle, HostTable, LogTable, MINOR, ReplyTable, RequestTable, read_table, read_tables};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Record;
use crate::protocol::requests::{ControlRequest, Failure, Name};
use crate::services::{Caller, Presence, Site, no_value, permit};
use crate::tensor::TensorView;

/// Static, so that a handle never dangles.
pub(super) static HOST_TABLE: HostTable = HostTable { size: size_of::<HostTable>() as u32, minor: MINOR, call };

static NEXT_TICKET: AtomicU64 = AtomicU64::new(1);

/// The bit that distinguishes a remote's ticket from a hook's.
const REMOTE: u64 = 1 << 63;

thread_local! {
    /// The hook in progress on this thread: its ticket and its world.
    static CURRENT: Cell<Option<(u64, NonNull<World>)>> = const { Cell::new(None) };
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Makes `world` answer this thread's calls while `hook` runs. The handle is spent afterwards.
pub(super) fn enter<R>(world: &mut World, hook: impl FnOnce(HostHandle) -> R) -> R {
    let ticket = NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
    let previous = CURRENT.replace(Some((ticket, NonNull::from(world))));
    let outcome = hook(HostHandle { table: &raw const HOST_TABLE, ticket });
    CURRENT.set(previous);
    outcome
}

unsafe extern "C" fn call(
    ticket: u64,
    service: ServiceKind,
    request: *const RequestTable,
    reply: *const ReplyTable,
) -> Status {
    // SAFETY: the SDK passes a table that outlives the call.
    let Some(reply) = (unsafe { read_table(reply) }) else { return Status::ERROR };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the SDK passes a table that begins with its size.
        let request = unsafe { read_table(request) }.ok_or_else(|| Error::new("the request has no table"))?;
        // SAFETY: borrowed until the call returns.
        let payload = unsafe { request.payload.read() };
        // SAFETY: as many tables as the request says, that far apart.
        let tables = unsafe { read_tables(request.tensors, request.tensor_count, request.tensor_size) }
            .ok_or_else(|| Error::new("the request's tensors have no tables"))?;
        // SAFETY: what the tables point to outlives the call.
        let tensors: Vec<_> = tables.into_iter().map(|table| unsafe { TensorView::from_table(table) }).collect();
        answer(ticket, service, payload, &tensors, &reply)
    }))
    .unwrap_or_else(|_| Err(Error::new(format!("what the test gave for `{}` panicked", service.name()))));
    let Err(error) = outcome else { return Status::OK };
    let failure = Failure { message: error.message().to_owned(), place: String::new() };
    if let Ok(bytes) = rmp_serde::to_vec_named(&failure) {
        // SAFETY: the SDK's function, with its own context; the bytes outlive the call.
        unsafe { (reply.bytes)(reply.context, Bytes::new(&bytes)) };
    }
    match error.kind() {
        ErrorKind::Stale => Status::STALE,
        ErrorKind::Unknown => Status::UNKNOWN,
        ErrorKind::NoSuchName => Status::NO_SUCH_NAME,
        ErrorKind::NotAllowed => Status::NOT_ALLOWED,
        ErrorKind::NoValue => Status::NO_VALUE,
        _ => Status::ERROR,
    }
}

fn answer(
    ticket: u64,
    service: ServiceKind,
    payload: &[u8],
    tensors: &[TensorView<'_>],
    reply: &ReplyTable,
) -> Result<()> {
    if ticket & REMOTE != 0 {
        let bytes = RemoteSide::of(ticket)?.answer(service, payload)?;
        // SAFETY: the SDK's function, with its own context; the bytes outlive the call.
        unsafe { (reply.bytes)(reply.context, Bytes::new(&bytes)) };
        return Ok(());
    }
    let (_, mut world) = CURRENT.get().filter(|(current, _)| *current == ticket).ok_or_else(stale)?;
    // SAFETY: `enter` made the pointer from a unique borrow that it still holds, on this thread, and
    // uses the world itself only when the hook has returned.
    let world = unsafe { world.as_mut() };
    let Answer { bytes, tensors: answered } = world.answer(service, payload, tensors)?;
    // SAFETY: the SDK's functions, with its own context; the bytes outlive the call, and the tensors
    // are kept until the hook returns: a vector that grows moves the tensors, not what they point to.
    unsafe {
        (reply.bytes)(reply.context, Bytes::new(&bytes));
        for tensor in answered {
            (reply.tensor)(reply.context, &raw const *tensor.view().table());
            world.hook.lent.push(tensor);
        }
    }
    Ok(())
}

fn stale() -> Error {
    Error::of_service(Status::STALE, "the handle was used after its hook had returned".to_owned())
}

/// What remotes read and leave; on any thread.
#[derive(Default)]
pub(super) struct RemoteSide {
    /// The latest values; `None` for known metrics without a value.
    metrics: Mutex<BTreeMap<String, Option<f64>>>,
    left: Mutex<RemoteLeft>,
}

/// The requests of remotes since the last event.
#[derive(Default)]
pub(super) struct RemoteLeft {
    pub(super) requests: Vec<ControlRequest>,
    pub(super) records: Vec<Record>,
}

static REMOTES: Mutex<BTreeMap<u64, Arc<RemoteSide>>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves nothing here inconsistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RemoteSide {
    /// A ticket for a new remote.
    pub(super) fn open(self: &Arc<Self>) -> u64 {
        let ticket = REMOTE | NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
        lock(&REMOTES).insert(ticket, Arc::clone(self));
        ticket
    }

    /// Ends every remote of this host.
    pub(super) fn close(self: &Arc<Self>) {
        lock(&REMOTES).retain(|_, side| !Arc::ptr_eq(side, self));
    }

    pub(super) fn metric(&self, name: &str, value: Option<f64>) {
        lock(&self.metrics).insert(name.to_owned(), value);
    }

    pub(super) fn take(&self) -> RemoteLeft {
        std::mem::take(&mut lock(&self.left))
    }

    fn of(ticket: u64) -> Result<Arc<Self>> {
        lock(&REMOTES).get(&ticket).cloned().ok_or_else(|| {
            Error::of_service(Status::STALE, "the remote was used after the end of the training".to_owned())
        })
    }

    fn answer(&self, service: ServiceKind, payload: &[u8]) -> Result<Vec<u8>> {
        let site = Site { caller: Caller::Remote, hook: EventKind::CUSTOM, needs: &[], presence: Presence::Single };
        permit(service, &site, payload).map_err(refused)?;
        match service {
            ServiceKind::CONTROL => lock(&self.left).requests.push(decode(payload)?),
            ServiceKind::RECORD_PUT => lock(&self.left).records.push(decode(payload)?),
            ServiceKind::METRIC => {
                let Name { name } = decode(payload)?;
                return Ok(rmp_serde::to_vec_named(&metric(&lock(&self.metrics), &name)?)?);
            }
            _ => {
                let metrics = lock(&self.metrics);
                let with_value: BTreeMap<_, _> =
                    metrics.iter().filter_map(|(name, value)| Some((name, (*value)?))).collect();
                return Ok(rmp_serde::to_vec_named(&with_value)?);
            }
        }
        Ok(Vec::new())
    }
}

/// The latest value of a metric that has one.
pub(super) fn metric(metrics: &BTreeMap<String, Option<f64>>, name: &str) -> Result<f64> {
    match metrics.get(name) {
        Some(Some(value)) => Ok(*value),
        Some(None) => Err(Error::of_service(Status::NO_VALUE, no_value(name))),
        None => Err(super::world::no_such_name("metric", name, metrics.keys().map(String::as_str))),
    }
}

/// Takes the callback's logs: for the test's output, and for the host whose hook logs.
pub(super) unsafe extern "C" fn take_log(record: *const LogTable) {
    // SAFETY: the SDK passes a table that outlives the call.
    let Some(record) = (unsafe { read_table(record) }) else { return };
    let level = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"][(record.level as usize).clamp(1, 5) - 1];
    // SAFETY: borrowed until this function returns.
    let line = unsafe { format!("{level} {}", record.message.read()) };
    eprintln!("{line}");
    LOG.with_borrow_mut(|lines| lines.push(line));
}

/// The log lines of this thread since the last call.
pub(super) fn take_logs() -> Vec<String> {
    LOG.take()
}
