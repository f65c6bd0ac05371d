"""A module made from a table of names, enum values and signatures: what is not in the table does not exist.

A call with a wrong number, name or type of arguments raises, as pybind11 does; so does a call that the stand-in has no
behaviour for, and an attribute that the table does not have, read or written.
"""

import enum
import re
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SEVERITIES = {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4}


class Overload:
    """One signature, as `name(self: A, x: typing.SupportsInt = 0) -> B`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.parameters: list[tuple[str, str, bool]] = []
        for part in _split(_between(text)):
            if part == "/":
                continue
            name, _, rest = part.partition(":")
            kind, equals, _ = rest.partition("=")
            self.parameters.append((name.strip(), kind.strip(), bool(equals)))
        if self.parameters and self.parameters[0][0] == "self":
            del self.parameters[0]

    def accepts(self, module: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        """Whether a call fits."""
        if len(args) > len(self.parameters) or set(kwargs) - {name for name, _, _ in self.parameters[len(args) :]}:
            return False
        for index, (name, kind, optional) in enumerate(self.parameters):
            if index < len(args):
                value = args[index]
            elif name in kwargs:
                value = kwargs[name]
            elif optional:
                continue
            else:
                return False
            if not fits(module, value, kind) and not (optional and value is None):
                return False
        return True


def fits(module: Any, value: Any, kind: str) -> bool:
    """Whether pybind11 would take a value for a parameter of a type."""
    if kind == "typing.SupportsInt":
        return isinstance(value, int | np.integer) or (
            hasattr(value, "__index__") and not isinstance(value, np.ndarray)
        )
    if kind == "typing.SupportsFloat":
        return isinstance(value, int | float | np.number)
    if kind in ("str", "bool", "tuple", "list"):
        return isinstance(value, {"str": str, "bool": bool, "tuple": tuple, "list": list}[kind])
    if kind == "typing_extensions.Buffer":
        return isinstance(value, bytes | bytearray | memoryview) or type(value).__name__ == "IHostMemory"
    if kind == "Dims":  # converted from what has its length and integers
        return isinstance(value, tuple | list | module.Dims) and all(isinstance(v, int | np.integer) for v in value)
    if kind.startswith("collections.abc.Sequence["):
        return isinstance(value, tuple | list | module.Dims)
    if kind == "numpy.ndarray":
        return isinstance(value, np.ndarray)
    if kind == "object":
        return True
    found: Any = module
    for part in re.split(r"::|\.", kind):
        found = getattr(found, part, None) if not part.startswith("nv") else found
    if not isinstance(found, type):
        raise AssertionError(f"the stand-in knows no type {kind}")
    return isinstance(value, found)


def module_from(name: str, table: dict[str, Any], behaviours: dict[str, type]) -> Any:
    """A module with the classes and enums of a table. behaviours: what a constructor makes; may be filled later."""
    module: Any = types.ModuleType(name)
    module.__version__ = table["tensorrt"]
    api = table["api"]
    for key, entry in api.items():
        if "enum" in entry:
            setattr(module, key, _enum(key, entry["enum"]))
        elif "members" in entry:
            setattr(module, key, _class(module, key, entry["members"], behaviours))
    return module


def make(module: Any, name: str, behaviour: Any) -> Any:
    """An object of a class that a caller cannot construct."""
    made = object.__new__(getattr(module, name))
    object.__setattr__(made, "_standin", behaviour)
    return made


def _enum(name: str, values: dict[str, int]) -> Any:
    # As pybind11's: numbers by int() or as an index, but no integers.
    def number(self: Any) -> int:
        return self.value

    return enum.Enum(name, values, type=type("_Number", (), {"__int__": number, "__index__": number}))


def _class(module: Any, name: str, members: dict[str, Any], behaviours: dict[str, type]) -> type:
    namespace: dict[str, Any] = {}
    for key, entry in members.items():
        if entry == "property":
            namespace[key] = _property(name, key)
        elif isinstance(entry, list) and key != "__init__":
            namespace[key] = _method(module, name, key, [Overload(text) for text in entry])
    if "pybind11_type" in members.values():
        severity = _enum("Severity", SEVERITIES)
        namespace |= {"Severity": severity, **{key: severity[key] for key in SEVERITIES}}
    constructors = [Overload(text) for text in members.get("__init__", ())]

    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        if not constructors:
            raise TypeError(f"{name}: No constructor defined!")
        if name not in behaviours:
            raise NotImplementedError(f"the stand-in has no behaviour for {name}")
        if not any(overload.accepts(module, args, kwargs) for overload in constructors):
            raise TypeError(f"{name}({args}, {kwargs}): takes {[overload.text for overload in constructors]}")
        object.__setattr__(self, "_standin", behaviours[name](*args, **kwargs))

    def assign(self: Any, key: str, value: Any) -> None:
        if type(self) is made and members.get(key) != "property":
            raise AttributeError(f"{name} has no attribute {key}")
        object.__setattr__(self, key, value)

    namespace |= {"__init__": construct, "__setattr__": assign}
    if name == "Dims":
        namespace["__len__"] = lambda self: len(self._standin.sizes)
        namespace["__getitem__"] = lambda self, index: self._standin.sizes[index]
    if name == "IHostMemory":
        namespace["__bytes__"] = lambda self: self._standin.data
    made = type(name, (), namespace)
    made.__module__ = module.__name__
    return made


def _behaviour(self: Any, name: str) -> Any:
    if not hasattr(self, "_standin"):
        raise TypeError(f"{name}.__init__() must be called when overriding __init__")
    return self._standin


def _method(module: Any, name: str, key: str, overloads: list[Overload]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(overload.accepts(module, args, kwargs) for overload in overloads):
            raise TypeError(f"{name}.{key}({args}, {kwargs}): takes {[overload.text for overload in overloads]}")
        function = getattr(_behaviour(self, name), key, None)
        if function is None:
            raise NotImplementedError(f"the stand-in has no behaviour for {name}.{key}")
        return function(*args, **kwargs)

    return call


def _property(name: str, key: str) -> property:
    def read(self: Any) -> Any:
        behaviour = _behaviour(self, name)
        if not hasattr(behaviour, key):
            raise NotImplementedError(f"the stand-in has no behaviour for {name}.{key}")
        return getattr(behaviour, key)

    def write(self: Any, value: Any) -> None:
        behaviour = _behaviour(self, name)
        if not hasattr(behaviour, key):
            raise NotImplementedError(f"the stand-in has no behaviour for {name}.{key}")
        setattr(behaviour, key, value)

    return property(read, write)


def _between(text: str) -> str:
    """The text between the first bracket and the one that closes it."""
    depth, begin = 0, text.index("(")
    for index in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin + 1 : index]
    raise AssertionError(f"no signature: {text}")


def _split(text: str) -> list[str]:
    """Parameters, split at the commas outside brackets."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += {"[": 1, "(": 1, "<": 1, "]": -1, ")": -1, ">": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    return [*parts, current.strip()] if current.strip() else parts
