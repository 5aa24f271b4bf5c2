//! Element types, as libtorch and as the ABI name them.

use plugin_api::abi::DataType;
use tch::Kind;

/// The ABI's name; `None` for a type that does not cross it.
pub(super) fn data_type(kind: Kind) -> Option<DataType> {
    let (code, bits) = match kind {
        Kind::Float => (2, 32),
        Kind::Double => (2, 64),
        Kind::Half => (2, 16),
        Kind::BFloat16 => (4, 16),
        Kind::Int64 => (0, 64),
        Kind::Int => (0, 32),
        Kind::Int16 => (0, 16),
        Kind::Int8 => (0, 8),
        Kind::Uint8 => (1, 8),
        Kind::Bool => (6, 8),
        _ => return None,
    };
    Some(DataType { code, bits, lanes: 1 })
}

/// libtorch's name; `None` for a type that it does not have.
pub(super) fn kind(dtype: DataType) -> Option<Kind> {
    Some(match (dtype.code, dtype.bits, dtype.lanes) {
        (2, 32, 1) => Kind::Float,
        (2, 64, 1) => Kind::Double,
        (2, 16, 1) => Kind::Half,
        (4, 16, 1) => Kind::BFloat16,
        (0, 64, 1) => Kind::Int64,
        (0, 32, 1) => Kind::Int,
        (0, 16, 1) => Kind::Int16,
        (0, 8, 1) => Kind::Int8,
        (1, 8, 1) => Kind::Uint8,
        (6, 8, 1) => Kind::Bool,
        _ => return None,
    })
}
