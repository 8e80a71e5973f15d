"""Command line of the recipes: `python -m recipes COMMAND --help`.

Settings are read and checked before anything slow is imported, so help and errors answer at once.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

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
    require,
    require_seed,
)
from recipes.distribution import local_cluster
from recipes.distribution.tf_config import read_cluster
from recipes.runs.directory import (
    RUNS,
    Run,
    check_vacant,
    claimed,
    finished_run,
    followed,
    path_to_resume,
    reserved,
)
from recipes.runs.settings import find_recipe, read_settings, recorded_recipe

Own = TypeVar("Own")

HELP = """usage: python -m recipes COMMAND ...

  list                    every recipe, its parameters and its measured result
  train RECIPE [flags]    train a recipe; train RECIPE --help names its flags
  workers N RECIPE [flags]  train a recipe with N processes of this machine, as a cluster of machines would
  finish RUN              end an interrupted run: score its best epoch so far, write its report
  augment RECIPE [flags]  draw training images before and after a recipe's augmentation
  prune RUN [flags]       make a finished run's model smaller, as far as its validation metric allows
  quantize RUN            give a finished run's model int8 weights
  evaluate RUN [flags]    score a finished run on the test part of any source
  generate RUN [flags]    generate text with a finished language model
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where the run goes."""

    run_dir: Path | None = None
    """Run directory (None: runs/RECIPE/TIMESTAMP)."""
    resume: bool = False
    """Continue the unfinished run in --run-dir, or the recipe's newest that no process trains; its settings
    hold. A process of a cluster (TF_CONFIG) begins the run where --run-dir has none."""
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
class PruneArguments:
    """Prune a finished run step by step, with training between the steps."""

    run: tyro.conf.Positional[Path]
    """The dense run's directory."""
    pruning: Annotated[RunPruning, tyro.conf.arg(name="")] = RunPruning()
    run_dir: Path | None = None
    """Directory of the new run (None: runs/RECIPE/TIMESTAMP)."""
    resume: bool = False
    """Continue the unfinished pruning in --run-dir; its settings hold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizeArguments:
    """Give a finished run's model int8 weights, in a new run."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    run_dir: Path | None = None
    """Directory of the new run (None: runs/RECIPE/TIMESTAMP)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateArguments:
    """Generate text with a finished language model."""

    run: tyro.conf.Positional[Path]
    """Run directory."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What a text begins with, at least one token; - reads standard input. Give it again for more
    texts at once. Without it a text begins with a new line."""
    max_new_tokens: int = 500
    """Tokens to add, at least 1."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling()
    seed: int = 0
    """Seed of the draws, 0 to 2**32 - 1."""
    json: bool = False
    """Print a line of JSON a text, with the prompt before what was added."""

    def __post_init__(self) -> None:
        require_seed("--seed", self.seed)


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
    name = _recipe_argument("train", usage, arguments)
    if name is None:
        return
    flags = list(arguments[1:])
    recipe, where = _parse_training(name, _starting_settings(name, flags), flags)
    cluster = read_cluster()
    if cluster is not None and not cluster.is_chief:
        _work(name, recipe, where, flags)
        return
    # A launcher of clusters gives the same command when it begins a process again.
    begin = where.run_dir is not None and cluster is not None
    with _run_path(name, where, begin=begin) as path, reserved(path):
        resume = _check_use(path, where)
        if resume:
            if Run(path).finished:
                print(f"{path} is finished already: {path / 'report.html'}")
                return
            _check_training_run(Run(path))
            recipe, _ = _parse_training(name, _recorded_recipe(name, path), flags)
        try:
            with _advised(Run(path)):
                run = _task(name, recipe).train(path, resume=resume)
        except LostWorkerError as error:
            raise LostWorkerError(f"{error}\n{_in_each_process(name, flags, path)}") from error
    print(_result(run))


def _work(name: str, recipe: Recipe, where: RunArguments, flags: Sequence[str]) -> None:
    """Train with the chief of a cluster, which alone writes the run directory."""
    if where.resume:
        with contextlib.suppress(UserError):  # where no disk is shared, the flags alone say what to train
            path = where.run_dir or path_to_resume(RUNS / find_recipe(name).folder, held=True)
            recipe, _ = _parse_training(name, _recorded_recipe(name, path), flags)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            _task(name, recipe).train(Path(scratch) / "run", final=False)
        except LostWorkerError as error:
            raise LostWorkerError(f"{error}\n{_in_each_process(name, flags, where.run_dir)}") from error


def _in_each_process(name: str, flags: Sequence[str], path: Path | None) -> str:
    """Return the command with which each process of a cluster resumes a run."""
    # The settings of a file are the run's own by now, and --resume refuses the file.
    given = [] if command_line.value_of("--settings", flags) else flags
    again = [flag for flag in given if flag not in ("--resume", "--overwrite")]
    if path is not None and command_line.value_of("--run-dir", again) is None:
        again += ["--run-dir", str(path)]
    return "Resume, in each process: " + command_line.shell_command(
        "recipes", "train", name, *again, "--resume"
    )


def _check_training_run(run: Run) -> None:
    """Refuse a run that something else than `train` writes."""
    if run.made_from or run.owner:
        raise UserError(f"{run.path} is not a run of its own training. {run.advice}")


@contextlib.contextmanager
def _advised(run: Run) -> Iterator[None]:
    """Say how a run is resumed or finished when it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        if (run.path / "config.json").exists() and not run.finished:
            print(run.advice, file=sys.stderr)
        raise


def finish(arguments: Sequence[str]) -> None:
    """Finish an interrupted run with the epochs it has."""
    with command_line.one_line_errors():
        chosen = tyro.cli(FinishArguments, args=list(arguments), prog="python -m recipes finish")
    run = Run(followed(chosen.run))
    recipe, name = recorded_recipe(run.config), run.config["recipe"]
    if read_cluster() is not None:
        raise UserError("finish takes one process: unset TF_CONFIG")
    with reserved(run.path):
        if run.finished:
            raise UserError(f"{run.path} is finished already: {run.path / 'report.html'}")
        _check_training_run(run)
        if not run.checkpoint.exists():
            raise UserError(f"{run.path} has no completed epoch. {run.advice}")
        with _advised(run):
            _task(name, recipe).train(run.path, resume=True, finish=True)
    print(_result(run))


def workers(arguments: Sequence[str]) -> None:
    """Train a recipe with several processes of this machine."""
    usage = "workers N RECIPE [flags of train]"
    if arguments and arguments[0] not in ("-h", "--help"):
        count, *arguments = arguments
        if not count.isdecimal() or int(count) < 1:
            raise UserError(f"workers needs a number of processes, at least 1. Received: {count}")
    name = _recipe_argument("workers", usage, arguments)
    if name is None:
        return
    flags = list(arguments[1:])
    _, where = _parse_training(name, _starting_settings(name, flags), flags)
    with _run_path(name, where) as path:
        with reserved(path):  # for a moment: the chief is going to hold it
            _check_use(path, where)
        if where.run_dir is None:
            flags += ["--run-dir", str(path)]
        try:
            local_cluster.train(int(count), name, path, flags)
        except (KeyboardInterrupt, LostWorkerError):
            if (path / "config.json").exists():
                command = command_line.shell_command(
                    "recipes", "workers", count, name, "--resume", "--run-dir", path
                )
                print(f"Resume with {count} processes: {command}", file=sys.stderr)
            raise


def augment(arguments: Sequence[str]) -> None:
    """Draw what a recipe's augmentation makes of its training images."""
    name = _recipe_argument("augment", "augment RECIPE [--out preview.png] [flags of train]", arguments)
    if name is None:
        return
    flags = list(arguments[1:])
    summary = "Draw training images before and after augmentation."
    recipe, where = parse_flags(
        f"recipes augment {name}", summary, find_recipe(name).recipe, AugmentArguments(), flags
    )
    if not isinstance(recipe, ImageRecipe):
        raise UserError(f"augment is for recipes of images. Received: {name}")
    where.out.parent.mkdir(parents=True, exist_ok=True)
    _task(name, recipe).preview(where.out)
    print(where.out)


def _recipe_argument(command: str, usage: str, arguments: Sequence[str]) -> str | None:
    """Return the name of the recipe that the first argument names; None where help was asked for and printed.

    Raises:
        UserError: There is no argument, or no such recipe.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m recipes {usage}")
        if not arguments:
            raise UserError(f"{command} needs the name of a recipe")
        return None
    return find_recipe(arguments[0]).name


def _task(name: str, recipe: Recipe) -> Any:
    with command_line.quiet_tensorflow():
        from recipes.tasks import task_of

        return task_of(name, recipe)


def _task_of_run(run: Run, data_source: str | None = None) -> Any:
    with command_line.quiet_tensorflow():
        from recipes.tasks import task_of_run

        return task_of_run(run, data_source)


def _parse_training(name: str, recipe: Recipe, flags: Sequence[str]) -> tuple[Recipe, RunArguments]:
    return parse_flags(f"recipes train {name}", find_recipe(name).summary, recipe, RunArguments(), flags)


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
        return find_recipe(name).recipe
    if "--resume" in flags:
        raise UserError("--resume continues with the run's own settings: leave --settings out")
    return read_settings(name, Path(path))


@contextlib.contextmanager
def _run_path(name: str, chosen: RunArguments, *, begin: bool = False) -> Iterator[Path]:
    """Give the run directory: the one that is named, the one to resume, or a new one that is claimed.

    Args:
        name: The recipe's name.
        chosen: What is asked for.
        begin: Whether --resume begins a run where there is none.
    """
    if chosen.resume and chosen.overwrite:
        raise UserError("--resume continues a run and --overwrite replaces it: choose one")
    if chosen.run_dir is None:
        if chosen.resume:
            yield path_to_resume(RUNS / find_recipe(name).folder)
            return
        with claimed(RUNS / find_recipe(name).folder) as path:
            yield path
        return
    path = followed(chosen.run_dir)
    if path.name == "latest":
        raise UserError(f"{path} is the link to the newest finished run. Choose another --run-dir")
    if chosen.resume and not begin and not (path / "config.json").exists():
        raise UserError(f"--resume: no run has begun in {path}. Without --resume one begins there")
    if not path.is_dir():
        check_vacant(path, "")
    yield path


def _check_use(
    path: Path, chosen: RunArguments, offer: str = "--resume continues it, --overwrite replaces it"
) -> bool:
    """Tell whether a run is there to be resumed; refuse a directory in use in another way than was asked for."""
    begun = (path / "config.json").exists()
    if not (begun and (chosen.resume or chosen.overwrite)):
        check_vacant(path, offer)
    return begun and chosen.resume


def _recorded_recipe(name: str, path: Path) -> Recipe:
    config = Run(path).config
    recorded = config.get("recipe")
    if recorded != name:
        raise UserError(f"{path} is a run of {recorded}. Received: {name}")
    return recorded_recipe(config)


def _result(run: Run) -> str:
    metrics = run.metrics
    warning = f"\nWARNING: {metrics['note']}" if "note" in metrics else ""
    ended = f", {metrics['status']}" if "status" in metrics else ""
    known = ("exact_match", "accuracy", "r2", "mae", "loss", "perplexity", "bits_per_character")
    figures = [
        f"{name.replace('_', ' ')} {metrics[f'test_{name}']:.4f}"
        for name in known
        if f"test_{name}" in metrics
    ]
    return (
        f"test {', '.join(figures)} on {metrics['dataset']} (kept epoch {metrics['best_epoch']} "
        f"of {metrics['epochs']}{ended}, {metrics['train_seconds']:.0f} s){warning}\n"
        f"report: {run.path / 'report.html'}"
    )


def evaluate(arguments: Sequence[str]) -> None:
    """Score a finished run and print the figures as JSON."""
    with command_line.one_line_errors():
        chosen = tyro.cli(EvaluateArguments, args=list(arguments), prog="python -m recipes evaluate")
    run = finished_run(chosen.run)
    scores = _task_of_run(run, chosen.source).evaluate(strict=chosen.source is None)
    if scores["note"]:
        print(f"WARNING: {scores['note']}", file=sys.stderr)
    print(json.dumps(scores, indent=2))


def prune(arguments: Sequence[str]) -> None:
    """Prune a finished run."""
    run_dir = command_line.value_of("--run-dir", arguments)
    default = PruneArguments(run=tyro.MISSING, pruning=_recorded_pruning(run_dir, arguments))
    with command_line.one_line_errors():
        chosen = tyro.cli(
            PruneArguments, args=list(arguments), prog="python -m recipes prune", default=default
        )
    source = finished_run(chosen.run)
    recorded_recipe(source.config)
    require(
        not chosen.resume or chosen.run_dir is not None, "--resume needs --run-dir", run_dir=chosen.run_dir
    )
    where = RunArguments(run_dir=chosen.run_dir, resume=chosen.resume)
    with _run_path(source.metrics["recipe"], where) as path, reserved(path):
        resume = _check_use(path, where, "--resume continues it")
        if resume and Run(path).finished:
            print(f"{path} is finished already: {path / 'report.html'}")
            return
        task = _task_of_run(source)
        from recipes.compression.prune_run import prune_run

        with _advised(Run(path)):
            run = prune_run(task, path, chosen.pruning, resume=resume)
    print(_compressed(run))


def _recorded_pruning(run_dir: str | None, arguments: Sequence[str]) -> RunPruning:
    """Return the settings of the pruning that is resumed, else the defaults."""
    if "--resume" not in arguments or run_dir is None or not (Path(run_dir) / "config.json").exists():
        return RunPruning()
    made_from = Run(Path(run_dir)).made_from
    if "structure" not in made_from:
        raise UserError(f"{run_dir} is not a pruned run")
    return from_dict(RunPruning, {name: value for name, value in made_from.items() if name != "run"})


def quantize(arguments: Sequence[str]) -> None:
    """Quantise a finished run."""
    with command_line.one_line_errors():
        chosen = tyro.cli(QuantizeArguments, args=list(arguments), prog="python -m recipes quantize")
    source = finished_run(chosen.run)
    recorded_recipe(source.config)
    where = RunArguments(run_dir=chosen.run_dir)
    with _run_path(source.metrics["recipe"], where) as path, reserved(path):
        _check_use(path, where, "choose another --run-dir")
        task = _task_of_run(source)
        from recipes.compression.quantize_run import quantize_run

        run = quantize_run(task, path)
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
    """Generate texts."""
    with command_line.one_line_errors():
        chosen = tyro.cli(GenerateArguments, args=list(arguments), prog="python -m recipes generate")
    prompts = command_line.read_prompts(chosen.prompt)
    run = finished_run(chosen.run)
    with command_line.quiet_tensorflow():
        from recipes.generation.text_generator import TextGenerator, load

    generator = TextGenerator(*load(run))
    parts = generator.stream(
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
        "finish": finish,
        "workers": workers,
        "augment": augment,
        "prune": prune,
        "quantize": quantize,
        "evaluate": evaluate,
        "generate": generate,
    }
    sys.exit(command_line.run(commands, HELP, sys.argv[1:]))
