"""Imports the modules beside a locked file: those of the lock only, and the bytes that were hashed."""

from __future__ import annotations

import hashlib
import os
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any, Dict, Optional, Sequence

_PACKAGE = "/__init__.py"


class LockedModules(MetaPathFinder, Loader):
    """Finds the modules of a list, each with its ``file``, relative to the folder, and its ``sha256``."""

    def __init__(self, folder: str, modules: Sequence[Dict[str, Any]]):
        self.folder = folder
        self.modules: Dict[str, Dict[str, Any]] = {}
        for module in modules:
            file = module["file"]
            name = file[: -len(_PACKAGE)] if file.endswith(_PACKAGE) else file[: -len(".py")]
            self.modules[name.replace("/", ".")] = module

    def find_spec(self, fullname: str, path: Any, target: Optional[ModuleType] = None) -> Optional[ModuleSpec]:
        """The module of this name, if the list has it."""
        module = self.modules.get(fullname)
        if module is None:
            return None
        spec = spec_from_loader(fullname, self, is_package=module["file"].endswith(_PACKAGE))
        if spec is not None:
            spec.origin = os.path.join(self.folder, *module["file"].split("/"))
            spec.has_location = True
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Runs a module.

        Raises:
            ImportError: its file cannot be read, or has another content than when it was locked.
        """
        name = module.__name__
        path = os.path.join(self.folder, *self.modules[name]["file"].split("/"))
        try:
            with open(path, "rb") as file:
                source = file.read()
        except OSError as error:
            raise ImportError(f"cannot read `{path}`: {error.strerror}", name=name, path=path) from error
        if hashlib.sha256(source).hexdigest() != self.modules[name]["sha256"].lower():
            raise ImportError(f"`{path}` has another content than when it was locked", name=name, path=path)
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))
