"""Callbacks that were written for other frameworks, unmodified.

An adapter calls a class's methods at the events of the host, as far as they read metrics and positions and ask for controls. What
it cannot offer, such as the model as a Python object, is an error that says so at its first use.
"""

import importlib
import sys
from types import ModuleType
from typing import Dict, List, Optional, Type

from ..callback import Callback

ADAPTERS = ("keras", "lightning", "transformers", "tensorpack")
"""The frameworks that have an adapter."""

_PACKAGES: Dict[str, str] = {
    "keras": "keras",
    "tf_keras": "keras",
    "tensorflow": "keras",
    "lightning": "lightning",
    "pytorch_lightning": "lightning",
    "transformers": "transformers",
    "tensorpack": "tensorpack",
}
"""The adapter of each package."""


_NAME_IT = "set `file`, or name the class with its package: `class = \"keras.callbacks.CSVLogger\"`"


def chosen(module: Optional[ModuleType], path: str, name: str, adapter: str) -> Type[Callback]:
    """The class called ``name`` in a file's module or, with dots, in a package; as a callback of the host.

    Without a name, the only callback that the file defines or, if it defines none, imports.

    Raises:
        Refusal: there is none or there are several, it cannot be imported, or no adapter is for it.
    """
    from .._child import Refusal

    if adapter and adapter not in ADAPTERS:
        raise Refusal(f"there is no adapter `{adapter}`", f"adapters are {', '.join(ADAPTERS)}")
    found = _only(module, path) if not name else _named(module, path, name)
    if issubclass(found, Callback):
        return found
    adapter = adapter or adapter_of(found)
    if not adapter:
        raise Refusal(
            f"`{found.__module__}.{found.__qualname__}` is a callback of no framework that has an adapter",
            f"derive it from `host_plugin.Callback`, or say whose methods it has with `adapter`: {', '.join(ADAPTERS)}",
        )
    return adapted(found, adapter)


def adapted(kind: type, adapter: str) -> Type[Callback]:
    """A class of another framework as a callback of the host."""
    adapt = importlib.import_module(f"{__name__}.{adapter}").adapt
    made: Type[Callback] = adapt(kind)
    return made


def adapter_of(kind: type) -> str:
    """The adapter for a class, by the packages of the classes that it derives from; empty if there is none."""
    packages = (base.__module__.partition(".")[0] for base in kind.__mro__)
    return next((_PACKAGES[package] for package in packages if package in _PACKAGES), "")


def _named(module: Optional[ModuleType], path: str, name: str) -> type:
    from .._child import Refusal, told

    where = f"`{path}`"
    within: object = module
    package, _, attribute = name.replace(":", ".").rpartition(".")
    if package and not hasattr(module, name.partition(".")[0]):
        where = f"the package `{package}`"
        try:
            within = importlib.import_module(package)
        except BaseException as error:
            message, _place = told(error)
            hint = f"install the package for this Python, or name another one with `[run] python`: {sys.executable}"
            raise Refusal(f"`{package}` cannot be imported: {message}", hint) from error
    elif package:
        attribute = name
    elif module is None:
        raise Refusal(f"the class `{name}` has no file", _NAME_IT)
    for part in attribute.split("."):
        within = getattr(within, part, None)
    if not isinstance(within, type):
        what = "no class" if within is None else f"a {type(within).__name__}, no class,"
        names = ", ".join(kind.__name__ for kind in _offered(module)) if module is not None else ""
        raise Refusal(f"{where} has {what} `{attribute}`", f"it has {names}" if names else None)
    return within


def _only(module: Optional[ModuleType], path: str) -> type:
    from .._child import Refusal

    if module is None:
        raise Refusal("the kind `python` needs a file or a class", _NAME_IT)
    found = _offered(module)
    own = [kind for kind in found if kind.__module__ == module.__name__]
    found = own or found
    if len(found) != 1:
        names = ", ".join(kind.__name__ for kind in found)
        raise Refusal(
            f"`{path}` has {'no callback' if not found else f'{len(found)} callbacks: {names}'}",
            "name one with `class`" if found else "derive a class from `host_plugin.Callback`, or name a class with `class`",
        )
    return found[0]


def _offered(module: ModuleType) -> List[type]:
    """The callbacks of a module that the host could use, without the bases of the frameworks."""
    bases = ("Callback", "TrainerCallback", "ProxyCallback")
    classes = [value for value in vars(module).values() if isinstance(value, type) and value.__name__ not in bases]
    return [kind for kind in dict.fromkeys(classes) if issubclass(kind, Callback) or adapter_of(kind)]
