//! The host's end of control: log records, and calls of remotes.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::abi::kinds::{ServiceKind, Status};
use plugin_api::abi::{ReplyTable, RequestTable};
use plugin_api::protocol::Blob;

use super::isolated::{REMOTE_BIT, failure, request};
use super::link::{read_frame, write_frame};
use super::messages::{Call, Order, Reply, Report};
use crate::library::reply_into;
use crate::log;

/// The function of the host's table.
type HostCall = unsafe extern "C" fn(u64, ServiceKind, *const RequestTable, *const ReplyTable) -> Status;

/// The tickets of the remotes that were given to a process: it may use no others'.
#[derive(Clone, Default)]
pub(super) struct Remotes(Arc<Mutex<Vec<u64>>>);

impl Remotes {
    pub(super) fn add(&self, ticket: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
    }

    fn has(&self, ticket: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&ticket)
    }
}

/// Serves control on a thread of its own until the other side closes it.
pub(super) fn serve(control: UnixStream, name: &str, call_host: HostCall, remotes: Remotes) -> io::Result<()> {
    let name = name.to_owned();
    std::thread::Builder::new().name(format!("control of {name}")).spawn(move || {
        let ended = || -> io::Result<()> {
            while let Some(report) = read_frame::<Report>(&control)? {
                match report {
                    Report::Log { level, target, message } => log::record(level, &target, &message),
                    Report::Call { id, call } => {
                        write_frame(&control, &Order::Answered { id, reply: answer(call_host, &call, &remotes) })?;
                    }
                    Report::Opened(_) | Report::Refused { .. } => {
                        return Err(io::Error::other("it answers what nobody asked"));
                    }
                }
            }
            Ok(())
        };
        // Without control it hears no answers; its hooks go on, or fail, on their own channel.
        if let Err(error) = ended() {
            tracing::debug!(plugin = name, "the connection to its process ended: {error}");
        }
    })?;
    Ok(())
}

/// Passes a call of another thread on: of a remote, or of a handle that was spent.
fn answer(call_host: HostCall, call: &Call, remotes: &Remotes) -> Reply {
    if call.ticket & REMOTE_BIT != 0 && !remotes.has(call.ticket) {
        return failure(Status::STALE, "this remote was not opened by this plugin".to_owned());
    }
    let request = request(&call.payload.0, &[]);
    let mut bytes = Vec::new();
    let reply = reply_into(&mut bytes);
    // SAFETY: the host's function, which takes a remote's ticket on any thread and refuses all others; both tables outlive
    // the call.
    let status = unsafe { call_host(call.ticket, ServiceKind(call.service), &raw const request, &raw const reply) };
    Reply { status: status.0, bytes: Blob(bytes), tensors: Vec::new() }
}
