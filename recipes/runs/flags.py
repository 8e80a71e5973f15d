"""Command lines: a flag for each setting, named by its path, as `--training.batch-size`; errors of a line.

`--help` lists the settings that people change first (`FIRST`), a line or two each; `--help-all` is tyro's help of all.
"""

import contextlib
import dataclasses
import difflib
import io
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro import constructors

from recipes.config import Recipe, UserError
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
    kind: type[Arguments],
    command: str,
    flags: Sequence[str],
    default: Any = constructors.MISSING_NONPROP,
    *,
    use_underscores: bool = False,
) -> Arguments:
    """Parse the arguments of a command.

    Args:
        kind: A dataclass; a field's docstring is the help of its flag.
        command: The command after `python -m`, as `recipes train mnist-cnn`.
        flags: The command line after it.
        default: An instance, whose values are the flags' defaults.
        use_underscores: Whether the help names flags as `--rest_api_port`; both spellings are parsed.

    Raises:
        UserError: An unknown flag, or a value that a flag does not take.
        SystemExit: Help was asked for, and is printed.
    """
    printed, prog = io.StringIO(), f"python -m {command}"
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(
                kind, args=list(flags), prog=prog, default=default, use_underscores=use_underscores
            )
    except SystemExit as exit_:
        if exit_.code != 2:
            raise
        raise UserError(unframe(printed.getvalue())) from None


def unframe(frame: str) -> str:
    """Return the message of a framed error, with the nearest flag, without frame and help."""
    # Where standard output is not UTF-8, tyro draws no sides, and a line under the title.
    inside = re.findall("^│.*", frame, re.MULTILINE) or frame.splitlines()[2:]
    blocks = re.split(r"\n[─-]+\n", "\n".join(line.strip("│ ") for line in inside))
    said = " ".join(blocks[0].split())
    meant = [block for block in blocks[1:] if block.startswith("Perhaps you meant")]
    if meant:
        # tyro lists the flags that contain the received one in alphabetical order.
        flags = re.findall(r"^\s*(--[\w.-]+)", meant[0], re.MULTILINE)
        received = re.findall(r"--[\w.-]+", said)
        near = difflib.get_close_matches(received[0], flags, n=1, cutoff=0.0) if received else flags
        said += f". Did you mean {near[0]}?"
    return re.sub(r"^Error parsing [\w.]+: ", "", said)


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """Return the value of a flag that is needed before the others can be parsed; None if it is not given."""
    for number, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return argument.removeprefix(f"{flag}=")
        if argument == flag and number + 1 < len(arguments):
            return arguments[number + 1]
    return None


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
