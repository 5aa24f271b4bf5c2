"""What the adapters share: which methods a class has, stand-ins for what there is not, and states."""

import inspect
import os
from types import CodeType
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Type

from ..callback import Callback
from ..run import Run

_BASES = ("Callback", "TrainerCallback", "ProxyCallback")
"""The names of the frameworks' base classes, whose methods do nothing."""


class NotOfferedError(AttributeError):
    """Something that only exists where the framework itself trains, such as the model as a Python object."""


class Stub:
    """Stands in for an object of a framework: what is not offered is an error at its first use."""

    _what = "object"
    _offers = ""

    def __getattr__(self, name: str) -> Any:
        raise NotOfferedError(self._refusal(name))

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise NotOfferedError(self._refusal("__call__"))

    def _refusal(self, name: str) -> str:
        offers = f"; it offers {self._offers}" if self._offers else ""
        return f"the {self._what} of this run is not a Python object: an adapter cannot offer its `{name}`{offers}"


class Missing(Stub):
    """A stand-in for something of which nothing is offered."""

    def __init__(self, what: str) -> None:
        self._what = what


def has(kind: type, method: str) -> bool:
    """Whether a class has a method of its own, not only that of its framework's base."""
    own = getattr(kind, method, None)
    bases = [base for base in kind.__mro__[1:] if base.__name__ in _BASES]
    return own is not None and all(getattr(base, method, None) is not own for base in bases)


def mentions(kind: type, *names: str) -> bool:
    """Whether the methods of a class, and of those that it derives from up to its framework's base, name one of these."""
    classes: List[type] = []
    for base in kind.__mro__:
        if base.__name__ in _BASES or base is object:
            break
        classes.append(base)
    functions = [vars(base)[name] for base in classes for name in vars(base)]
    functions = [getattr(function, "__func__", function) for function in functions]
    found: Set[str] = set()
    for function in functions:
        code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
        if code is not None:
            _names_in(code, found)
    return any(name in found for name in names)


def _names_in(code: CodeType, found: Set[str]) -> None:
    found.update(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _names_in(constant, found)


class Adapted(Callback):
    """A callback of the host that calls the methods of a class of another framework."""

    options_of: type
    """The class, whose parameters are the options."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.own: Any = self.options_of(*arguments, **options)
        """The instance of the class."""
        self._loaded: Optional[Dict[str, Any]] = None
        self._begins = False

    def begin(self, run: Run, event: Any) -> None:
        """Tells the instance that the training begins."""

    def on_train_start(self, run: Run, event: Any) -> None:
        self._begins = False
        self.begin(run, event)
        self.restore()

    def begin_late(self, run: Run, event: Any) -> None:
        """Before any other method in a training: one that is started anew within it is not told of its beginning."""
        if self._begins:
            self.on_train_start(run, event)

    def on_setup(self, run: Run, event: Any) -> None:
        # What such a class writes into its working folder belongs to the run: it has this process to itself.
        info = run.info()
        self._begins = info.job in ("", "train")
        if info.folder:
            os.chdir(info.folder)

    def save_state(self) -> Any:
        """The attributes of the instance that are numbers, text, and lists and maps of these; not those of its options, which
        are those of the run file, also after a resume."""
        options = inspect.signature(self.options_of.__init__).parameters  # type: ignore[misc]
        attributes = vars(self.own).items()
        plain = {name: value for name, value in attributes if name not in options and _is_plain(value)}
        return {name: _number(value) for name, value in plain.items()}

    def load_state(self, state: Any, version: str) -> None:
        # The class resets itself when the training begins, which comes after this.
        self._loaded = state

    def restore(self) -> None:
        """Puts back the attributes of a saved state, once the training has begun."""
        for name, value in (self._loaded or {}).items():
            setattr(self.own, name, value)
        self._loaded = None


def subclass(kind: type, base: Type[Adapted], hooks: Dict[str, Callable[..., Any]], **fields: Any) -> Type[Callback]:
    """The adapted class: with the methods for events in ``hooks``, and fields of its description."""
    summary = (kind.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    given: Dict[str, Any] = {"options_of": kind, "summary": summary, "version": _version(kind), **fields}
    given.update({f"on_{event}": method for event, method in hooks.items()})
    return type(kind.__name__, (base,), given)


def has_any(kind: type, methods: Iterable[str]) -> bool:
    """Whether a class has one of these methods."""
    return any(has(kind, method) for method in methods)


def call(own: Any, method: str, *arguments: Any, **named: Any) -> None:
    """Calls a method of an instance, if it has one."""
    function = getattr(own, method, None)
    if function is not None:
        function(*arguments, **named)


def translated(metrics: Dict[str, float], names: Dict[str, str]) -> Dict[str, float]:
    """Metrics under a framework's names: ``names`` has what a prefix of ours is there. A name that is there already stays."""
    found = dict(metrics)
    for name, value in metrics.items():
        for ours, theirs in names.items():
            if name.startswith(ours):
                del found[name]
                found.setdefault(theirs + name[len(ours) :], value)
    return found


def _version(kind: type) -> str:
    import sys

    package = sys.modules.get(kind.__module__.partition(".")[0])
    return str(getattr(package, "__version__", ""))


def _is_plain(value: Any, depth: int = 0) -> bool:
    if value is None or isinstance(value, (bool, int, float, str)):
        return not isinstance(value, int) or -(1 << 63) <= value < 1 << 63
    if depth < 8 and isinstance(value, (list, tuple)):
        return all(_is_plain(item, depth + 1) for item in value)
    if depth < 8 and isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item, depth + 1) for key, item in value.items())
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    """Whether a value is one number of NumPy or PyTorch."""
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def _number(value: Any) -> Any:
    return value.item() if _is_scalar(value) else value
