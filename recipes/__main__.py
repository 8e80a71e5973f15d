"""Command line of the recipes: `python -m recipes COMMAND --help`.

Settings are read and checked before anything slow is imported, so help and errors answer at once.
"""

import dataclasses
import json
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from recipes import command_line, local_cluster
from recipes.catalog import CATALOG
from recipes.cluster import read_cluster
from recipes.config import ImageRecipe, Recipe, RunPruning, Sampling, UserError, nearest, require
from recipes.kinds import module_of
from recipes.run import RUNS, Run, check_replaceable, check_vacant, followed, latest_path, new_path
from recipes.settings import read_settings, recorded_recipe

Own = TypeVar("Own")

HELP = """usage: python -m recipes COMMAND ...

  list                    every recipe, its parameters and its measured result
  train RECIPE [flags]    train a recipe; train RECIPE --help names its flags
  workers N RECIPE [flags]  train a recipe with N processes of this machine, as a cluster of machines would
  augment RECIPE [flags]  draw training images before and after a recipe's augmentation
  prune RUN [flags]       make a finished run's model smaller, as far as its validation metric allows
  quantize RUN            give a finished run's model int8 weights
  evaluate RUN [flags]    score a finished run on the test part of any source
  generate RUN [flags]    go on with a text, by a finished language model
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
    settings: Path | None = None
    """Settings to start from instead of the catalog's: a search's best.json or a run's config.json.
    Other flags override it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentArguments:
    """Where the picture goes."""

    out: Path = Path("preview.png")
    """The PNG to write."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Score a finished run on the test part of any source with the same classes."""

    run: tyro.conf.Positional[Path]
    """Run directory."""
    source: Annotated[str | None, tyro.conf.arg(name="data.source")] = None
    """What to score on, as in `train` (None: what the run was trained on)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneArguments:
    """Prune a finished run step by step, with training between the steps."""

    run: tyro.conf.Positional[Path]
    """The dense run's directory."""
    pruning: Annotated[RunPruning, tyro.conf.arg(name="")] = RunPruning()
    run_dir: Path | None = None
    """Directory of the new run (None: runs/RECIPE/TIMESTAMP)."""
    resume: bool = False
    """Go on with the unfinished pruning in --run-dir."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizeArguments:
    """Give a finished run's model int8 weights, in a new run."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    run_dir: Path | None = None
    """Directory of the new run (None: runs/RECIPE/TIMESTAMP)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateArguments:
    """Go on with texts, by a finished language model."""

    run: tyro.conf.Positional[Path]
    """Run directory."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What a text begins with, at least one token; - reads standard input. Give it again for more
    texts at once. Without it a text begins with a new line."""
    max_new_tokens: int = 500
    """Tokens to add, at least 1."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling()
    seed: int = 0
    """Seed of the draws, at least 0."""
    json: bool = False
    """Print a line of JSON a text, with the prompt before what was added."""


def list_recipes(arguments: Sequence[str]) -> None:
    """Print the catalog."""
    if arguments:
        raise UserError(f"list takes no arguments. Received: {' '.join(arguments)}")
    width = max(map(len, CATALOG))
    for name, entry in CATALOG.items():
        print(f"{name:{width}} {entry.parameters:>9,} parameters   {entry.measured}")
        print(textwrap.indent(entry.summary, " " * (width + 1)))


def train(arguments: Sequence[str]) -> None:
    """Train a recipe."""
    usage = f"train RECIPE [flags]\n\nRECIPE is one of: {', '.join(CATALOG)}"
    if not _names_a_recipe("train", usage, arguments):
        return
    name, flags = arguments[0], list(arguments[1:])
    recipe, where = _parse_training(name, _starting_settings(name, flags), flags)
    cluster = read_cluster()
    chief = cluster is None or cluster.is_chief
    path = _run_path(name, where) if chief else where.run_dir or RUNS / name / "latest"
    going_on = where.resume and (path / "config.json").exists()
    if going_on:
        if Run(path).finished:
            print(f"{path} is finished already: {path / 'report.html'}")
            return
        recipe, _ = _parse_training(name, _recorded_recipe(name, path), flags)
    if not chief:
        _work(name, recipe)
        return
    try:
        run = _module(recipe).train(name, recipe, path, resume=going_on)
    except KeyboardInterrupt:
        if (path / "status.json").exists():
            print(f"Go on with: python -m recipes train {name} --resume --run-dir {path}", file=sys.stderr)
        raise
    print(_result(run))


def _work(name: str, recipe: Recipe) -> None:
    """Train with the chief of a cluster, which alone writes the run directory."""
    with tempfile.TemporaryDirectory() as scratch:
        _module(recipe).train(name, recipe, Path(scratch) / "run", final=False)


def workers(arguments: Sequence[str]) -> None:
    """Train a recipe with several processes of this machine."""
    usage = "workers N RECIPE [flags of train]"
    if arguments and arguments[0] not in ("-h", "--help"):
        count, *arguments = arguments
        if not count.isdecimal() or int(count) < 1:
            raise UserError(f"workers needs a number of processes, at least 1. Received: {count}")
    if not _names_a_recipe("workers", usage, arguments):
        return
    name, flags = arguments[0], list(arguments[1:])
    _, where = _parse_training(name, _starting_settings(name, flags), flags)
    path = _run_path(name, where)
    if where.run_dir is None:
        flags += ["--run-dir", str(path)]
    local_cluster.train(int(count), name, path, flags)


def augment(arguments: Sequence[str]) -> None:
    """Draw what a recipe's augmentation makes of its training images."""
    if not _names_a_recipe("augment", "augment RECIPE [--out preview.png] [flags of train]", arguments):
        return
    name, flags = arguments[0], list(arguments[1:])
    summary = "Draw training images before and after augmentation."
    recipe, where = parse_flags(
        f"recipes augment {name}", summary, CATALOG[name].recipe, AugmentArguments(), flags
    )
    if not isinstance(recipe, ImageRecipe):
        raise UserError(f"augment is for recipes of images. Received: {name}")
    where.out.parent.mkdir(parents=True, exist_ok=True)
    with command_line.quiet_tensorflow():
        from recipes.preview import preview

    preview(recipe, where.out)
    print(where.out)


def _names_a_recipe(command: str, usage: str, arguments: Sequence[str]) -> bool:
    """Tell whether the first argument is a recipe; where help was asked for, it is printed instead.

    Raises:
        UserError: There is no argument, or no such recipe.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m recipes {usage}")
        if not arguments:
            raise UserError(f"{command} needs the name of a recipe")
        return False
    if arguments[0] not in CATALOG:
        raise UserError(f"There is no recipe {arguments[0]!r}. {nearest(arguments[0], CATALOG)}")
    return True


def _module(recipe: Recipe) -> Any:
    with command_line.quiet_tensorflow():
        return module_of(recipe)


def _parse_training(name: str, recipe: Recipe, flags: Sequence[str]) -> tuple[Recipe, RunArguments]:
    return parse_flags(f"recipes train {name}", CATALOG[name].summary, recipe, RunArguments(), flags)


def parse_flags(
    command: str, summary: str, recipe: Recipe, own: Own, flags: Sequence[str]
) -> tuple[Recipe, Own]:
    """Parse a command's own flags with those of a recipe, whose settings are their defaults.

    Args:
        command: What stands after `python -m` in the help.
        summary: The help's first line.
        recipe: Settings to start from.
        own: The command's own arguments, with their defaults.
        flags: The command line.
    """
    recipe_kind, own_kind = type(recipe), type(own)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Arguments:
        __doc__ = summary
        own: Annotated[own_kind, tyro.conf.arg(name="")]  # type: ignore[valid-type]
        recipe: Annotated[recipe_kind, tyro.conf.arg(name="")]  # type: ignore[valid-type]

    with command_line.one_line_errors():
        default = Arguments(own=own, recipe=recipe)
        chosen = tyro.cli(Arguments, args=flags, prog=f"python -m {command}", default=default)
    return chosen.recipe, chosen.own


def _starting_settings(name: str, flags: Sequence[str]) -> Recipe:
    """Return the catalog's settings, or those of the file that --settings names."""
    path = command_line.value_of("--settings", flags)
    if path is None:
        return CATALOG[name].recipe
    if "--resume" in flags:
        raise UserError("--resume goes on with the run's own settings: leave --settings out")
    return read_settings(name, Path(path))


def _run_path(name: str, chosen: RunArguments) -> Path:
    """Return the run directory, refusing one that is in use in another way than was asked for."""
    if chosen.resume and chosen.overwrite:
        raise UserError("--resume goes on with a run and --overwrite replaces it: choose one")
    if chosen.resume and chosen.run_dir is None:
        return latest_path(RUNS / name, "run")
    path = chosen.run_dir or new_path(RUNS / name)
    if chosen.overwrite:
        check_replaceable(path)
    elif not (chosen.resume and (path / "config.json").exists()):
        check_vacant(path)
        if chosen.resume:
            print(f"{path} has no run yet: it starts from the beginning")
    return path


def _recorded_recipe(name: str, path: Path) -> Recipe:
    config = Run(path).config
    recorded = config.get("recipe")
    if recorded != name:
        raise UserError(f"{path} is a run of {recorded}. Received: {name}")
    return recorded_recipe(config)


def _result(run: Run) -> str:
    metrics = run.metrics
    warning = f"\nWARNING: {metrics['note']}" if "note" in metrics else ""
    known = ("exact_match", "accuracy", "r2", "mae", "loss", "perplexity", "bits_per_character")
    figures = [
        f"{name.replace('_', ' ')} {metrics[f'test_{name}']:.4f}"
        for name in known
        if f"test_{name}" in metrics
    ]
    return (
        f"test {', '.join(figures)} on {metrics['dataset']} (kept epoch {metrics['best_epoch']} "
        f"of {metrics['epochs']}, {metrics['train_seconds']:.0f} s){warning}\n"
        f"report: {run.path / 'report.html'}"
    )


def evaluate(arguments: Sequence[str]) -> None:
    """Score a finished run and print the figures as JSON."""
    with command_line.one_line_errors():
        chosen = tyro.cli(EvaluateArguments, args=list(arguments), prog="python -m recipes evaluate")
    run = Run(chosen.run)
    metrics = run.metrics
    recipe = _recorded_recipe(metrics["recipe"], run.path)
    data = dataclasses.replace(recipe.data, source=chosen.source or metrics["data_source"])
    print(json.dumps(_module(recipe).evaluate(run, data), indent=2))


def prune(arguments: Sequence[str]) -> None:
    """Prune a finished run."""
    with command_line.one_line_errors():
        chosen = tyro.cli(PruneArguments, args=list(arguments), prog="python -m recipes prune")
    source = Run(followed(chosen.run))
    recipe = source.metrics["recipe"]  # an unfinished run is refused before anything slow
    require(
        not chosen.resume or chosen.run_dir is not None, "--resume needs --run-dir", run_dir=chosen.run_dir
    )
    path = _run_path(recipe, RunArguments(run_dir=chosen.run_dir, resume=chosen.resume))
    going_on = chosen.resume and (path / "config.json").exists()
    if going_on and Run(path).finished:
        print(f"{path} is finished already: {path / 'report.html'}")
        return
    with command_line.quiet_tensorflow():
        from recipes import pruned_run

    try:
        run = pruned_run.prune(source, path, chosen.pruning, resume=going_on)
    except KeyboardInterrupt:
        print(f"Go on with the same flags and: --resume --run-dir {path}", file=sys.stderr)
        raise
    print(_compressed(run))


def quantize(arguments: Sequence[str]) -> None:
    """Quantise a finished run."""
    with command_line.one_line_errors():
        chosen = tyro.cli(QuantizeArguments, args=list(arguments), prog="python -m recipes quantize")
    source = Run(followed(chosen.run))
    path = _run_path(source.metrics["recipe"], RunArguments(run_dir=chosen.run_dir))
    with command_line.quiet_tensorflow():
        from recipes import quantized_run

    run = quantized_run.quantize_run(source, path)
    left = run.metrics["not_quantized"]
    if left:
        print(f"Keras has no int8 for these layers, they stay float32: {', '.join(left)}")
    print(_compressed(run))


def _compressed(run: Run) -> str:
    """Say what became of a model."""
    metrics = run.metrics
    before, after = metrics["compression"]["before"], metrics["compression"]["after"]
    figures = ("nonzero_parameters", "multiply_adds", "model_bytes")
    changes = [f"{name.replace('_', ' ')} {before[name]:,} → {after[name]:,}" for name in figures]
    kept = next(name for name in metrics if name.startswith("dense_"))
    metric = kept.removeprefix("dense_")
    return f"{', '.join(changes)}\n{metric} {metrics[kept]:.4f} → {metrics[metric]:.4f}\n{_result(run)}"


def generate(arguments: Sequence[str]) -> None:
    """Go on with texts."""
    with command_line.one_line_errors():
        chosen = tyro.cli(GenerateArguments, args=list(arguments), prog="python -m recipes generate")
    prompts = command_line.read_prompts(chosen.prompt)
    run = Run(chosen.run)
    _ = run.metrics  # an unfinished run is refused before anything slow
    with command_line.quiet_tensorflow():
        from recipes.completion import Writer, load

    writer = Writer(*load(run))
    parts = writer.write(
        prompts, max_new_tokens=chosen.max_new_tokens, sampling=chosen.sampling, seed=chosen.seed
    )
    if len(prompts) == 1 and not chosen.json:
        print(prompts[0], end="")
        for part in parts:
            print(part[0], end="", flush=True)
        print()
    else:
        texts = ["".join(text) for text in zip(prompts, *parts, strict=True)]
        command_line.print_texts(prompts, texts, as_json=chosen.json)


if __name__ == "__main__":
    commands = {
        "list": list_recipes,
        "train": train,
        "workers": workers,
        "augment": augment,
        "prune": prune,
        "quantize": quantize,
        "evaluate": evaluate,
        "generate": generate,
    }
    sys.exit(command_line.run(commands, HELP, sys.argv[1:]))
