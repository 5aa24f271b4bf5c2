//! The host's side of the waist: the one function that plugins call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::abi::kinds::{ServiceKind, Status};
use plugin_api::abi::{Bytes, HostTable, MINOR, ReplyTable, RequestTable, read_table};
use plugin_api::protocol::Failure;

use super::hook;
use super::remote::is_remote;
use super::services::{Request, ServiceError};

/// What every handle points to; static, so that a handle never dangles.
pub(super) static HOST_TABLE: HostTable = HostTable { size: size_of::<HostTable>() as u32, minor: MINOR, call };

static STALE_CALLS: AtomicU64 = AtomicU64::new(0);

/// How many calls of this process came with a hook's handle that was spent. A remote's calls after the run do not
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
    // SAFETY: the plugin passes null or a table that outlives the call; without one there is
    // nowhere to answer.
    let Some(reply) = (unsafe { reply.as_ref() }) else {
        return Status::ERROR;
    };
    // A panic of the host's must not unwind into the plugin.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the plugin passes null or a table that begins with its size.
        let request = unsafe { read_table(request) }
            .ok_or_else(|| ServiceError::Failed("the request has no table".to_owned()))?;
        let tensors = if request.tensor_count == 0 || request.tensors.is_null() {
            &[]
        } else {
            // SAFETY: as many tables as the request says, borrowed until the call returns.
            unsafe { std::slice::from_raw_parts(request.tensors, request.tensor_count as usize) }
        };
        let request = Request {
            // SAFETY: borrowed until the call returns.
            payload: unsafe { request.payload.read() },
            tensors,
        };
        hook::answer(ticket, service, &request, reply)
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
