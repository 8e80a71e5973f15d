"""Settings from the command line: a flag for each setting, named by its path, as `--training.batch-size`.

`--help` lists the settings that people change first (`FIRST`), a line or two each; `--help-all` is tyro's help of all.
"""

import dataclasses
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro import constructors

from recipes.command_line import one_line_errors
from recipes.config import Recipe
from recipes.config.fields import describe
from recipes.config.own import OwnSettings

FIRST = (
    "data.source", "data.tokenizer", "data.block_size", "loss", "init_from",
    "model.convolutions", "model.dense", "model.cell", "model.layers", "model.units", "model.width",
    "model.heads", "model.feed_forward", "model.dropout",
    "training.epochs", "training.steps_per_epoch", "training.batch_size", "training.seed",
    "optimizer.name", "optimizer.learning_rate", "optimizer.weight_decay", "schedule.name", "schedule.warmup",
    "augmentation.rotate", "augmentation.scale", "augmentation.shift",
    "early_stopping.metric", "early_stopping.patience", "pruning.sparsity",
)  # fmt: skip
"""Settings of the short help, which has all settings of the model of a user's own recipe besides."""

FLAG_COLUMNS = 30
MOST_COLUMNS = 100

Arguments = TypeVar("Arguments")


def parse(
    kind: type[Arguments], command: str, flags: Sequence[str], default: Any = constructors.MISSING_NONPROP
) -> Arguments:
    """Parse the arguments of a command.

    Args:
        kind: A dataclass; a field's docstring is the help of its flag.
        command: The command after `python -m`, as `recipes train mnist-cnn`.
        flags: The command line after it.
        default: An instance, whose values are the flags' defaults.

    Raises:
        UserError: An unknown flag, or a value that a flag does not take.
        SystemExit: Help was asked for, and is printed.
    """
    with one_line_errors():
        return tyro.cli(kind, args=list(flags), prog=f"python -m {command}", default=default)


def parse_flags(
    command: str, summary: str, recipe: Recipe, own: Arguments, flags: Sequence[str]
) -> tuple[Recipe, Arguments]:
    """Parse a command's own flags and those of a recipe. Errors as `parse`.

    Args:
        command: The command after `python -m`.
        summary: The first line of the help.
        recipe: Settings to start from: the defaults of their flags.
        own: The command's own arguments, with their defaults.
        flags: The command line after it.
    """
    if "--help-all" in flags:
        flags = ["--help"]
    elif "--help" in flags or "-h" in flags:
        print(_short_help(command, summary, recipe, own))
        raise SystemExit(0)
    recipe_kind, own_kind = type(recipe), type(own)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class RecipeArguments:
        __doc__ = summary
        own: Annotated[own_kind, tyro.conf.arg(name="")]  # type: ignore[valid-type]
        recipe: Annotated[recipe_kind, tyro.conf.arg(name="")]  # type: ignore[valid-type]

    chosen = parse(RecipeArguments, command, flags, RecipeArguments(own=own, recipe=recipe))
    return chosen.recipe, chosen.own


def _short_help(command: str, summary: str, recipe: Recipe, own: Any) -> str:
    """Return the help of a command's own flags and of the settings that are changed first."""
    settings = dict(_fields(recipe))
    own_model = isinstance(recipe, OwnSettings)
    first = [name for name in settings if name in FIRST or (own_model and name.startswith("model."))]
    entries = [_entry(name.rpartition(".")[2], field) for name, field in _fields(own)]
    entries += [_entry(name, settings[name]) for name in first]
    more = f"{len(settings) - len(first)} more settings: python -m {command} --help-all"
    return "\n".join([f"usage: python -m {command} [flags]", "", summary.strip(), "", *entries, "", more])


def _fields(settings: Any, prefix: str = "") -> Iterator[tuple[str, constructors.StructFieldSpec]]:
    """Yield the path of each setting, as `training.batch_size`, and what tyro knows about it."""
    info = constructors.StructTypeInfo.make(type(settings), settings, in_union_context=False)
    specification = typing.cast(
        constructors.StructConstructorSpec, constructors.ConstructorRegistry.get_struct_spec(info)
    )
    for field in specification.fields:
        if dataclasses.is_dataclass(field.default):
            yield from _fields(field.default, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def _entry(name: str, field: constructors.StructFieldSpec) -> str:
    """Return two lines at most for a setting: its flag, its choices or the first sentence of its help, its default."""
    width = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
    text = (field.helptext() if callable(field.helptext) else field.helptext) or ""
    if typing.get_origin(field.type) is Literal:
        text = describe(field.type)
    value = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    default = f"(default {value})"
    room = max(2 * (width - FLAG_COLUMNS) - len(default) - 8, 24)
    sentence = textwrap.shorten(re.split(r"(?<! al)\.(?:\s|$)", text)[0], room, placeholder=" ...")
    return textwrap.fill(
        f"{sentence} {default}",
        width,
        initial_indent=f"  --{name.replace('_', '-')} ".ljust(FLAG_COLUMNS),
        subsequent_indent=" " * FLAG_COLUMNS,
        break_on_hyphens=False,
    )
