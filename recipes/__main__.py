"""Command line of the recipes: `python -m recipes COMMAND --help`.

Settings are read and checked before TensorFlow is imported: help and errors take no time.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated

import tyro

from recipes import command_line
from recipes.catalog import CATALOG
from recipes.config import (
    ImageRecipe,
    LostWorkerError,
    Recipe,
    RunPruning,
    Sampling,
    UserError,
    from_dict,
    with_settings,
)
from recipes.config.fields import Count, Seed, Settings
from recipes.data.sources import check_source
from recipes.distribution import local_cluster
from recipes.distribution.tf_config import read_cluster
from recipes.generation.prompts import check_language_model, print_texts, read_prompts
from recipes.report.summary import summarize, summarize_compression
from recipes.runs.directory import RUNS, Run
from recipes.runs.flags import parse, parse_flags, value_of
from recipes.runs.lock import release
from recipes.runs.opening import choose_run, finished_run, path_to_resume
from recipes.runs.recipe_lookup import find_recipe, folder_of, read_settings, recorded_recipe

HELP = """usage: python -m recipes COMMAND ...

  list                    every recipe, its parameters and its measured result
  train RECIPE [flags]    train a recipe; train RECIPE --help lists the main flags
  workers N RECIPE [flags]  train a recipe with N processes of this machine, as a cluster of machines would
  finish RUN              end an interrupted run: score its best epoch so far, write its report
  augment RECIPE [flags]  draw training images before and after a recipe's augmentation
  prune RUN [flags]       make a finished run's model smaller, as far as its validation metric allows
  quantize RUN            give a finished run's model int8 weights
  evaluate RUN [flags]    score a finished run on the test part of any source
  compare RUN RUN ...     write a page with the curves and the settings of finished runs
  generate RUN [flags]    generate text with a finished language model
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where the run goes."""

    run_dir: Path | None = None
    """Run directory (None: runs/RECIPE/TIMESTAMP)."""
    resume: bool = False
    """Continue the unfinished run in --run-dir, or the recipe's newest that no process trains, with its
    settings. A process of a cluster (TF_CONFIG) begins a run where --run-dir has none."""
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
class FinishArguments:
    """End an interrupted run: score its best epoch so far on the test part, and write its report."""

    run: tyro.conf.Positional[Path]
    """Run directory, with one epoch at least."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Score a finished run on the test part of any source with the same classes."""

    run: tyro.conf.Positional[Path]
    """Run directory."""
    source: Annotated[str | None, tyro.conf.arg(name="data.source")] = None
    """What to score on, as in `train` (None: what the run was trained on, which must not have changed)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Write a page with the curves, metrics and settings of finished runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, two or more."""
    out: Path = Path("comparison.html")
    """The page to write."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneArguments:
    """Prune a finished run step by step, with training between the steps."""

    run: tyro.conf.Positional[Path]
    """The dense run's directory."""
    pruning: Annotated[RunPruning, tyro.conf.arg(name="")] = RunPruning()
    run_dir: Path | None = None
    """Directory of the new run (None: runs/RECIPE/TIMESTAMP)."""
    resume: bool = False
    """Continue the unfinished pruning in --run-dir, with its settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizeArguments:
    """Give a finished run's model int8 weights, in a new run."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    run_dir: Path | None = None
    """Directory of the new run (None: runs/RECIPE/TIMESTAMP)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateArguments(Settings):
    """Generate text with a finished language model."""

    run: tyro.conf.Positional[Path]
    """Run directory."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Beginning of a text, at least one token; - reads standard input. Repeat it for several texts at once.
    Without it a text begins with a new line."""
    max_new_tokens: Count = 500
    """Tokens to add, at least 1."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling()
    seed: Seed = 0
    """Seed of the draws, 0 to 2**32 - 1."""
    json: bool = False
    """Print a line of JSON for each text: prompt and text."""


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
    usage = f"train RECIPE [flags]\n\nRECIPE is FILE.py, or one of: {', '.join(CATALOG)}"
    name, flags = _recipe_and_flags("train", usage, arguments)
    recipe, where = _parse_training(name, flags)
    check_source(recipe)
    cluster = read_cluster()
    if cluster is not None and not cluster.is_chief:
        _work(name, recipe, where, flags)
        return
    # A launcher of clusters repeats the command when it restarts a process.
    begin = where.run_dir is not None and cluster is not None
    chosen = choose_run(name, where.run_dir, resume=where.resume, overwrite=where.overwrite, begin=begin)
    with chosen as (run, resume):
        if resume and run.finished:
            print(f"{run.path} is finished already: {run.path / 'report.html'}")
            return
        if resume:
            _check_training_run(run)
            recipe, _ = _parse_training(name, flags, run)
        with _advised(run), _lost_worker_advised(name, flags, run.path):
            run = _tasks().task_of(name, recipe).train(run.path, resume=resume)
    print(summarize(run))


def _work(name: str, recipe: Recipe, where: RunArguments, flags: Sequence[str]) -> None:
    """Train with the chief of a cluster, which alone writes the run directory."""
    if where.resume:
        with contextlib.suppress(UserError):  # without a shared disk the flags alone say what to train
            path = where.run_dir or path_to_resume(RUNS / folder_of(name), held=True)
            recipe, _ = _parse_training(name, flags, Run(path))
    with tempfile.TemporaryDirectory() as scratch, _lost_worker_advised(name, flags, where.run_dir):
        _tasks().task_of(name, recipe).train(Path(scratch) / "run", final=False)


def workers(arguments: Sequence[str]) -> None:
    """Train a recipe with several processes of this machine."""
    count = 0
    if arguments and arguments[0] not in ("-h", "--help"):
        number, *arguments = arguments
        if not number.isdecimal() or int(number) < 1:
            raise UserError(f"workers needs a number of processes, at least 1. Received: {number}")
        count = int(number)
    name, flags = _recipe_and_flags("workers", "workers N RECIPE [flags of train]", arguments)
    recipe, where = _parse_training(name, flags)
    check_source(recipe)
    with choose_run(name, where.run_dir, resume=where.resume, overwrite=where.overwrite) as (run, _):
        release(run.path)  # the chief's process locks it
        if where.run_dir is None:
            flags += ["--run-dir", str(run.path)]
        local_cluster.train(count, name, run.path, flags)


def finish(arguments: Sequence[str]) -> None:
    """Finish an interrupted run with the epochs it has."""
    path = parse(FinishArguments, "recipes finish", arguments).run
    recipe, name = recorded_recipe(Run(path).config), Run(path).config["recipe"]
    if read_cluster() is not None:
        raise UserError("finish takes one process: unset TF_CONFIG")
    with choose_run(name, path, resume=True) as (run, _):
        if run.finished:
            raise UserError(f"{run.path} is finished already: {run.path / 'report.html'}")
        _check_training_run(run)
        if not run.checkpoint.exists():
            raise UserError(f"{run.path} has no completed epoch. {run.advice}")
        with _advised(run):
            _tasks().task_of(name, recipe).train(run.path, resume=True, finish=True)
    print(summarize(run))


def augment(arguments: Sequence[str]) -> None:
    """Draw training images before and after a recipe's augmentation."""
    usage = "augment RECIPE [--out preview.png] [flags of train]"
    name, flags = _recipe_and_flags("augment", usage, arguments)
    summary = "Draw training images before and after augmentation."
    default = find_recipe(name).recipe
    recipe, where = parse_flags(f"recipes augment {name}", summary, default, AugmentArguments(), flags)
    if not isinstance(recipe, ImageRecipe):
        raise UserError(f"augment is for recipes of images. Received: {name}")
    check_source(recipe)
    if where.out.suffix.lower() != ".png":
        raise UserError(f"--out must be a .png file. Received: {where.out}")
    where.out.parent.mkdir(parents=True, exist_ok=True)
    _tasks().task_of(name, recipe).preview(where.out)
    print(where.out)


def evaluate(arguments: Sequence[str]) -> None:
    """Score a finished run and print its metrics as JSON."""
    chosen = parse(EvaluateArguments, "recipes evaluate", arguments)
    run = finished_run(chosen.run)
    if chosen.source is not None:
        check_source(with_settings(recorded_recipe(run.config), {"data": {"source": chosen.source}}))
    scores = _tasks().task_of_run(run, chosen.source).evaluate(strict=chosen.source is None)
    if scores["note"]:
        print(f"WARNING: {scores['note']}", file=sys.stderr)
    print(json.dumps(scores, indent=2))


def compare(arguments: Sequence[str]) -> None:
    """Write a page that compares finished runs."""
    chosen = parse(CompareArguments, "recipes compare", arguments)
    runs = [finished_run(path) for path in chosen.runs]
    if len(runs) < 2:
        raise UserError(
            f"compare needs two runs or more. Received: {' '.join(map(str, chosen.runs)) or 'none'}"
        )
    from recipes.report.compared_runs import write_comparison

    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_comparison(chosen.out, runs)
    print(chosen.out)


def prune(arguments: Sequence[str]) -> None:
    """Prune a finished run."""
    default = PruneArguments(run=tyro.MISSING, pruning=_recorded_pruning(arguments))
    chosen = parse(PruneArguments, "recipes prune", arguments, default)
    source = finished_run(chosen.run)
    recorded_recipe(source.config)
    if chosen.resume and chosen.run_dir is None:
        raise UserError("--resume needs --run-dir, the pruning to continue")
    name, offer = source.metrics["recipe"], "--resume continues it"
    with choose_run(name, chosen.run_dir, resume=chosen.resume, offer=offer) as (run, resume):
        if resume and run.finished:
            print(f"{run.path} is finished already: {run.path / 'report.html'}")
            return
        task = _tasks().task_of_run(source)
        from recipes.compression.prune_run import prune_run

        with _advised(run):
            run = prune_run(task, run.path, chosen.pruning, resume=resume)
    print(summarize_compression(run))


def _recorded_pruning(arguments: Sequence[str]) -> RunPruning:
    """Return the settings of the pruning that is resumed, else the defaults."""
    run_dir = value_of("--run-dir", arguments)
    if "--resume" not in arguments or run_dir is None or not Run(Path(run_dir)).started:
        return RunPruning()
    made_from = Run(Path(run_dir)).made_from
    if "structure" not in made_from:
        raise UserError(f"{run_dir} is not a pruned run")
    return from_dict(RunPruning, {name: value for name, value in made_from.items() if name != "run"})


def quantize(arguments: Sequence[str]) -> None:
    """Quantise a finished run."""
    chosen = parse(QuantizeArguments, "recipes quantize", arguments)
    source = finished_run(chosen.run)
    recorded_recipe(source.config)
    with choose_run(source.metrics["recipe"], chosen.run_dir, offer="choose another --run-dir") as (run, _):
        task = _tasks().task_of_run(source)
        from recipes.compression.quantize import quantize_run

        run = quantize_run(task, run.path)
    left = run.metrics["not_quantized"]
    if left:
        print(f"Keras has no int8 for these layers, they stay float32: {', '.join(left)}")
    print(summarize_compression(run))


def generate(arguments: Sequence[str]) -> None:
    """Generate text with a finished language model."""
    chosen = parse(GenerateArguments, "recipes generate", arguments)
    prompts = read_prompts(chosen.prompt)
    run = finished_run(chosen.run)
    check_language_model(run)
    with command_line.quiet_tensorflow():
        from recipes.generation.text_generator import TextGenerator, load

    parts = TextGenerator(*load(run)).stream(
        prompts, max_new_tokens=chosen.max_new_tokens, sampling=chosen.sampling, seed=chosen.seed
    )
    if len(prompts) == 1 and not chosen.json:
        print(prompts[0], end="")
        for part in parts:
            print(part[0], end="", flush=True)
        print()
    else:
        texts = ["".join(text) for text in zip(prompts, *parts, strict=True)]
        print_texts(prompts, texts, as_json=chosen.json)


def _recipe_and_flags(command: str, usage: str, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name of the recipe that the first argument means, and the flags after it.

    Raises:
        UserError: There is no argument, or no such recipe.
        SystemExit: Help was asked for, and is printed.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m recipes {usage}")
        if arguments:
            raise SystemExit(0)
        raise UserError(f"{command} needs the name of a recipe")
    return find_recipe(arguments[0]).name, list(arguments[1:])


def _parse_training(name: str, flags: Sequence[str], run: Run | None = None) -> tuple[Recipe, RunArguments]:
    """Parse the flags of `train`, for the settings of the catalog, of --settings, or of a run to resume."""
    recipe, path = find_recipe(name).recipe, value_of("--settings", flags)
    if run is not None:
        recorded = run.config.get("recipe")
        if recorded != name:
            raise UserError(f"{run.path} is a run of {recorded}. Received: {name}")
        recipe = recorded_recipe(run.config)
    elif path is not None and "--resume" in flags:
        raise UserError("--resume continues with the run's own settings: leave --settings out")
    elif path is not None:
        recipe = read_settings(name, Path(path))
    return parse_flags(f"recipes train {name}", find_recipe(name).summary, recipe, RunArguments(), flags)


def _check_training_run(run: Run) -> None:
    """Refuse a run that `train` does not write itself."""
    if run.made_from or run.owner:
        raise UserError(f"{run.path} is not a run of its own training. {run.advice}")


@contextlib.contextmanager
def _advised(run: Run) -> Iterator[None]:
    """On Ctrl-C print how the run is resumed or finished."""
    try:
        yield
    except KeyboardInterrupt:
        if run.started and not run.finished:
            print(run.advice, file=sys.stderr)
        raise


@contextlib.contextmanager
def _lost_worker_advised(name: str, flags: Sequence[str], path: Path | None) -> Iterator[None]:
    """When a worker of the cluster is lost, add to the error how each process resumes the run."""
    try:
        yield
    except LostWorkerError as error:
        # The run has recorded the settings of a file, and --resume refuses the file.
        given = [] if value_of("--settings", flags) else flags
        again = [flag for flag in given if flag not in ("--resume", "--overwrite")]
        if path is not None and value_of("--run-dir", again) is None:
            again += ["--run-dir", str(path)]
        command = command_line.shell_command("recipes", "train", name, *again, "--resume")
        raise LostWorkerError(f"{error}\nResume, in each process: {command}") from error


def _tasks() -> ModuleType:
    """Import the tasks, and TensorFlow with them."""
    with command_line.quiet_tensorflow():
        from recipes import tasks
    return tasks


COMMANDS: Mapping[str, command_line.Command] = {
    "list": list_recipes,
    "train": train,
    "workers": workers,
    "finish": finish,
    "augment": augment,
    "prune": prune,
    "quantize": quantize,
    "evaluate": evaluate,
    "compare": compare,
    "generate": generate,
}


def main() -> int:
    """Run the command line and return its exit status."""
    return command_line.run(COMMANDS, HELP, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
