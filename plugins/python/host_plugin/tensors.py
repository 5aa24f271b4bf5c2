"""Tensors: what the host lends, where it lies, and what goes back."""

import struct
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .errors import StaleError


class DType(NamedTuple):
    """The element type of a tensor, as DLPack writes it."""

    code: int
    """0 signed integer, 1 unsigned integer, 2 float, 4 bfloat, 6 bool."""
    bits: int
    """Bits of one element."""
    lanes: int = 1
    """1: vector types are not used."""

    @property
    def name(self) -> str:
        """Its name, as in safetensors: ``f32``, ``bf16``, ``i64``, ``bool``, …."""
        if self.code == 6:
            return "bool"
        prefix = {0: "i", 1: "u", 2: "f", 4: "bf"}.get(self.code)
        return f"type{self.code}x{self.bits}" if prefix is None else f"{prefix}{self.bits}"

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return (self.bits + 7) // 8 * self.lanes


_FORMATS: Dict[str, str] = {
    "f64": "d",
    "f32": "f",
    "f16": "e",
    "i64": "q",
    "i32": "i",
    "i16": "h",
    "i8": "b",
    "u64": "Q",
    "u32": "I",
    "u16": "H",
    "u8": "B",
    "bool": "?",
}
"""The letter of each element type in ``struct`` and in buffers."""

_DTYPES: Dict[str, DType] = {
    "d": DType(2, 64),
    "f": DType(2, 32),
    "e": DType(2, 16),
    "b": DType(0, 8),
    "h": DType(0, 16),
    "i": DType(0, 32),
    "l": DType(0, 8 * struct.calcsize("l")),
    "q": DType(0, 64),
    "B": DType(1, 8),
    "H": DType(1, 16),
    "I": DType(1, 32),
    "L": DType(1, 8 * struct.calcsize("L")),
    "Q": DType(1, 64),
    "?": DType(6, 8),
}


class Hook:
    """The hook in progress: what the host lends in it ends with it."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


class Tensor:
    """A named tensor on the CPU, row-major.

    Those that the host lends lie in memory shared with it: nothing is copied, they are read-only, and they hold their values
    until the hook returns. Take :meth:`copy` of what you keep.

    ``numpy.asarray(tensor)`` and :meth:`numpy` give NumPy arrays of the same memory, and ``torch.from_dlpack(tensor)`` a tensor
    of PyTorch. PyTorch has no read-only tensors: writing into one ends the process, so take ``.clone()`` of it before.
    """

    __slots__ = ("name", "shape", "dtype", "_memory", "_hook", "__weakref__")

    def __init__(
        self, name: str, shape: Sequence[int], dtype: DType, memory: memoryview, hook: Optional[Hook] = None
    ) -> None:
        self.name = name
        """Its name."""
        self.shape: Tuple[int, ...] = tuple(shape)
        """Its shape."""
        self.dtype = dtype
        """Its element type."""
        self._memory = memory
        self._hook = hook

    def __repr__(self) -> str:
        return f"Tensor({self.name!r} {list(self.shape)} {self.dtype.name})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without dimensions has no length")
        return self.shape[0]

    @property
    def size(self) -> int:
        """How many elements it has."""
        return _product(self.shape)

    @property
    def memory(self) -> memoryview:
        """Its bytes.

        Raises:
            StaleError: after the hook in which the host lent it.
        """
        if self._hook is not None and self._hook.is_over:
            raise StaleError(f"the tensor `{self.name}` was lent in a hook that has returned; keep a copy() of it instead")
        return self._memory

    def tolist(self) -> Any:
        """Its elements as nested lists of numbers; one number if it has no dimension."""
        elements = _elements(self.dtype, self.memory)
        for length in reversed(self.shape[1:]):
            step = max(length, 1)
            elements = [elements[at : at + step] for at in range(0, len(elements), step)] if length else []
        return elements if self.shape else elements[0]

    def item(self) -> Union[int, float, bool]:
        """Its only element."""
        if self.size != 1:
            raise ValueError(f"`{self.name}` has {self.size} elements, not one")
        element: Union[int, float, bool] = _elements(self.dtype, self.memory)[0]
        return element

    def numpy(self) -> Any:
        """A NumPy array of the same memory; of bf16, which NumPy does not have, a copy as float32, which is exact."""
        import numpy

        if self.dtype.name == "bf16":
            bits = numpy.frombuffer(self.memory, numpy.uint16).astype(numpy.uint32) << 16
            return bits.view(numpy.float32).reshape(self.shape)
        letter = _letter(self.dtype)
        return numpy.frombuffer(self.memory, numpy.dtype(letter)).reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> Any:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def copy(self, name: Optional[str] = None) -> "Tensor":
        """A copy that outlives the hook, under another name if one is given."""
        memory = memoryview(bytes(self.memory))
        return Tensor(self.name if name is None else name, self.shape, self.dtype, memory)

    def __dlpack_device__(self) -> Tuple[int, int]:
        return (1, 0)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Optional[Tuple[int, int]] = None,
        dl_device: Optional[Tuple[int, int]] = None,
        copy: Optional[bool] = None,
    ) -> Any:
        from ._dlpack import capsule_of

        if dl_device is not None and tuple(dl_device) != (1, 0):
            raise BufferError("tensors of a callback in a process of its own lie on the CPU")
        return capsule_of(self.copy() if copy else self, max_version)

    @classmethod
    def of(cls, name: str, value: Any) -> "Tensor":
        """The tensor of an array: of NumPy, PyTorch, ``array``, or anything else with a buffer; or of a tensor, under this name.

        Raises:
            TypeError: a value without a buffer, or with elements that the host does not have.
        """
        if isinstance(value, Tensor):
            return cls(name, value.shape, value.dtype, value.memory, value._hook)
        if hasattr(value, "detach") and hasattr(value, "element_size"):
            return _of_torch(name, value)
        if hasattr(value, "__array__") and not hasattr(value, "__array_interface__"):
            value = value.__array__()
        try:
            view = memoryview(value)
        except TypeError as error:
            raise TypeError(f"`{name}`: a {type(value).__name__} is no array; take one of NumPy or PyTorch") from error
        dtype = _DTYPES.get(view.format.lstrip("@=<"))
        if dtype is None:
            raise TypeError(f"`{name}`: the host has no tensors with elements of the format `{view.format}`")
        shape = view.shape or ()
        flat = view.cast("B") if view.c_contiguous and _product(shape) else memoryview(view.tobytes())
        return cls(name, shape, dtype, flat)


def tensors_of(values: Union[Mapping[str, Any], Iterable[Tensor]]) -> List[Tensor]:
    """The tensors of a map from names to arrays, or of tensors with names."""
    if isinstance(values, Mapping):
        return [Tensor.of(name, value) for name, value in values.items()]
    return [Tensor.of(value.name, value) for value in values]


def _of_torch(name: str, value: Any) -> Tensor:
    """A tensor of PyTorch: its buffer is that of NumPy's view of its bytes, since NumPy has no bf16."""
    value = value.detach().cpu().contiguous()
    kinds = {"float": 2, "bfloat": 4, "int": 0, "uint": 1, "bool": 6}
    text = str(value.dtype).rpartition(".")[2]
    kind = kinds.get(text.rstrip("0123456789"))
    if kind is None:
        raise TypeError(f"`{name}`: the host has no tensors with elements of the type {value.dtype}")
    shape = tuple(value.shape)
    dtype = DType(kind, 8 * value.element_size())
    if not _product(shape):
        return Tensor(name, shape, dtype, memoryview(b""))
    import torch

    flat = value.reshape(-1).view(torch.uint8).numpy()
    return Tensor(name, shape, dtype, memoryview(flat).cast("B"))


def _letter(dtype: DType) -> str:
    letter = _FORMATS.get(dtype.name)
    if letter is None or dtype.lanes != 1:
        raise TypeError(f"elements of the type {dtype.name} cannot be read in Python")
    return letter


def _elements(dtype: DType, memory: memoryview) -> List[Any]:
    if dtype.name == "bf16":
        halves = struct.unpack(f"={len(memory) // 2}H", memory)
        return list(struct.unpack(f"={len(halves)}f", struct.pack(f"={len(halves)}I", *(half << 16 for half in halves))))
    letter = _letter(dtype)
    return list(struct.unpack(f"={len(memory) // dtype.bytes}{letter}", memory))


def _product(shape: Sequence[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
