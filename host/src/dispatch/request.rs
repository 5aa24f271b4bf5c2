//! A call as it arrives from a plugin.

use plugin_api::ServiceKind;
use plugin_api::abi::TensorTable;

/// A service's request, as it arrived.
pub(super) struct Request<'a> {
    pub(super) service: ServiceKind,
    pub(super) payload: &'a [u8],
    pub(super) tensors: &'a [TensorTable],
}
