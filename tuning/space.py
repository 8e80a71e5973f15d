"""The search space: settings of a recipe, each with a range or choices.

training.batch_size        32:256          the powers of two in the range
optimizer.learning_rate    1e-4:1e-1:log   uniform on a log scale
model.dropout              0:0.5           uniform
schedule.name              cosine,wsd      one of these
"""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recipes.config import Recipe, UserError, flatten, nearest, require, to_dict, with_settings

BATCH_SIZE, LEARNING_RATE = "training.batch_size", "optimizer.learning_rate"
EPOCHS, STEPS_PER_EPOCH = "training.epochs", "training.steps_per_epoch"
COUNTED = (
    "schedule.warmup",
    "early_stopping.patience",
    "pruning.begin",
    "pruning.end",
    "pruning.settle",
)
"""Settings in epochs or steps: they depend on the length of the training."""
RANGE = "LOW:HIGH, LOW:HIGH:log, or values with commas between them"

Value = int | float | str | bool


@dataclass(frozen=True)
class Dimension:
    """A searched setting.

    Attributes:
        name: Name of the setting, such as `optimizer.learning_rate`.
        low: Lower end of a range.
        high: Upper end of a range, inclusive.
        log: Whether the range is uniform on a log scale.
        choices: The possible values, instead of a range.
    """

    name: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Value, ...] = ()

    @property
    def text(self) -> str:
        """The range or the choices, for people."""
        ends = (self.low, self.high)
        return ", ".join(map(str, self.choices)) if self.choices else f"{ends[0]:g} to {ends[1]:g}"

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers."""
        return not any(isinstance(choice, str | bool) for choice in self.choices)

    def place(self, value: Any) -> float:
        """Return the position of a value in the dimension, from 0 to 1."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def value_at(self, place: float) -> Value:
        """Return the value at a position, at least 0 and below 1."""
        if self.choices:
            return self.choices[int(place * len(self.choices))]
        whole = isinstance(self.low, int)
        high = self.high + 1 if whole else self.high
        value = (
            self.low * math.pow(high / self.low, place) if self.log else place * (high - self.low) + self.low
        )
        return min(int(value), int(self.high)) if whole else value

    def at_edge(self, value: Any) -> bool:
        """Return whether a number is within a twentieth of the range of an end, so the optimum may be outside.

        Of at least three numbers to choose from, the lowest and the highest are at the edge.
        """
        if self.choices:
            return self.ordered and len(self.choices) > 2 and value in (min(self.choices), max(self.choices))
        return min(self.place(value), 1 - self.place(value)) <= 1 / 20

    def contains(self, value: Any) -> bool:
        """Return whether a value is in the range, or one of the choices."""
        return value in self.choices if self.choices else value is not None and self.low <= value <= self.high


def default_space(recipe: Recipe) -> dict[str, str]:
    """Return the default space: a recipe's batch size divided and multiplied by 4, its learning rate by 10."""
    batch, rate = recipe.training.batch_size, recipe.optimizer.learning_rate
    return {
        BATCH_SIZE: f"{max(1, batch // 4)}:{batch * 4}",
        LEARNING_RATE: f"{rate / 10:.6g}:{rate * 10:.6g}:log",
    }


def parse_space(recipe: Recipe, space: Mapping[str, str]) -> list[Dimension]:
    """Parse a search space.

    Args:
        recipe: The recipe.
        space: A range or choices as text for each setting.

    Raises:
        UserError: The recipe has no such setting, or it is not a number or a name; the range is empty,
            reversed, or on a log scale from 0; the setting does not accept one of the values.
    """
    dimensions = [parse_dimension(recipe, name, text) for name, text in space.items()]
    for dimension in dimensions:
        for end in dimension.choices or (dimension.low, dimension.high):
            apply(recipe, dimensions, {dimension.name: end})
    return dimensions


def parse_dimension(recipe: Recipe, name: str, text: str) -> Dimension:
    """Parse the range or the choices of one setting. Raises the errors of `parse_space`."""
    kind = _kind_of(recipe, name)
    flag = f"--space.{name.replace('_', '-')}"
    if ":" not in text:
        choices = tuple(_value(kind, part.strip(), flag) for part in text.split(","))
        require(len(set(choices)) == len(choices) >= 2, f"{flag} needs two values or more", text=text)
        return Dimension(name, choices=choices)
    if kind not in (int, float):
        raise UserError(f"{flag}: a range is for numbers; name the values: a,b. Received: {text!r}")
    low_text, high_text, *rest = text.split(":")
    require(rest in ([], ["log"]), f"{flag} must be {RANGE}", text=text)
    low, high = _value(kind, low_text, flag), _value(kind, high_text, flag)
    require(low < high, f"{flag}: the range is empty or reversed", low=low, high=high)
    require(not rest or low > 0, f"{flag}: a log scale starts above 0", low=low)
    if name == BATCH_SIZE:
        powers = tuple(2**n for n in range(math.ceil(math.log2(max(low, 1))), int(math.log2(high)) + 1))
        require(len(powers) >= 2, f"{flag}: there must be two powers of two in the range", text=text)
        return Dimension(name, choices=powers)
    return Dimension(name, low, high, bool(rest))


def _kind_of(recipe: Recipe, name: str) -> Any:
    """Return the type of a setting without None: int, float, str, bool or a Literal."""
    group, kind = recipe, None
    for part in name.split("."):
        hints = typing.get_type_hints(type(group)) if dataclasses.is_dataclass(group) else {}
        if part not in hints:
            names = [setting for setting, _ in flatten(to_dict(recipe))]
            raise UserError(f"--space: the recipe has no setting {name!r}. {nearest(name, names)}")
        group, kind = getattr(group, part), hints[part]
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(argument for argument in typing.get_args(kind) if argument is not types.NoneType)
    if kind not in (int, float, str, bool) and typing.get_origin(kind) is not Literal:
        raise UserError(f"--space.{name}: only numbers and names can be searched")
    return kind


def _value(kind: Any, text: str, flag: str) -> Any:
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if kind not in (int, float, bool):
        return text
    with contextlib.suppress(ValueError):
        if kind is not bool and math.isfinite(value := kind(text)):
            return value
    wanted = {int: "whole numbers", float: "numbers", bool: "true,false"}[kind]
    raise UserError(f"{flag} takes {wanted}: {RANGE}. Received: {text!r}")


def own_values(recipe: Recipe, dimensions: list[Dimension]) -> dict[str, Value] | None:
    """Return the recipe's own values of the searched settings, or None if one is outside the space."""
    own = dict(flatten(to_dict(recipe)))
    inside = all(dimension.contains(own[dimension.name]) for dimension in dimensions)
    return {dimension.name: own[dimension.name] for dimension in dimensions} if inside else None


def same_values(values: Mapping[str, Value], others: Mapping[str, Value]) -> bool:
    """Return whether values are equal, up to the float32 rounding of searches by earlier versions."""
    return all(
        math.isclose(value, float(others[name]), rel_tol=1e-6)
        if isinstance(value, float)
        else value == others[name]
        for name, value in values.items()
    )


def apply(recipe: Recipe, dimensions: list[Dimension], values: Mapping[str, Value]) -> Recipe:
    """Return the recipe of a trial.

    If an epoch is a number of steps and the batch size is searched, the steps are adjusted: every trial
    is trained on the same number of examples. Otherwise the largest batch would win with the most data.

    Args:
        recipe: The recipe that is searched.
        dimensions: The searched settings.
        values: Value of each.

    Raises:
        UserError: The values are invalid together.
    """
    chosen = dict(values)
    steps = getattr(recipe.training, "steps_per_epoch", None)
    if steps and BATCH_SIZE in chosen and STEPS_PER_EPOCH not in {each.name for each in dimensions}:
        chosen[STEPS_PER_EPOCH] = max(1, round(steps * recipe.training.batch_size / int(chosen[BATCH_SIZE])))
    tree: dict[str, Any] = {}
    for name, value in chosen.items():
        *groups, setting = name.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[setting] = value
    return with_settings(recipe, tree)


def for_own_length(
    own: Recipe, recipe: Recipe, dimensions: list[Dimension], values: Mapping[str, Value]
) -> dict[str, Any]:
    """Return the settings of a trial, as nested dicts, for a training of the recipe's own length.

    The trials of a search may be shorter. Epochs, steps and the settings that are counted in them are
    then those of the catalog, unless they were searched.

    Args:
        own: The recipe in the catalog.
        recipe: The recipe that was searched.
        dimensions: The searched settings.
        values: Value of each.
    """
    tree = to_dict(apply(recipe, dimensions, values))
    before, searched = dict(flatten(to_dict(own))), {each.name for each in dimensions}
    now = dict(flatten(tree))
    length = [name for name in (EPOCHS, STEPS_PER_EPOCH) if name in now and name not in searched]
    if STEPS_PER_EPOCH in length:  # the same number of examples, as in `apply`
        examples = before[STEPS_PER_EPOCH] * recipe.training.batch_size
        before[STEPS_PER_EPOCH] = max(1, round(examples / now[BATCH_SIZE]))
    if all(before[name] == now[name] for name in length):
        return tree
    for name in (*length, *COUNTED):
        group, setting = name.split(".")
        if name not in searched:
            tree[group][setting] = before[name]
    return tree
