"""Capsules of DLPack, for libraries that take tensors by it, such as PyTorch.

Source: the DLPack specification, ``dlpack.h`` 1.1.
"""

import ctypes
from typing import Any, Dict, Optional, Tuple

_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    ]


_READ_ONLY = 1

_kept: Dict[int, Tuple[Any, ...]] = {}
"""What a capsule points to, by the address of its struct, until its taker gives it back."""


def _give_back(address: Optional[int]) -> None:
    _kept.pop(address or 0, None)


def _give_back_unused(capsule: Optional[int]) -> None:
    """Gives back what nobody took. A taker renames the capsule, and calls the deleter itself."""
    for name in (b"dltensor", b"dltensor_versioned"):
        if _is_valid(capsule, name):
            _kept.pop(_pointer(capsule, name) or 0, None)


# They live as long as the module: a capsule may end after everything else.
_delete = _Deleter(_give_back)
_destroy = _Destructor(_give_back_unused)


_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, _Destructor]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
# Not `py_object`: the capsule is being destroyed, so that its count of references must not change.
_is_valid.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]


def capsule_of(tensor: Any, max_version: Optional[Tuple[int, int]]) -> Any:
    """A capsule of a tensor's memory: one that says that it is read-only, for takers that understand this."""
    memory = tensor.memory
    dimensions = len(tensor.shape)
    shape = (ctypes.c_int64 * dimensions)(*tensor.shape)
    strides = (ctypes.c_int64 * dimensions)()
    step = 1
    for place in reversed(range(dimensions)):
        strides[place] = step
        step *= tensor.shape[place]
    table = _DLTensor(
        data=_address(memory) if memory.nbytes else None,
        device_type=1,
        device_id=0,
        ndim=dimensions,
        code=tensor.dtype.code,
        bits=tensor.dtype.bits,
        lanes=tensor.dtype.lanes,
        shape=ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)),
        strides=ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64)),
        byte_offset=0,
    )
    managed: Any
    if max_version is not None and max_version[0] >= 1:
        flags = _READ_ONLY if memory.readonly else 0
        managed = _Versioned(major=1, minor=1, context=None, deleter=_delete, flags=flags, tensor=table)
        name = b"dltensor_versioned"
    else:
        managed = _Managed(tensor=table, context=None, deleter=_delete)
        name = b"dltensor"
    address = ctypes.addressof(managed)
    _kept[address] = (managed, shape, strides, memory)
    return _new(address, name, _destroy)


class _Buffer(ctypes.Structure):
    """``Py_buffer`` of CPython's API."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


def _address(memory: memoryview) -> int:
    """Where a buffer begins; `ctypes.from_buffer` refuses one that is read-only."""
    buffer = _Buffer()
    # PyBUF_SIMPLE: its bytes, and nothing of their shape.
    if ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(memory), ctypes.byref(buffer), 0) != 0:
        raise BufferError("the tensor has no memory")
    address: int = buffer.buf
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address
