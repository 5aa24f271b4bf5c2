//! The host's end of a call: the one function that plugins call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::abi::kinds::{ServiceKind, Status};
use plugin_api::abi::{Bytes, HostTable, MINOR, ReplyTable, RequestTable, read_table, read_tables};
use plugin_api::protocol::requests::Failure;

use super::hook;
use super::remote::is_remote;
use super::request::Request;
use crate::services::ServiceError;

/// What every handle points to; static, so that a handle never dangles.
pub(super) static HOST_TABLE: HostTable = HostTable { size: size_of::<HostTable>() as u32, minor: MINOR, call };

static STALE_CALLS: AtomicU64 = AtomicU64::new(0);

/// How many calls of this process used a hook's handle that was spent. A remote's calls after the run do not
/// count: its thread cannot know when the run ends.
pub fn stale_calls() -> u64 {
    STALE_CALLS.load(Ordering::Relaxed)
}

unsafe extern "C" fn call(
    ticket: u64,
    service: ServiceKind,
    request: *const RequestTable,
    reply: *const ReplyTable,
) -> Status {
    // SAFETY: the plugin passes null or a table that begins with its size and outlives the call; without one there is
    // no place for an answer.
    let Some(reply) = (unsafe { read_table(reply) }) else {
        return Status::ERROR;
    };
    // A panic of the host must not unwind into the plugin.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let malformed = |what: &str| ServiceError::Failed(format!("the request {what}"));
        // SAFETY: the plugin passes null or a table that begins with its size.
        let request = unsafe { read_table(request) }.ok_or_else(|| malformed("has no table"))?;
        // SAFETY: the plugin passes as many tables as the request says, that far apart, borrowed until the call returns.
        let tensors = unsafe { read_tables(request.tensors, request.tensor_count, request.tensor_size) }
            .ok_or_else(|| malformed("has tensors without tables"))?;
        // SAFETY: borrowed until the call returns.
        let payload = unsafe { request.payload.read() };
        hook::answer(ticket, &Request { service, payload, tensors: &tensors }, &reply)
    }));
    let error = match outcome {
        Ok(Ok(())) => return Status::OK,
        Ok(Err(error)) => error,
        Err(_) => ServiceError::Failed(format!("the host failed in the service `{}`", service.name())),
    };
    if error == ServiceError::Stale && !is_remote(ticket) {
        STALE_CALLS.fetch_add(1, Ordering::Relaxed);
    }
    let failure = Failure { message: error.to_string(), place: String::new() };
    if let Ok(bytes) = rmp_serde::to_vec_named(&failure) {
        // SAFETY: the plugin's function, with its own context; the bytes outlive the call.
        unsafe { (reply.bytes)(reply.context, Bytes::new(&bytes)) };
    }
    error.status()
}
