//! The names that a pickle may refer to, and what each stands for.

use super::super::dtype::Dtype;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)`.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3`: the same with a dtype before `metadata`.
    RebuildTensorOfDtype,
    /// `torch._utils._rebuild_parameter(tensor, requires_grad, hooks)`, and the same with attributes.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2(function, class, arguments, attributes)`.
    RebuildFromType,
    /// A class of tensors.
    TensorClass,
    /// A class of storages of one dtype.
    Storage(Dtype),
    /// `torch.storage.UntypedStorage`, which counts bytes.
    UntypedStorage,
    /// A dtype.
    Dtype(Dtype),
    /// `collections.OrderedDict`, without arguments.
    Dict,
    /// `torch.Size`, which is its tuple.
    Size,
    /// A call of it gives a value that nobody looks at: a set, a text of bytes, a device.
    Plain,
}

impl Global {
    /// What a name stands for, if it may be referred to.
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTensorOfDtype,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::RebuildParameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter") => Self::TensorClass,
            ("torch.storage", "UntypedStorage") => Self::UntypedStorage,
            ("collections", "OrderedDict") => Self::Dict,
            ("torch", "Size") => Self::Size,
            // Python 2 named its own module otherwise, and protocol 2 still does.
            ("builtins" | "__builtin__", "set" | "frozenset" | "bytearray" | "complex") => Self::Plain,
            ("_codecs", "encode") | ("collections", "Counter") | ("torch", "device") => Self::Plain,
            ("torch", class) if class.ends_with("Storage") => Self::Storage(Dtype::of_storage(class)?),
            ("torch", name) => Self::Dtype(Dtype::named(name)?),
            _ => return None,
        })
    }

    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RebuildTensor => "torch._utils._rebuild_tensor_v2",
            Self::RebuildTensorOfDtype => "torch._utils._rebuild_tensor_v3",
            Self::RebuildParameter => "torch._utils._rebuild_parameter",
            Self::RebuildFromType => "torch._tensor._rebuild_from_type_v2",
            Self::TensorClass => "torch.Tensor",
            Self::Storage(_) | Self::UntypedStorage => "a class of storages",
            Self::Dtype(dtype) => dtype.name(),
            Self::Dict => "collections.OrderedDict",
            Self::Size => "torch.Size",
            Self::Plain => "a plain class",
        }
    }
}
