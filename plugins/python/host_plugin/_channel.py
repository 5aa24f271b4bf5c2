"""Frames over sockets, and tensors in shared memory: the transport between a host and the process of a plugin.

Source: ``host/plugins/src/process/messages.rs``.
"""

import mmap
import os
import socket
import struct
import threading
from typing import Any, Dict, List, Optional, Sequence, Tuple

from . import _messagepack
from .errors import of_status
from .run import Link
from .tensors import DType, Hook, Tensor

PROTOCOL = 1
"""The version of the protocol."""

LONGEST = 1 << 30
"""The longest body of a frame, in bytes."""

_LENGTH = struct.Struct("<I")
_ALIGNMENT = 64
_CHUNK = 1 << 16
_DESCRIPTORS = 8
"""How many descriptors may come with one message."""


class ChannelError(Exception):
    """What came is no message of the protocol."""


class Channel:
    """Messages over a Unix stream socket. Any thread may send; one receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = bytearray()
        self._sending = threading.Lock()
        self.descriptors: List[int] = []
        """The descriptors that came, in order, until somebody takes them."""

    def send(self, name: str, fields: Dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Sends a message."""
        body = _messagepack.encode({name: fields})
        if len(body) > LONGEST:
            raise ChannelError(f"a message `{name}` of {len(body)} bytes is too long; the longest has {LONGEST}")
        frame = memoryview(_LENGTH.pack(len(body)) + body)
        with self._sending:
            if descriptors:
                frame = frame[socket.send_fds(self._socket, [frame], list(descriptors)) :]
            self._socket.sendall(frame)

    def receive(self) -> Optional[Tuple[str, Dict[str, Any]]]:
        """The next message: its name and its fields; ``None`` when the other side is gone."""
        if not self._fill(_LENGTH.size):
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > LONGEST:
            raise ChannelError(f"a message of {length} bytes is too long; the longest has {LONGEST}")
        end = _LENGTH.size + length
        if not self._fill(end):
            return None
        body = bytes(memoryview(self._received)[_LENGTH.size : end])
        del self._received[:end]
        message = _messagepack.decode(body)
        if not isinstance(message, dict) or len(message) != 1:
            raise ChannelError("a message is a map with one key, its name")
        ((name, fields),) = message.items()
        if not isinstance(name, str) or not isinstance(fields, dict):
            raise ChannelError("a message is a name and a map of fields")
        return name, fields

    def _fill(self, length: int) -> bool:
        """Receives until so many bytes are there; not if the other side is gone before."""
        while len(self._received) < length:
            try:
                # Of a long message, no more than is there at a time: what its length says may not be true.
                data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, _DESCRIPTORS)
            except ConnectionError:
                return False
            self.descriptors.extend(descriptors)
            if not data:
                return False
            self._received += data
        return True

    def close(self) -> None:
        """Ends the connection, also for a thread that receives."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The other side is gone already.
            pass
        self._socket.close()


def described(tensor: Tensor, offset: int) -> Dict[str, Any]:
    """A tensor's entry in a message: where it lies in its sender's memory."""
    return {
        "name": tensor.name,
        "dtype": list(tensor.dtype),
        "shape": list(tensor.shape),
        "offset": offset,
        "length": tensor.size * tensor.dtype.bytes,
    }


class Sender:
    """Shared memory into which tensors are written for the other side; it only gets longer."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: Optional[mmap.mmap] = None
        self._length = os.fstat(descriptor).st_size

    def put(self, tensors: Sequence[Tensor], begin: int = 0) -> List[Dict[str, Any]]:
        """Writes tensors into the memory from an offset on, over those before, and gives their entries."""
        entries, end = [], begin
        for tensor in tensors:
            entries.append(described(tensor, end))
            end += -(-entries[-1]["length"] // _ALIGNMENT) * _ALIGNMENT
        if end == begin:
            return entries
        memory = self._reserve(end)
        for tensor, entry in zip(tensors, entries):
            offset = entry["offset"]
            memory[offset : offset + entry["length"]] = tensor.memory
        return entries

    def _reserve(self, length: int) -> mmap.mmap:
        if self._length < length:
            os.ftruncate(self._descriptor, length)
            self._length = length
        if self._map is None or len(self._map) < length:
            if self._map is not None:
                self._map.close()
            self._map = mmap.mmap(self._descriptor, self._length)
        return self._map


class Receiver:
    """Shared memory in which the other side's tensors lie, as they are lent."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: Optional[mmap.mmap] = None

    def tensors(self, entries: Any, hook: Optional[Hook]) -> List[Tensor]:
        """The tensors of a message, read-only, where they lie."""
        return [self._tensor(entry, hook) for entry in entries or ()]

    def _tensor(self, entry: Dict[str, Any], hook: Optional[Hook]) -> Tensor:
        dtype = DType(*entry["dtype"])
        offset, length, shape = entry["offset"], entry["length"], entry["shape"]
        size = dtype.bytes
        for part in shape:
            size *= part
        if size != length or offset < 0 or any(part < 0 for part in shape):
            raise ChannelError(f"the tensor `{entry['name']}` has {length} bytes, not the {size} of its shape and type")
        if length == 0:
            return Tensor(entry["name"], shape, dtype, memoryview(b""), hook)
        memory = memoryview(self._mapped(offset + length))[offset : offset + length]
        return Tensor(entry["name"], shape, dtype, memory, hook)

    def _mapped(self, end: int) -> mmap.mmap:
        if self._map is None or len(self._map) < end:
            length = os.fstat(self._descriptor).st_size
            if length < end:
                raise ChannelError(f"a tensor ends at {end}, and the host's memory at {length}")
            # A map that arrays still use stays, and ends with them.
            self._map = mmap.mmap(self._descriptor, length, access=mmap.ACCESS_READ)
        return self._map


class HostLink(Link):
    """Calls to the host over the channels of a child process."""

    def __init__(self, control: Channel) -> None:
        self.control = control
        self.hooks: Optional[Channel] = None
        self.own: Optional[Sender] = None
        self.lent: Optional[Receiver] = None
        self._answers: Dict[int, Dict[str, Any]] = {}
        self._answered = threading.Condition()
        self._calls = 0

    def call(
        self, ticket: int, service: int, payload: bytes, tensors: Sequence[Tensor], hook: Hook
    ) -> Tuple[bytes, List[Tensor]]:
        assert self.hooks is not None and self.own is not None and self.lent is not None, "no instance is made yet"
        fields: Dict[str, Any] = {"ticket": ticket, "service": service, "payload": payload}
        if tensors:
            fields["tensors"] = self.own.put(tensors)
        self.hooks.send("call", fields)
        message = self.hooks.receive()
        if message is None:
            # The host is gone: nothing can be said to anybody.
            os._exit(1)
        name, reply = message
        if name != "reply":
            raise ChannelError(f"the host answered a call with `{name}`")
        answered = _reply(reply)
        return answered, self.lent.tensors(reply.get("tensors"), hook)

    def call_remote(self, ticket: int, service: int, payload: bytes) -> bytes:
        with self._answered:
            self._calls += 1
            identity = self._calls
        self.control.send("call", {"id": identity, "call": {"ticket": ticket, "service": service, "payload": payload}})
        with self._answered:
            while identity not in self._answers:
                self._answered.wait()
            return _reply(self._answers.pop(identity))

    def answered(self, fields: Dict[str, Any]) -> None:
        """The host has answered a call of a remote."""
        with self._answered:
            self._answers[fields["id"]] = fields["reply"]
            self._answered.notify_all()


def _reply(reply: Dict[str, Any]) -> bytes:
    payload = bytes(reply.get("bytes") or b"")
    status = reply["status"]
    if status == 0:
        return payload
    try:
        message = _messagepack.decode(payload)["message"]
    except (_messagepack.MessagePackError, TypeError, KeyError):
        message = "the service failed without a message"
    raise of_status(status, message)
