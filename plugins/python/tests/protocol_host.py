"""The host's side of the protocol, for tests: starts a child process, and answers it as a fake host."""

import array
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any, Dict, List, Optional, Sequence, Tuple

from host_plugin import _messagepack, events
from host_plugin._channel import PROTOCOL, Channel, Receiver, Sender
from host_plugin.errors import HostError
from host_plugin.testing import _NAMES, World

PACKAGE = pathlib.Path(__file__).resolve().parent.parent


class Ended(Exception):
    """The child is gone."""


class ProtocolHost(World):
    """A child process and the host at its other end."""

    def __init__(self, arguments: Sequence[str] = (), python: str = sys.executable) -> None:
        super().__init__()
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        command = [python, "-m", "host_plugin", *arguments]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
        )
        theirs.close()
        self.control = Channel(ours)
        self.logs: List[Dict[str, Any]] = []
        self.hooks: Optional[Channel] = None
        self.ticket = 0
        self.lent_until = 0

    def __enter__(self) -> "ProtocolHost":
        return self

    def __exit__(self, *_: Any) -> None:
        self.control.close()
        if self.hooks is not None:
            self.hooks.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.stdout, self.stderr = self.process.communicate()

    def report(self) -> Tuple[str, Dict[str, Any]]:
        """The next report that is not for the log."""
        while True:
            message = self.control.receive()
            if message is None:
                raise Ended(self.process.wait(10))
            if message[0] != "log":
                return message
            self.logs.append(message[1])

    def open(self, path: Any, **fields: Any) -> Tuple[str, Dict[str, Any]]:
        """Opens a plugin."""
        self.control.send("open", {"protocol": PROTOCOL, "path": str(path), "limits": {}, "sha256": None, **fields})
        return self.report()

    def create(self, kind: int = 0, name: str = "mine", options: str = "{}") -> Dict[str, Any]:
        """Makes an instance."""
        ours, theirs = socket.socketpair()
        lent, own = (os.memfd_create(name) for name in ("lent", "own"))
        self.hooks, self.lent, self.own = Channel(ours), Sender(lent), Receiver(own)
        fields = {"kind": kind, "name": name, "options": options, "minor": 0, "ticket": 1, "socket": True}
        self.control.send("create", fields, [theirs.fileno(), lent, own])
        theirs.close()
        threading.Thread(target=self._listen, daemon=True).start()
        self.info = self.info._replace(instance=name)
        return self._until_returned("new")

    def event(self, name: str, data: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Sends an event; what the child returned."""
        assert self.hooks is not None
        self.ticket += 1
        self.lent_until = 0
        fields = {"kind": events.NUMBERS[name], "ticket": self.ticket, **self.position._asdict()}
        self.hooks.send("event", fields if data is None else {**fields, "data": data})
        return self._until_returned(name)

    def destroy(self) -> int:
        """Destroys the instance; the child's exit status."""
        assert self.hooks is not None
        self.hooks.send("destroy", {})
        self._until_returned("new")
        return self.process.wait(10)

    def _until_returned(self, hook: str) -> Dict[str, Any]:
        assert self.hooks is not None
        while True:
            message = self.hooks.receive()
            if message is None:
                raise Ended(self.process.wait(10))
            name, fields = message
            if name == "returned":
                return fields
            self.hooks.send("reply", self._reply(fields, self.own))

    def _reply(self, call: Dict[str, Any], own: Optional[Receiver]) -> Dict[str, Any]:
        try:
            tensors = own.tensors(call.get("tensors"), None) if own is not None else []
            payload, found = self.answer(_NAMES[call["service"]], call["payload"], tensors)
        except HostError as error:
            return {"status": error.status, "bytes": _messagepack.encode({"message": str(error), "place": ""})}
        entries = self.lent.put(found, self.lent_until)
        # What was lent stays until the hook returns.
        self.lent_until = max([self.lent_until, *(-(-(entry["offset"] + entry["length"]) // 64) * 64 for entry in entries)])
        return {"status": 0, "bytes": payload, "tensors": entries}

    def _listen(self) -> None:
        try:
            while True:
                message = self.control.receive()
                if message is None:
                    return
                name, fields = message
                if name == "log":
                    self.logs.append(fields)
                elif name == "call":
                    self.control.send("answered", {"id": fields["id"], "reply": self._reply(fields["call"], None)})
        except (OSError, ValueError):
            # The test has ended.
            return


def written(text: str, name: str = "mine.py") -> str:
    """A temporary file with this text; it stays until the tests end."""
    folder = tempfile.TemporaryDirectory(prefix="host-plugin-test-")
    _folders.append(folder)
    path = os.path.join(folder.name, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


_folders: List[Any] = []


def floats(*values: float) -> "array.array[float]":
    """An array of f32."""
    return array.array("f", values)
