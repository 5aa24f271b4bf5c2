"""MessagePack, as far as the host speaks it: nil, bool, integers, floats, text, bytes, arrays and maps.

What is read may be anybody's: lengths are checked against the bytes that are there before anything is made of them, and values
lie at most ``DEEPEST`` levels deep.
"""

import struct
from typing import Any, List

DEEPEST = 64
"""How many arrays and maps may lie in each other."""

_F32 = struct.Struct(">f")
_F64 = struct.Struct(">d")
_UNSIGNED = {1: struct.Struct(">B"), 2: struct.Struct(">H"), 4: struct.Struct(">I"), 8: struct.Struct(">Q")}
_SIGNED = {1: struct.Struct(">b"), 2: struct.Struct(">h"), 4: struct.Struct(">i"), 8: struct.Struct(">q")}


class MessagePackError(ValueError):
    """Bytes that are no MessagePack value, or a value that has no such form."""


def encode(value: Any) -> bytes:
    """The bytes of a value: integers in the shortest form, floats with 64 bits.

    Tuples become arrays. What converts to an integer or a float, such as a scalar of NumPy, becomes one.

    Raises:
        MessagePackError: a value of another type, an integer of more than 64 bits, or values too deep in each other.
    """
    parts: List[bytes] = []
    _encode(value, parts.append, 0)
    return b"".join(parts)


def _encode(value: Any, put: Any, depth: int) -> None:
    kind = type(value)
    if kind is str:
        body = value.encode("utf-8", "replace")
        put(_header(len(body), 0xA0, 32, (0xD9, 0xDA, 0xDB)))
        put(body)
    elif kind is float:
        put(b"\xcb" + _F64.pack(value))
    elif value is None:
        put(b"\xc0")
    elif kind is bool:
        put(b"\xc3" if value else b"\xc2")
    elif kind is int:
        put(_integer(value))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        body = bytes(value)
        put(_header(len(body), 0, 0, (0xC4, 0xC5, 0xC6)))
        put(body)
    elif isinstance(value, dict):
        depth = _deeper(depth)
        put(_header(len(value), 0x80, 16, (None, 0xDE, 0xDF)))
        for key, item in value.items():
            _encode(key, put, depth)
            _encode(item, put, depth)
    elif isinstance(value, (list, tuple)):
        depth = _deeper(depth)
        put(_header(len(value), 0x90, 16, (None, 0xDC, 0xDD)))
        for item in value:
            _encode(item, put, depth)
    elif isinstance(value, str):
        _encode(str(value), put, depth)
    elif isinstance(value, float):
        put(b"\xcb" + _F64.pack(value))
    else:
        put(_number(value))


def _number(value: Any) -> bytes:
    """A value that says itself that it is an integer or a float."""
    for method in ("__index__", "__float__"):
        if hasattr(value, method):
            try:
                number = getattr(value, method)()
            except (TypeError, ValueError):
                continue
            return _integer(number) if method == "__index__" else b"\xcb" + _F64.pack(number)
    raise MessagePackError(f"a value of the type {type(value).__name__} cannot be sent")


def _integer(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes((value,))
    if -32 <= value < 0:
        return bytes((256 + value,))
    if value > 0:
        for code, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
            if value < 1 << 8 * size:
                return bytes((code,)) + _UNSIGNED[size].pack(value)
    else:
        for code, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
            if value >= -(1 << 8 * size - 1):
                return bytes((code,)) + _SIGNED[size].pack(value)
    raise MessagePackError(f"the integer {value} has more than 64 bits")


def _header(length: int, short: int, below: int, codes: Any) -> bytes:
    """The header of something of this length: in one byte below a length, else a code and the length with 1, 2 or 4 bytes."""
    if length < below:
        return bytes((short | length,))
    for code, size in zip(codes, (1, 2, 4)):
        if code is not None and length < 1 << 8 * size:
            return bytes((code,)) + _UNSIGNED[size].pack(length)
    raise MessagePackError(f"a value of {length} parts is too long")


def _deeper(depth: int) -> int:
    if depth >= DEEPEST:
        raise MessagePackError(f"more than {DEEPEST} arrays and maps lie in each other")
    return depth + 1


def decode(data: Any) -> Any:
    """The value of bytes, all of them.

    Raises:
        MessagePackError: bytes that are no value, more bytes after it, or values too deep in each other.
    """
    reader = _Reader(data)
    value = reader.value(0)
    if reader.place != len(reader.data):
        raise MessagePackError(f"{len(reader.data) - reader.place} bytes follow the value")
    return value


class _Reader:
    __slots__ = ("data", "place")

    def __init__(self, data: Any) -> None:
        self.data = bytes(data)
        self.place = 0

    def take(self, length: int) -> bytes:
        begin = self.place
        end = begin + length
        if end > len(self.data):
            raise MessagePackError(f"the bytes end early: {length} are missing at {begin} of {len(self.data)}")
        self.place = end
        return self.data[begin:end]

    def unsigned(self, size: int) -> int:
        return int(_UNSIGNED[size].unpack(self.take(size))[0])

    def value(self, depth: int) -> Any:
        code = self.take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 256
        if code < 0x90:
            return self.map(code & 0x0F, depth)
        if code < 0xA0:
            return self.array(code & 0x0F, depth)
        if code < 0xC0:
            return self.text(code & 0x1F)
        if code == 0xC0:
            return None
        if code in (0xC2, 0xC3):
            return code == 0xC3
        if code in (0xC4, 0xC5, 0xC6):
            return self.take(self.unsigned(1 << code - 0xC4))
        if code == 0xCA:
            return _F32.unpack(self.take(4))[0]
        if code == 0xCB:
            return _F64.unpack(self.take(8))[0]
        if 0xCC <= code <= 0xCF:
            return self.unsigned(1 << code - 0xCC)
        if 0xD0 <= code <= 0xD3:
            size = 1 << code - 0xD0
            return _SIGNED[size].unpack(self.take(size))[0]
        if code in (0xD9, 0xDA, 0xDB):
            return self.text(self.unsigned(1 << code - 0xD9))
        if code in (0xDC, 0xDD):
            return self.array(self.unsigned(2 << code - 0xDC), depth)
        if code in (0xDE, 0xDF):
            return self.map(self.unsigned(2 << code - 0xDE), depth)
        raise MessagePackError(f"the byte {code:#04x} begins no value that the host sends")

    def text(self, length: int) -> str:
        return self.take(length).decode("utf-8", "replace")

    def array(self, length: int, depth: int) -> List[Any]:
        self.check(length)
        depth = _deeper(depth)
        return [self.value(depth) for _ in range(length)]

    def map(self, length: int, depth: int) -> Any:
        self.check(2 * length)
        depth = _deeper(depth)
        found = {}
        for _ in range(length):
            key = self.value(depth)
            try:
                found[key] = self.value(depth)
            except TypeError as error:
                raise MessagePackError("the key of a map is an array or a map") from error
        return found

    def check(self, values: int) -> None:
        """Each value has at least one byte: a length that cannot be true reserves nothing."""
        if values > len(self.data) - self.place:
            raise MessagePackError(f"{values} values cannot lie in {len(self.data) - self.place} bytes")
