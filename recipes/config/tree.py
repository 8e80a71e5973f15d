"""Settings as nested dicts of JSON values, and back."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

from recipes.config.errors import UserError, nearest

Settings = TypeVar("Settings")


def to_dict(settings: Any) -> dict[str, Any]:
    """Return settings as nested dicts of JSON values (tuples become lists)."""
    return {field.name: _to_json(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else value


def from_dict(kind: type[Settings], tree: Mapping[str, Any], path: str = "") -> Settings:
    """Build settings of a kind from nested dicts; what is left out keeps its default.

    Raises:
        UserError: An unknown setting (with the nearest name), or a value of the wrong type or
            outside of its range.
    """
    if not isinstance(tree, Mapping):
        raise UserError(f"{path.rstrip('.') or 'Settings'} must be a table of settings. Received: {tree!r}")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in tree.items():
        if name not in hints:
            raise UserError(f"There is no setting {path + name!r}. {nearest(name, hints)}")
        values[name] = _from_json(value, hints[name], path + name)
    return kind(**values)


def _from_json(value: Any, kind: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_dict(typing.cast(type, kind), value, path + ".")
    if isinstance(value, list):
        value = tuple(value)
    if not _has_type(value, kind):
        raise UserError(f"{path} must be {describe(kind)}. Received: {value!r}")
    return value


def _has_type(value: Any, kind: Any) -> bool:
    """Tell whether a JSON value is of a setting's type; a whole number is a float too."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin is types.UnionType:
        return any(_has_type(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_has_type(item, arguments[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def describe(kind: Any) -> str:
    """Say a setting's type in words: `one of cosine, wsd`, `float or None`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is types.UnionType:
        return " or ".join(describe(argument) for argument in arguments)
    if origin is tuple:
        return f"a list of {describe(arguments[0])}"
    return "None" if kind is types.NoneType else str(kind.__name__)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting of nested dicts as (dotted name, value)."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
