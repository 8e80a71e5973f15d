"""What a search varies: settings of a recipe, each with its range or its choices.

training.batch_size        32:256          the powers of two in the range
optimizer.learning_rate    1e-4:1e-1:log   even on a log scale
model.dropout              0:0.5           even
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

from recipes.config import Recipe, UserError, flatten, nearest, require, to_dict
from recipes.runs.settings import with_settings

BATCH_SIZE, LEARNING_RATE = "training.batch_size", "optimizer.learning_rate"
EPOCHS, STEPS_PER_EPOCH = "training.epochs", "training.steps_per_epoch"
COUNTED = (
    "schedule.warmup",
    "early_stopping.patience",
    "pruning.begin",
    "pruning.end",
    "pruning.settle",
)
"""Settings in epochs or steps: they belong to the length of the training that they are for."""
RANGE = "LOW:HIGH, LOW:HIGH:log, or values with commas between them"

Value = int | float | str | bool


@dataclass(frozen=True)
class Dimension:
    """A setting and what it may be.

    Attributes:
        name: The setting, as `optimizer.learning_rate`.
        low: Lower end of a range.
        high: Upper end of a range.
        log: Whether the range is even on a log scale.
        choices: What it may be, instead of a range.
    """

    name: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Value, ...] = ()

    @property
    def text(self) -> str:
        """Its range or its choices, for people."""
        ends = (self.low, self.high)
        return ", ".join(map(str, self.choices)) if self.choices else f"{ends[0]:g} to {ends[1]:g}"

    def at_edge(self, value: Any) -> bool:
        """Tell whether a number is so near an end that the best may lie beyond: in a twentieth of the range.

        Of numbers to choose from, at least three, it is the least or the greatest.
        """
        if self.choices:
            numbers = all(isinstance(choice, int | float) for choice in self.choices)
            return numbers and len(self.choices) > 2 and value in (min(self.choices), max(self.choices))
        low, high, number = self.low, self.high, float(value)
        if self.log:
            low, high, number = math.log(low), math.log(high), math.log(number)
        return min(number - low, high - number) <= (high - low) / 20

    def holds(self, value: Any) -> bool:
        """Tell whether a value is in the range, or one of the choices."""
        return value in self.choices if self.choices else value is not None and self.low <= value <= self.high


def default_space(recipe: Recipe) -> dict[str, str]:
    """Return batch sizes to four times smaller and larger than a recipe's, and rates to ten times."""
    batch, rate = recipe.training.batch_size, recipe.optimizer.learning_rate
    return {
        BATCH_SIZE: f"{max(1, batch // 4)}:{batch * 4}",
        LEARNING_RATE: f"{rate / 10:.6g}:{rate * 10:.6g}:log",
    }


def parse_space(recipe: Recipe, space: Mapping[str, str]) -> list[Dimension]:
    """Read what a search varies.

    Args:
        recipe: Whose settings they are.
        space: A range or choices as text for each setting.

    Raises:
        UserError: A setting that the recipe does not have or that is no number or name, an empty or
            reversed range, a log scale from 0, or a value that the setting does not take.
    """
    dimensions = [parse_dimension(recipe, name, text) for name, text in space.items()]
    for dimension in dimensions:
        for end in dimension.choices or (dimension.low, dimension.high):
            apply(recipe, dimensions, {dimension.name: end})
    return dimensions


def parse_dimension(recipe: Recipe, name: str, text: str) -> Dimension:
    """Read a range or choices. Errors as `parse_space`."""
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
    """Return int, float, str, bool or a Literal: the type of a setting, None left aside."""
    group, kind = recipe, None
    for part in name.split("."):
        hints = typing.get_type_hints(type(group)) if dataclasses.is_dataclass(group) else {}
        if part not in hints:
            names = [setting for setting, _ in flatten(to_dict(recipe))]
            raise UserError(f"--space: the recipe has no setting {name!r}. {nearest(name, names)}")
        group, kind = getattr(group, part), hints[part]
    if typing.get_origin(kind) is types.UnionType:
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
    """Return the recipe's own values of what is varied, if all of them are in the space."""
    own = dict(flatten(to_dict(recipe)))
    inside = all(dimension.holds(own[dimension.name]) for dimension in dimensions)
    return {dimension.name: own[dimension.name] for dimension in dimensions} if inside else None


def apply(recipe: Recipe, dimensions: list[Dimension], values: Mapping[str, Value]) -> Recipe:
    """Return the recipe of a trial.

    Where an epoch is a number of steps and the batch size is varied, the steps change with it: each
    trial sees as many examples, or the largest batch would win by seeing most.

    Args:
        recipe: The recipe that is searched.
        dimensions: What is varied.
        values: What was chosen, by setting.

    Raises:
        UserError: The values do not go together.
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
    """Return the settings of a trial, as nested dicts, for a training as long as the recipe's own.

    A search's trials may be shorter: epochs and steps are then the catalog's, and with them what is
    counted in epochs or steps. What was searched stays.

    Args:
        own: The recipe as the catalog has it.
        recipe: The recipe that is searched.
        dimensions: What was varied.
        values: What was chosen, by setting.
    """
    tree = to_dict(apply(recipe, dimensions, values))
    before, searched = dict(flatten(to_dict(own))), {each.name for each in dimensions}
    now = dict(flatten(tree))
    length = [name for name in (EPOCHS, STEPS_PER_EPOCH) if name in now and name not in searched]
    if STEPS_PER_EPOCH in length:  # as many examples at any batch size, as `apply` has it
        examples = before[STEPS_PER_EPOCH] * recipe.training.batch_size
        before[STEPS_PER_EPOCH] = max(1, round(examples / now[BATCH_SIZE]))
    if all(before[name] == now[name] for name in length):
        return tree
    for name in (*length, *COUNTED):
        group, setting = name.split(".")
        if name not in searched:
            tree[group][setting] = before[name]
    return tree
