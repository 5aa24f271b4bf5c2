"""Options: their JSON Schema from type hints, and their values from JSON."""

import re
import sys
import typing
from typing import Any, Dict, List, NamedTuple, Tuple


class Option:
    """What ``Annotated`` says of an option beside its type: ``Annotated[float, Option("The goal", minimum=0)]``.

    The first argument is a description; the others are keywords of JSON Schema, such as ``minimum`` and ``format``. A ``format``
    says what a text names, so that the host checks it before the training: ``metric``, ``produced-metric``, ``produced-prefix``,
    ``input-path``, ``expression``, ``actions``, ``output-file``, ``output-folder`` or ``output-name``.
    """

    def __init__(self, description: str = "", **keywords: Any) -> None:
        self.keywords: Dict[str, Any] = {"description": description} if description else {}
        self.keywords.update(keywords)


class OptionsError(Exception):
    """Parameters that are no options; the message says why."""


class _Parameter(NamedTuple):
    name: str
    hint: Any
    default: Any
    description: str


_REQUIRED = object()
"""The default of a parameter without one."""


def schema_of(kind: Any) -> Dict[str, Any]:
    """The JSON Schema of a class's options.

    Raises:
        OptionsError: ``*args``, ``**kwargs`` or parameters that take no name, and a type that has no form in JSON.
    """
    return _object(_parameters(kind), kind.__name__, hasattr(kind, "options_of"))


def arguments_of(kind: Any, options: Dict[str, Any]) -> Tuple[List[Any], Dict[str, Any]]:
    """The arguments of ``__init__`` for options that satisfy the schema."""
    values = {
        parameter.name: _value(parameter.hint, options[parameter.name])
        for parameter in _parameters(kind)
        if parameter.name in options
    }
    own = _dataclass_of(kind)
    return ([], values) if own is None else ([own(**values)], {})


def _dataclass_of(kind: Any) -> Any:
    """The dataclass ``Options`` of a class, if it has one."""
    own = getattr(kind, "Options", None)
    return own if isinstance(own, type) and hasattr(own, "__dataclass_fields__") else None


def _parameters(kind: Any) -> List[_Parameter]:
    own = _dataclass_of(kind)
    if own is not None:
        return _fields(own)
    # That of a class for another framework was not written for this: what has no form in JSON can be anything, and what has no
    # name is left out.
    foreign = hasattr(kind, "options_of")
    kind = getattr(kind, "options_of", kind)
    function = kind.__init__
    if function is object.__init__:
        return []
    import inspect

    documented = {**_documented(kind.__doc__), **_documented(function.__doc__)}
    hints = _hints(function, foreign)
    found = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL or parameter.kind is parameter.VAR_KEYWORD:
            if foreign:
                continue
            raise OptionsError(f"`__init__` takes `*{parameter.name}`: options are parameters with names")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise OptionsError(f"the parameter `{parameter.name}` of `__init__` takes no name: options are given by name")
        default = _REQUIRED if parameter.default is parameter.empty else parameter.default
        name = parameter.name
        found.append(_Parameter(name, hints.get(name, Any), default, documented.get(name, "")))
    return found


def _fields(kind: Any) -> List[_Parameter]:
    import dataclasses

    documented, hints = _documented(kind.__doc__), _hints(kind)
    found = []
    for field in dataclasses.fields(kind):
        default: Any = field.default
        if default is dataclasses.MISSING:
            factory: Any = field.default_factory
            default = _REQUIRED if factory is dataclasses.MISSING else factory()
        if field.init:
            found.append(_Parameter(field.name, hints.get(field.name, Any), default, documented.get(field.name, "")))
    return found


def _hints(of: Any, foreign: bool = False) -> Dict[str, Any]:
    try:
        return typing.get_type_hints(of, include_extras=True)
    except (NameError, TypeError) as error:
        if foreign:
            return {}
        raise OptionsError(f"the type hints of the options cannot be read: {error}") from error


_ENTRY = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_SECTION = re.compile(r"^\s*(?:Args|Arguments|Parameters|Options|Attributes):\s*$")
_SPHINX = re.compile(r"^\s*:param\s+(?:\S+\s+)?(\w+):\s*(.*)$")


def _documented(text: Any) -> Dict[str, str]:
    """The descriptions of parameters in a docstring: Google's sections (``Args:``), or ``:param name:``."""
    found: Dict[str, str] = {}
    # The indent of a section's heading and of its entries; -1 without a section, and before its first entry.
    section, entries, name = -1, -1, ""
    for line in (text or "").splitlines():
        indent = len(line) - len(line.lstrip())
        sphinx, entry = _SPHINX.match(line), _ENTRY.match(line)
        if not line.strip():
            name = ""
        elif _SECTION.match(line):
            section, entries, name = indent, -1, ""
        elif sphinx:
            name, found[sphinx.group(1)] = sphinx.group(1), sphinx.group(2).strip()
        elif 0 <= section and indent <= section:
            section, name = -1, ""
        elif 0 <= section and entries in (-1, indent) and entry:
            entries, name = indent, entry.group(1)
            found[name] = entry.group(2).strip()
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _object(parameters: List[_Parameter], title: str, foreign: bool = False) -> Dict[str, Any]:
    properties: Dict[str, Any] = {}
    required = []
    for parameter in parameters:
        try:
            schema = _schema(parameter.hint)
        except OptionsError as error:
            if not foreign:
                raise OptionsError(f"the option `{parameter.name}`: {error}") from error
            schema = {}
        if parameter.description and "description" not in schema:
            schema["description"] = parameter.description
        if parameter.default is _REQUIRED:
            required.append(parameter.name)
        else:
            known, default = _json(parameter.default)
            if known:
                schema["default"] = default
        properties[parameter.name] = schema
    found: Dict[str, Any] = {"title": title, "type": "object", "properties": properties, "additionalProperties": False}
    if required:
        found["required"] = required
    return found


_TYPES: Dict[Any, Dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    dict: {"type": "object"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    type(None): {"type": "null"},
    Any: {},
}


def _schema(hint: Any) -> Dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is not None and hasattr(hint, "__metadata__"):
        found = _schema(arguments[0])
        for note in hint.__metadata__:
            found.update({"description": note} if isinstance(note, str) else getattr(note, "keywords", {}))
        return found
    if _is_union(origin):
        return _union(arguments)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (list, tuple) or (origin is not None and getattr(origin, "__name__", "") in ("Sequence", "Iterable")):
        items = [argument for argument in arguments if argument is not Ellipsis]
        if origin is tuple and len(items) == len(arguments) and items:
            parts = [_schema(item) for item in items]
            return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
        return {"type": "array", "items": _schema(items[0])} if items else {"type": "array"}
    if origin is dict or getattr(origin, "__name__", "") == "Mapping":
        return {"type": "object", "additionalProperties": _schema(arguments[1])} if arguments else {"type": "object"}
    if hint in _TYPES:
        return dict(_TYPES[hint])
    if hasattr(hint, "__dataclass_fields__"):
        return _object(_fields(hint), hint.__name__)
    if _is_enum(hint):
        return {"enum": [member.value for member in hint]}
    if _is_path(hint):
        return {"type": "string"}
    raise OptionsError(f"the type {getattr(hint, '__name__', hint)} has no form in a run file")


def _union(arguments: Tuple[Any, ...]) -> Dict[str, Any]:
    parts = [_schema(argument) for argument in arguments]
    if {} in parts:
        return {}
    if all(set(part) == {"type"} for part in parts):
        return {"type": [part["type"] for part in parts]}
    # A description inside one belongs to the option.
    found: Dict[str, Any] = {}
    for part in parts:
        if "description" in part:
            found["description"] = part.pop("description")
    found["anyOf"] = parts
    return found


def _is_union(origin: Any) -> bool:
    # `int | None` has a type of its own, which is there if somebody wrote such a hint.
    return origin is typing.Union or getattr(origin, "__name__", "") == "UnionType"


def _is_enum(hint: Any) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(hint, type) and issubclass(hint, enum.Enum)


def _is_path(hint: Any) -> bool:
    pathlib = sys.modules.get("pathlib")
    return pathlib is not None and isinstance(hint, type) and issubclass(hint, pathlib.PurePath)


def _json(value: Any) -> Tuple[bool, Any]:
    """A default as JSON, if it has such a form."""
    if value is None or isinstance(value, (bool, str)):
        return True, value
    if _is_enum(type(value)):
        return _json(value.value)
    if isinstance(value, (int, float)):
        return value - value == 0, value
    if isinstance(value, (list, tuple)):
        items = [_json(item) for item in value]
        return all(known for known, _ in items), [item for _, item in items]
    if isinstance(value, dict):
        pairs = {key: _json(item) for key, item in value.items()}
        return all(known for known, _ in pairs.values()), {str(key): item for key, (_, item) in pairs.items()}
    if hasattr(value, "__dataclass_fields__"):
        return _json({name: getattr(value, name) for name in value.__dataclass_fields__})
    if _is_path(type(value)):
        return True, str(value)
    return False, None


def _value(hint: Any, value: Any) -> Any:
    """A value of JSON as its hint has it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is not None and hasattr(hint, "__metadata__"):
        return _value(arguments[0], value)
    if _is_union(origin):
        if value is None:
            return None
        others = [argument for argument in arguments if argument is not type(None)]
        fitting = [argument for argument in others if type(value) is argument]
        return value if fitting else _value(others[0], value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list) and arguments:
        if origin is tuple and Ellipsis not in arguments:
            return tuple(_value(argument, item) for argument, item in zip(arguments, value))
        items = [_value(arguments[0], item) for item in value]
        return tuple(items) if origin is tuple else items
    if isinstance(value, dict):
        if hasattr(hint, "__dataclass_fields__"):
            hints = _hints(hint)
            return hint(**{name: _value(hints.get(name, Any), item) for name, item in value.items()})
        return {name: _value(arguments[1], item) for name, item in value.items()} if len(arguments) == 2 else value
    if _is_enum(hint) or (_is_path(hint) and isinstance(value, str)):
        return hint(value)
    return value
