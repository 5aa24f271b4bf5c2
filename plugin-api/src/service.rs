//! Calls a service over the waist: encodes the request, collects the reply.

use std::ffi::c_void;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::abi::kinds::{ServiceKind, Status};
use crate::abi::{Bytes, HostHandle, ReplyTable, RequestTable, TensorTable};
use crate::error::{Error, Result};
use crate::protocol::Failure;

/// What a service answered.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tensors: Vec<TensorTable>,
}

impl Answer {
    /// The reply's MessagePack map.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        rmp_serde::from_slice(&self.bytes)
            .map_err(|error| Error::new(format!("the host's reply is not understood: {error}")))
    }
}

/// Calls `service` with a request that is encoded here.
pub(crate) fn call<Q: Serialize>(
    host: HostHandle,
    service: ServiceKind,
    request: &Q,
    tensors: &[TensorTable],
) -> Result<Answer> {
    let payload = rmp_serde::to_vec_named(request)
        .map_err(|error| Error::new(format!("the request for `{}` cannot be written: {error}", service.name())))?;
    call_raw(host, service, &payload, tensors)
}

/// Calls `service` with bytes as they are.
pub(crate) fn call_raw(
    host: HostHandle,
    service: ServiceKind,
    payload: &[u8],
    tensors: &[TensorTable],
) -> Result<Answer> {
    let request = RequestTable {
        size: size_of::<RequestTable>() as u32,
        tensor_count: u32::try_from(tensors.len()).map_err(|_| Error::new("too many tensors in one request"))?,
        payload: Bytes::new(payload),
        tensors: tensors.as_ptr(),
    };
    let mut answer = Answer::default();
    let reply = ReplyTable {
        size: size_of::<ReplyTable>() as u32,
        reserved: 0,
        context: (&raw mut answer).cast(),
        bytes: take_bytes,
        tensor: take_tensor,
    };
    // SAFETY: the host's table is static, and both tables outlive the call.
    let status = unsafe { ((*host.table).call)(host.ticket, service, &raw const request, &raw const reply) };
    if status == Status::OK {
        return Ok(answer);
    }
    let failure = rmp_serde::from_slice::<Failure>(&answer.bytes).unwrap_or_else(|_| Failure {
        message: format!("the service `{}` failed", service.name()),
        place: String::new(),
    });
    Err(Error::of_service(status, failure.message))
}

unsafe extern "C" fn take_bytes(context: *mut c_void, bytes: Bytes) {
    // SAFETY: `context` is the `Answer` of `call_raw`, which is on the stack below this call.
    let answer = unsafe { &mut *context.cast::<Answer>() };
    // SAFETY: borrowed until this function returns, by the table's contract.
    answer.bytes.extend_from_slice(unsafe { bytes.read() });
}

unsafe extern "C" fn take_tensor(context: *mut c_void, tensor: *const TensorTable) {
    // SAFETY: as in `take_bytes`.
    let answer = unsafe { &mut *context.cast::<Answer>() };
    // SAFETY: the host passes a whole table of this major version.
    answer.tensors.push(unsafe { *tensor });
}
