"""Command line of the recipes: `python -m recipes COMMAND --help`.

Settings are read and checked before anything slow is imported, so help and errors answer at once.
"""

import dataclasses
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from recipes import command_line
from recipes.catalog import CATALOG
from recipes.config import ImageRecipe, UserError, from_dict, nearest
from recipes.run import RUNS, Run, check_replaceable, check_vacant, new_path

HELP = """usage: python -m recipes COMMAND ...

  list                    every recipe, its parameters and its measured result
  train RECIPE [flags]    train a recipe; train RECIPE --help names its flags
  evaluate RUN [flags]    score a finished run on the test part of any source
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where the run goes."""

    run_dir: Path | None = None
    """Run directory (None: runs/RECIPE/TIMESTAMP)."""
    resume: bool = False
    """Go on with the unfinished run in --run-dir, or with the recipe's latest; its settings hold."""
    overwrite: bool = False
    """Replace a run that is already in --run-dir."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Score a finished run on the test part of any source with the same classes."""

    run: tyro.conf.Positional[Path]
    """Run directory."""
    source: Annotated[str | None, tyro.conf.arg(name="data.source")] = None
    """What to score on, as in `train` (None: what the run was trained on)."""


def list_recipes(arguments: Sequence[str]) -> None:
    """Print the catalog."""
    if arguments:
        raise UserError(f"list takes no arguments. Received: {' '.join(arguments)}")
    for name, entry in CATALOG.items():
        print(f"{name:22} {entry.parameters:>9,} parameters   {entry.measured}")
        print(textwrap.indent(entry.summary, " " * 23))


def train(arguments: Sequence[str]) -> None:
    """Train a recipe."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m recipes train RECIPE [flags]\n\nRECIPE is one of: {', '.join(CATALOG)}")
        if not arguments:
            raise UserError("train needs the name of a recipe")
        return
    name, flags = arguments[0], list(arguments[1:])
    if name not in CATALOG:
        raise UserError(f"There is no recipe {name!r}. {nearest(name, CATALOG)}")
    recipe, where = _parse_training(name, CATALOG[name].recipe, flags)
    path = _run_path(name, where)
    going_on = where.resume and (path / "config.json").exists()
    if going_on:
        if Run(path).finished:
            print(f"{path} is finished already: {path / 'report.html'}")
            return
        recipe, _ = _parse_training(name, _recorded_recipe(name, path), flags)
    with command_line.quiet_tensorflow():
        from recipes import mnist

    try:
        run = mnist.train(name, recipe, path, resume=going_on)
    except KeyboardInterrupt:
        if (path / "status.json").exists():
            print(f"Go on with: python -m recipes train {name} --resume --run-dir {path}", file=sys.stderr)
        raise
    print(_result(run))


def _parse_training(name: str, recipe: ImageRecipe, flags: Sequence[str]) -> tuple[ImageRecipe, RunArguments]:
    """Parse the flags of `train`: a recipe's settings, which are its defaults, and where the run goes."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class TrainArguments:
        __doc__ = CATALOG[name].summary
        run: Annotated[RunArguments, tyro.conf.arg(name="")]
        recipe: Annotated[ImageRecipe, tyro.conf.arg(name="")]

    with command_line.one_line_errors():
        chosen = tyro.cli(
            TrainArguments,
            args=flags,
            prog=f"python -m recipes train {name}",
            default=TrainArguments(run=RunArguments(), recipe=recipe),
        )
    return chosen.recipe, chosen.run


def _run_path(name: str, chosen: RunArguments) -> Path:
    """Return the run directory, refusing one that is in use in another way than was asked for."""
    if chosen.resume and chosen.overwrite:
        raise UserError("--resume goes on with a run and --overwrite replaces it: choose one")
    if chosen.resume and chosen.run_dir is None:
        latest = RUNS / name / "latest"
        if not latest.exists():
            raise UserError(f"--resume: there is no run in {RUNS / name}")
        return latest.parent / latest.readlink()
    path = chosen.run_dir or new_path(name)
    if chosen.overwrite:
        check_replaceable(path)
    elif not (chosen.resume and (path / "config.json").exists()):
        check_vacant(path)
        if chosen.resume:
            print(f"{path} has no run yet: it starts from the beginning")
    return path


def _recorded_recipe(name: str, path: Path) -> ImageRecipe:
    config = Run(path).config
    recorded = config.pop("recipe", None)
    if recorded != name:
        raise UserError(f"{path} is a run of {recorded}. Received: {name}")
    return from_dict(type(CATALOG[name].recipe), config)


def _result(run: Run) -> str:
    metrics = run.metrics
    warning = f"\nWARNING: {metrics['note']}" if "note" in metrics else ""
    return (
        f"test accuracy {metrics['test_accuracy']:.4f}, loss {metrics['test_loss']:.4f} "
        f"on {metrics['dataset']} (kept epoch {metrics['best_epoch']} of {metrics['epochs']}, "
        f"{metrics['train_seconds']:.0f} s){warning}\n"
        f"report: {run.path / 'report.html'}"
    )


def evaluate(arguments: Sequence[str]) -> None:
    """Score a finished run and print the figures as JSON."""
    with command_line.one_line_errors():
        chosen = tyro.cli(EvaluateArguments, args=list(arguments), prog="python -m recipes evaluate")
    run = Run(chosen.run)
    metrics = run.metrics
    data = _recorded_recipe(metrics["recipe"], run.path).data
    with command_line.quiet_tensorflow():
        from recipes import mnist

    source = chosen.source or metrics["data_source"]
    print(json.dumps(mnist.evaluate(run, dataclasses.replace(data, source=source)), indent=2))


if __name__ == "__main__":
    commands = {"list": list_recipes, "train": train, "evaluate": evaluate}
    sys.exit(command_line.run(commands, HELP, sys.argv[1:]))
