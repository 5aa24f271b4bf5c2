"""The process of a plugin in Python: opens a file, describes its callbacks, makes one, and calls its hooks."""

import importlib.util
import json
import os
import platform
import socket
import sys
import threading
from types import ModuleType
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type

from . import __version__, _messagepack, events
from ._channel import PROTOCOL, Channel, ChannelError, HostLink, Receiver, Sender
from .callback import Callback, DescriptionError, describe, hooks_of, kind_of, make
from .errors import HostError
from .run import Run

_OK, _ERROR, _UNKNOWN = 0, 1, 4

_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")

_folder = ""
"""The folder of the plugin's file."""


class Refusal(Exception):
    """Why a plugin cannot be opened, and what to do."""

    def __init__(self, message: str, hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.hint = hint


class Choice:
    """What the command line says beside the file: the class that the kind ``python`` runs, and by which adapter."""

    def __init__(self, arguments: List[str]) -> None:
        self.is_class = "--class" in arguments
        self.is_locked = "--locked" in arguments
        self.class_name = ""
        self.adapter = ""
        for name, value in zip(arguments, arguments[1:]):
            if name == "--class":
                self.class_name = value
            elif name == "--adapter":
                self.adapter = value


class Child:
    """One process: at most one plugin, and one instance of it."""

    def __init__(self, control: Channel, choice: Choice) -> None:
        self.control = control
        self.choice = choice
        self.link = HostLink(control)
        self.kinds: List[Type[Callback]] = []
        self.callback: Optional[Callback] = None
        self.hooks: List[str] = []

    def run(self) -> int:
        """Obeys until the instance is destroyed or the host is gone; the process's exit status."""
        while True:
            message = self.control.receive()
            if message is None:
                return 0
            name, fields = message
            if name == "open":
                self.open(fields)
            elif name == "create":
                return self.live(fields)
            else:
                raise ChannelError(f"the order `{name}` came over control before there was an instance")

    def open(self, fields: Dict[str, Any]) -> None:
        """Opens a plugin, and says what it has or why it cannot be opened."""
        try:
            if fields.get("protocol") != PROTOCOL:
                raise Refusal(
                    f"host_plugin {__version__} speaks the protocol {PROTOCOL}, the host {fields.get('protocol')}",
                    "use the package of the host's version",
                )
            limit(fields.get("limits") or {})
            path = fields.get("path") or ""
            self.kinds = kinds_of(path, fields.get("sha256"), fields.get("beside") or (), self.choice)
            descriptors = [json.dumps(self.described(kind)) for kind in self.kinds]
        except Refusal as refusal:
            self.control.send("refused", {"message": str(refusal), "hint": refusal.hint})
        else:
            build = f"host_plugin {__version__}, {platform.python_implementation()} {platform.python_version()}"
            opened = {"protocol": PROTOCOL, "descriptors": descriptors, "build": f"{build}, {sys.platform}"}
            self.control.send("opened", opened)

    def described(self, kind: Type[Callback]) -> Dict[str, Any]:
        """A class's descriptor; that of the kind ``python`` if the host asked for one class."""
        try:
            descriptor = describe(kind)
        except DescriptionError as error:
            raise Refusal(str(error), "this is a fault of the plugin: tell its author") from error
        if self.choice.is_class:
            descriptor["kind"] = "python"
            descriptor["options"] = {
                "type": "object",
                "properties": {
                    "file": {"type": "string", "format": "input-path", "description": "The file with the class"},
                    "class": {"type": "string", "description": "The class; may be left out if the file has one"},
                    "adapter": {"type": "string", "description": "`keras`, `lightning`, `transformers` or `tensorpack`"},
                    "args": {**descriptor["options"], "default": {}},
                },
                "additionalProperties": False,
            }
            if not descriptor["options"]["properties"]["args"].get("required"):
                return descriptor
            descriptor["options"]["properties"]["args"].pop("default")
            descriptor["options"]["required"] = ["args"]
        return descriptor

    def live(self, fields: Dict[str, Any]) -> int:
        """Makes the instance and calls its hooks until it is destroyed."""
        if len(self.control.descriptors) < 3 or not fields.get("socket"):
            raise ChannelError("`create` must come with a socket and two descriptors of memory")
        hooks, lent, own = self.control.descriptors[:3]
        channel = Channel(socket.socket(fileno=hooks))
        self.link.hooks, self.link.lent, self.link.own = channel, Receiver(lent), Sender(own)
        threading.Thread(target=self.listen, name="host-control", daemon=True).start()
        status, message = self.create(fields)
        channel.send("returned", {"status": status, "message": message})
        while True:
            order = channel.receive()
            if order is None:
                return 0
            name, event = order
            if name == "event":
                status = self.hook(event)
                channel.send("returned", {"status": status})
            elif name == "destroy":
                status = self.destroy()
                channel.send("returned", {"status": status})
                return 0
            else:
                raise ChannelError(f"the order `{name}` came over hooks")

    def listen(self) -> None:
        """Receives over control while there is an instance: answers to remotes, and the end of the host."""
        while True:
            message = self.control.receive()
            if message is None:
                # The host is gone, and a hook may wait for something that never comes.
                os._exit(1)
            name, fields = message
            if name == "answered":
                self.link.answered(fields)

    def create(self, fields: Dict[str, Any]) -> Tuple[int, str]:
        """Makes the instance; the status, and why none was made."""
        try:
            kind = self.kinds[fields["kind"]]
            options = json.loads(fields.get("options") or "{}")
            if self.choice.is_class:
                options = options.get("args") or {}
            self.callback = make(kind, fields.get("name", ""), options)
            self.hooks = hooks_of(kind)
        except BaseException as error:  # An `exit()` in `__init__` is a failure, too.
            message, place = told(error)
            return _ERROR, f"{message} ({place})" if place else message
        return _OK, ""

    def hook(self, event: Dict[str, Any]) -> int:
        """Calls the hook of an event; the status."""
        name = events.NAMES.get(event.get("kind", 0))
        if name is None:
            return _UNKNOWN
        if self.callback is None or name not in self.hooks:
            return _OK
        ticket = event.get("ticket", 0)
        run = Run(self.link, ticket)
        try:
            if name == "save_state":
                state = _messagepack.encode(self.callback.save_state())
                self.link.call(ticket, _SAVE_STATE, state, (), run._hook)
            elif name == "load_state":
                texts = (event.get("data") or {}).get("texts") or {}
                state = texts.get("bytes") or b""
                self.callback.load_state(_messagepack.decode(state) if state else None, texts.get("first", ""))
            else:
                getattr(self.callback, f"on_{name}")(run, events.of_message(name, event))
        except BaseException as error:  # An `exit()` in a hook is a failure, too.
            self.fault(ticket, error, run)
            return _ERROR
        finally:
            run._end()
        return _OK

    def fault(self, ticket: int, error: BaseException, run: Run) -> None:
        """Says why a hook failed."""
        message, place = told(error)
        trace = traced(error)
        if trace:
            self.control.send("log", {"level": 4, "target": "traceback", "message": trace})
        try:
            payload = _messagepack.encode({"message": message, "place": place})
            self.link.call(ticket, _FAULT, payload, (), run._hook)
        except (HostError, OSError):
            # The host cannot be told that telling it failed.
            pass

    def destroy(self) -> int:
        """Drops the instance."""
        try:
            self.callback = None
        except BaseException as error:
            self.control.send("log", {"level": 2, "target": "host_plugin", "message": told(error)[0]})
            return _ERROR
        return _OK


_FAULT, _SAVE_STATE = 1, 2


def limit(limits: Dict[str, Any]) -> None:
    """Sets what the process may use."""
    import resource

    for name, of in (("memory", resource.RLIMIT_AS), ("open_files", resource.RLIMIT_NOFILE)):
        value = limits.get(name)
        if value is not None:
            try:
                resource.setrlimit(of, (value, value))
            except (ValueError, OSError) as error:
                raise Refusal(f"the limit `{name}` of {value} cannot be set: {error}") from error
    niceness = limits.get("niceness")
    if niceness:
        os.nice(niceness)


def kinds_of(
    path: str, sha256: Optional[str], beside: Sequence[Dict[str, Any]], choice: Choice
) -> List[Type[Callback]]:
    """The classes that a file offers, or the one that was asked for.

    Raises:
        Refusal: the file cannot be read or imported, is another one than expected, or has no callback.
    """
    module = load(path, sha256, beside if choice.is_locked else None) if path else None
    if choice.is_class:
        from .adapters import chosen

        return [chosen(module, path, choice.class_name, choice.adapter)]
    assert module is not None, "only the kind `python` needs no file"
    found = own_classes(module)
    if not found:
        hint = "derive a class from `host_plugin.Callback`; callbacks of other libraries run by the kind `python`"
        raise Refusal(f"`{path}` has no callback of its own", hint)
    names = [kind_of(kind) for kind in found]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise Refusal(f"`{path}` has two callbacks of the kind `{name}`", "give one another `kind`")
    return found


def own_classes(module: ModuleType) -> List[Type[Callback]]:
    """The callbacks that a module defines, in their order in the file; not those that it imports. One from
    which another is derived is no kind, unless it says so."""
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Callback)]
    here = [kind for kind in dict.fromkeys(classes) if kind.__module__ == module.__name__]
    own = [kind for kind in here if not kind.__name__.startswith("_")]
    is_base = [any(kind is not other and issubclass(other, kind) for other in own) for kind in own]
    return [kind for kind, base in zip(own, is_base) if vars(kind).get("kind") or not base]


def load(path: str, sha256: Optional[str], beside: Optional[Sequence[Dict[str, Any]]] = None) -> ModuleType:
    """The module of a file: the bytes that are hashed are those that run. Its folder is the first on ``sys.path`` or, where only
    locked modules may be imported, those ``beside`` it are found by their list."""
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise Refusal(f"cannot read `{path}`: {error.strerror}") from error
    if sha256 is not None:
        import hashlib

        found = hashlib.sha256(source).hexdigest()
        if found != sha256.lower():
            raise Refusal(f"`{path}` has the SHA-256 {found}, not {sha256}", "the file was changed: look at it again")
    full = os.path.abspath(path)
    global _folder
    _folder = os.path.join(os.path.dirname(full), "")
    if beside is None:
        sys.path.insert(0, os.path.dirname(full))
    else:
        from ._locked import LockedModules

        sys.meta_path.insert(0, LockedModules(os.path.dirname(full), beside))
    name = os.path.splitext(os.path.basename(full))[0]
    # A file may have any name, such as that of a module of the standard library.
    if not name.isidentifier() or name in sys.modules or _is_standard(name):
        name = "host_plugin_file"
    module = ModuleType(name)
    module.__file__ = full
    sys.modules[name] = module
    try:
        exec(compile(source, full, "exec", dont_inherit=True), vars(module))
    except BaseException as error:  # `exit()` at the top of a file must not end the process without a word.
        message, place = told(error)
        hint = "install the package for this Python, or name another one with `[run] python`"
        trace = traced(error)
        raise Refusal(
            f"`{path}` cannot be imported: {message}" + (f" ({place})" if place else ""),
            f"{hint}: {sys.executable}" if isinstance(error, ModuleNotFoundError) else trace or None,
        ) from error
    return module


def _is_standard(name: str) -> bool:
    names = getattr(sys, "stdlib_module_names", None)
    return name in names if names is not None else importlib.util.find_spec(name) is not None


def told(error: BaseException) -> Tuple[str, str]:
    """An exception in one line, and where it was raised: the innermost line that is not of this package."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    message = text if isinstance(error, HostError) and text else f"{name}: {text}" if text else name
    if isinstance(error, SyntaxError) and error.filename:
        return f"{name}: {error.msg}", f"{error.filename}:{error.lineno}"
    return message, place_of(error)


def place_of(error: BaseException) -> str:
    """``file:line`` of the innermost frame of the plugin's own folder; of any other file if it was not there."""
    own, other, trace = "", "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((_HERE, "<frozen")):
            other = f"{file}:{trace.tb_lineno}"
            own = other if _folder and file.startswith(_folder) and "site-packages" not in file else own
        trace = trace.tb_next
    return own or other


def traced(error: BaseException) -> str:
    """The trace of an exception, without the frames of this package."""
    import traceback

    skipped = (_HERE, "<frozen")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(skipped)]
    if not frames:
        return ""
    return "".join(traceback.format_list(frames) + traceback.format_exception_only(type(error), error)).rstrip()


def send_logs(control: Channel) -> None:
    """Sends records of ``logging`` to the host's log."""
    import logging

    class ToHost(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            levels = ((logging.ERROR, 1), (logging.WARNING, 2), (logging.INFO, 3), (logging.DEBUG, 4))
            level = next((number for least, number in levels if record.levelno >= least), 5)
            try:
                control.send("log", {"level": level, "target": record.name, "message": self.format(record)})
            except Exception:
                self.handleError(record)

    handler = ToHost()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)


def die_with_parent() -> None:
    """Lets the system end this process with the host, also where a library is in the middle of a long computation."""
    if sys.platform == "linux":
        import ctypes

        death_signal, kill = 1, 9
        ctypes.CDLL(None).prctl(death_signal, kill, 0, 0, 0)


def main(arguments: Optional[List[str]] = None) -> int:
    """The program: obeys the host at the other end of standard input."""
    import signal

    # Ctrl-C reaches every process of a terminal: the host ends the run, and this process with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        connection = socket.socket(fileno=os.dup(0))
        connection.getpeername()
    except OSError:
        print("host_plugin is started by `host`, with a socket as its standard input", file=sys.stderr)
        return 2
    die_with_parent()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    # What a callback prints is a log: a line must not wait for the next one.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    control = Channel(connection)
    send_logs(control)
    return Child(control, Choice(sys.argv[1:] if arguments is None else arguments)).run()
