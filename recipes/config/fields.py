"""Types and ranges of settings, and settings as nested dicts of JSON values."""

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from recipes.config.errors import UserError, nearest, require

S = TypeVar("S")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """The finite numbers between two ends, each of which is included, excluded or missing."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        low = self.at_least if self.above is None else self.above
        high = self.at_most if self.below is None else self.below
        if high is None:
            return f"{'at least' if self.above is None else 'above'} {low}"
        if isinstance(low, int) and isinstance(high, int) and high > 1:
            return f"{low} to {high}"
        return f"in {'[' if self.above is None else '('}{low}, {high}{']' if self.below is None else ')'}"


Count = Annotated[int, Range(at_least=1)]
NonNegativeInt = Annotated[int, Range(at_least=0)]
Seed = Annotated[int, Range(at_least=0, at_most=2**32 - 1)]  # the most that all random generators here take
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(at_least=0)]
BelowOne = Annotated[float, Range(at_least=0, below=1)]
ProperFraction = Annotated[float, Range(above=0, below=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A group of settings; each value must be of its field's type and in its range.

    Attributes:
        group: The group's name on the command line; empty for settings without a group.
        removed: Settings of older versions, each with the value that had no effect: files with them stay readable.
        used_by: The settings that each value of `name` uses; those that only other values use keep their defaults.

    Raises:
        UserError: Another value, or a value of a setting that is not used.
    """

    group: ClassVar[str] = ""
    removed: ClassVar[Mapping[str, Any]] = {}
    used_by: ClassVar[Mapping[Any, Collection[str]]] = {}

    def __post_init__(self) -> None:
        prefix = f"{self.group}." if self.group else ""
        for name, kind in field_types(type(self)).items():
            value = getattr(self, name)
            check_type(value, kind, prefix + name)
            if not _in_range(value, kind):
                raise UserError(f"{prefix}{name} must be {_describe_range(kind)}. Received: {name}={value!r}")
        if self.used_by:
            self._check_used()

    def _check_used(self) -> None:
        chosen = vars(self)["name"]
        takes = ", ".join(self.used_by[chosen]) or "no setting of its own"
        for name in sorted({name for names in self.used_by.values() for name in names}):
            value = getattr(self, name)
            used = name in self.used_by[chosen] or value == getattr(type(self), name)
            require(used, f"{self.group} {chosen} takes {takes}", **{name: value})


def field_types(kind: type[Any]) -> dict[str, Any]:
    """Return the types of the fields of a dataclass, ranges included."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def to_dict(settings: Any) -> dict[str, Any]:
    """Return settings as nested dicts of JSON values (tuples become lists)."""
    return {field.name: _to_json(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else value


def from_dict(kind: type[S], tree: Mapping[str, Any], path: str = "") -> S:
    """Build settings of a class from nested dicts. A setting that is missing keeps its default.

    Raises:
        UserError: An unknown setting (with the nearest name), or a value of the wrong type or out of range.
    """
    if not isinstance(tree, Mapping):
        raise UserError(f"{path.rstrip('.') or 'Settings'} must be a table of settings. Received: {tree!r}")
    hints, removed = field_types(kind), getattr(kind, "removed", {})
    values = {}
    for name, value in tree.items():
        if name in removed and value in (None, removed[name]):
            continue
        if name not in hints:
            raise UserError(f"There is no setting {path + name!r}. {nearest(name, hints)}")
        if value is None and not _has_type(None, hints[name]):
            continue  # older versions recorded None for a default
        values[name] = _from_json(value, hints[name], path + name)
    return kind(**values)


def with_settings(settings: S, tree: Mapping[str, Any]) -> S:
    """Return settings with some of them changed, given as nested dicts.

    Raises:
        UserError: As `from_dict`.
    """
    return from_dict(type(settings), _merged(to_dict(settings), tree))


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{name: _merged(below.get(name), value) for name, value in above.items()}}


def _from_json(value: Any, kind: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_dict(typing.cast(type, kind), value, path + ".")
    if isinstance(value, list):
        value = tuple(value)
    check_type(value, kind, path)
    return value


def check_type(value: Any, kind: Any, path: str) -> None:
    """Raise a UserError unless a value is of a type; a whole number is a float too."""
    if not _has_type(value, kind):
        raise UserError(f"{path} must be {describe(kind)}. Received: {value!r}")


def _has_type(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _has_type(value, arguments[0])
    if origin is Literal:
        return value in arguments
    if origin in (types.UnionType, typing.Union):
        return any(_has_type(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_has_type(item, arguments[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return kind is Any or (isinstance(value, kind) and not (kind is int and isinstance(value, bool)))


def _in_range(value: Any, kind: Any) -> bool:
    """Return whether a value of the right type is in the ranges that its type names."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return all(value in each for each in arguments[1:] if isinstance(each, Range))
    if origin in (types.UnionType, typing.Union):
        return any(_has_type(value, argument) and _in_range(value, argument) for argument in arguments)
    if origin is tuple:
        return all(_in_range(item, arguments[0]) for item in value)
    return True


def _describe_range(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return " and ".join(str(each) for each in arguments[1:] if isinstance(each, Range))
    if origin is tuple:
        return f"{_describe_range(arguments[0])} each"
    return " or ".join(
        "None" if argument is types.NoneType else _describe_range(argument) for argument in arguments
    )


def describe(kind: Any) -> str:
    """Describe a setting's type: `one of cosine, wsd`, `float or None`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return describe(arguments[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (types.UnionType, typing.Union):
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


def whole_part(fraction: float, count: int) -> int:
    """Return a fraction of a count, rounded down: 0.29 of 100 is 29, although 0.29 * 100 < 29 in floats."""
    return int(Fraction(str(fraction)) * count)
