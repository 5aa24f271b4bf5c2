//! Calls a service across the ABI: encodes the request, collects the reply.

use std::ffi::c_void;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::abi::kinds::{ServiceKind, Status};
use crate::abi::{Bytes, HostHandle, ReplyTable, RequestTable, TensorTable, read_table};
use crate::error::{Error, Result};
use crate::protocol::requests::Failure;
use crate::services::{Nothing, Service};

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

/// A request as a service takes it.
pub(crate) trait Encode {
    /// The payload.
    fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error>;
}

impl<T: Serialize> Encode for T {
    fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }
}

impl Encode for Nothing {
    fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        Ok(Vec::new())
    }
}

/// A reply in the form that its caller needs.
pub(crate) trait Decode: Sized {
    fn decode(answer: &Answer) -> Result<Self>;
}

impl<T: DeserializeOwned> Decode for T {
    fn decode(answer: &Answer) -> Result<Self> {
        answer.decode()
    }
}

impl Decode for Nothing {
    fn decode(_: &Answer) -> Result<Self> {
        Ok(Self)
    }
}

/// Calls `service` with its request and returns its reply.
pub(crate) fn call<Q: Encode, R: Decode>(host: HostHandle, service: Service<Q, R>, request: &Q) -> Result<R> {
    R::decode(&answer(host, service, request, &[])?)
}

/// Calls `service` with its request and `tensors`, and returns its whole answer.
pub(crate) fn answer<Q: Encode, R>(
    host: HostHandle,
    service: Service<Q, R>,
    request: &Q,
    tensors: &[TensorTable],
) -> Result<Answer> {
    let kind = service.kind();
    let payload = request
        .encode()
        .map_err(|error| Error::new(format!("the request for `{}` cannot be encoded: {error}", kind.name())))?;
    call_raw(host, kind, &payload, tensors)
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
        tensor_size: size_of::<TensorTable>() as u32,
        reserved: 0,
    };
    // SAFETY: the host's table is static and begins with its size.
    let table = unsafe { read_table(host.table) }.ok_or_else(|| Error::new("the host gave no table of services"))?;
    let mut answer = Answer::default();
    let reply = ReplyTable {
        size: size_of::<ReplyTable>() as u32,
        reserved: 0,
        context: (&raw mut answer).cast(),
        bytes: take_bytes,
        tensor: take_tensor,
    };
    // SAFETY: both tables outlive the call.
    let status = unsafe { (table.call)(host.ticket, service, &raw const request, &raw const reply) };
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
    // SAFETY: the host passes a table that begins with its size.
    answer.tensors.extend(unsafe { read_table(tensor) });
}
