"""Command line of the search: `python -m tuning COMMAND --help`."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from recipes import command_line
from recipes.catalog import CATALOG
from recipes.config import UserError, require
from recipes.runs.files import follow, point_latest
from recipes.runs.flags import parse_flags
from recipes.runs.lock import claimed
from recipes.runs.settings import find_recipe
from tuning.plan import SEARCHES, Method, Plan, SearchDirectory, make_plan, open_search

Own = TypeVar("Own", "SearchArguments", "ChiefArguments")

HELP = """usage: python -m tuning COMMAND ...

  search RECIPE [flags]   search batch size, learning rate and other settings of a recipe
  report SEARCH           write a search's tables and report again
  chief RECIPE [flags]    lead a search whose trials are trained by workers on any machines
  worker [flags]          train trials for a chief
"""

SPACE = """
The space is batch size and learning rate; --space.NAME adds any other setting, or another range:
  --space.training.batch-size 32:256               the powers of two in the range
  --space.optimizer.weight-decay 1e-5:1e-1:log     even on a log scale
  --space.model.dropout 0:0.5
  --space.schedule.name cosine,wsd
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchArguments:
    """Where the search goes, and who works on it."""

    search_dir: Path | None = None
    """Search directory (None: searches/RECIPE/TIMESTAMP)."""
    resume: bool = False
    """Go on with the search in --search-dir, or with the recipe's latest; what it began with holds."""
    workers: int = 1
    """Trials at once, each in a process of its own with its share of the cores, at least 1."""
    threads: int | None = None
    """Threads of each trial, at least 1 (None: the cores shared out)."""
    method: Annotated[Method, tyro.conf.arg(name="")] = Method()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChiefArguments:
    """Where the search goes, and where its workers find it."""

    search_dir: Path
    """Search directory, on a file system that chief and workers share."""
    address: str = "0.0.0.0:8765"
    """HOST:PORT to listen on."""
    resume: bool = False
    """Go on with the search in --search-dir; what it began with holds."""
    method: Annotated[Method, tyro.conf.arg(name="")] = Method()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """Train trials for a chief."""

    search_dir: Path
    """The chief's search directory."""
    address: str
    """The chief's HOST:PORT."""
    chief_timeout: float = 60.0
    """Seconds to wait for a chief that does not answer."""
    threads: int | None = None
    """Threads of a trial, at least 1 (None: all cores)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Write a search's tables and report again."""

    search: tyro.conf.Positional[Path]
    """Search directory."""


def search(arguments: Sequence[str]) -> None:
    """Search on this machine."""
    name, space, flags = _split("search", arguments)
    recorded = _recorded_path(name, flags)
    own, plan = _parse("search", name, space, flags, recorded, SearchArguments())
    require(own.workers >= 1, "--workers must be at least 1", workers=own.workers)
    threads = _threads(own.threads, own.workers)
    with (
        contextlib.nullcontext(recorded)
        if recorded
        else claimed(SEARCHES / find_recipe(name).folder) as path,
        open_search(path, plan, resume=own.resume) as directory,
    ):
        with command_line.quiet_tensorflow():
            from tuning.search import run_search
        if path.parent.parent == SEARCHES:
            point_latest(path)
        with _said_how_to_go_on("search", name, path):
            run_search(directory, workers=own.workers, threads=threads)


def chief(arguments: Sequence[str]) -> None:
    """Lead a search of workers."""
    name, space, flags = _split("chief", arguments)
    path = _recorded_path(name, flags)
    if path is None:
        raise UserError("chief needs --search-dir, a folder that its workers see too")
    own, plan = _parse("chief", name, space, flags, path, ChiefArguments(search_dir=path))
    host, port = _address(own.address)
    with open_search(path, plan, resume=own.resume) as directory:
        with command_line.quiet_tensorflow():
            from tuning import distributed
        with _said_how_to_go_on("chief", name, path):
            distributed.lead(directory, host, port)


def worker(arguments: Sequence[str]) -> None:
    """Train trials for a chief."""
    with command_line.one_line_errors():
        own = tyro.cli(WorkerArguments, args=list(arguments), prog="python -m tuning worker")
    require(own.chief_timeout > 0, "--chief-timeout must be above 0", chief_timeout=own.chief_timeout)
    host, port = _address(own.address)
    threads = _threads(own.threads, 1)
    with command_line.quiet_tensorflow():
        from tuning import distributed
    distributed.work(SearchDirectory(own.search_dir), host, port, threads=threads, patience=own.chief_timeout)


def report(arguments: Sequence[str]) -> None:
    """Write a search's report again."""
    with command_line.one_line_errors():
        chosen = tyro.cli(ReportArguments, args=list(arguments), prog="python -m tuning report")
    directory = SearchDirectory(chosen.search)
    plan = directory.read_plan()
    with command_line.quiet_tensorflow():
        from tuning.search import finish
    finish(directory, plan)


def _split(command: str, arguments: Sequence[str]) -> tuple[str, dict[str, str], list[str]]:
    """Return the recipe's name, the --space flags by setting, and all other flags."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: python -m tuning {command} RECIPE [flags]\n{SPACE}\nRECIPE is FILE.py, or one of: {', '.join(CATALOG)}"
        )
        if arguments:
            raise SystemExit(0)
        raise UserError(f"{command} needs the name of a recipe")
    name, *rest = arguments
    name = find_recipe(name).name
    space: dict[str, str] = {}
    flags: list[str] = []
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--space."):
            flags.append(flag)
            continue
        setting, equals, text = flag.removeprefix("--space.").partition("=")
        if not equals:
            require(bool(rest), f"{flag} needs a range or values", received="nothing")
            text = rest.pop(0)
        space[setting.replace("-", "_")] = text
    return name, space, flags


def _recorded_path(name: str, flags: Sequence[str]) -> Path | None:
    """Return the search directory that is named, or on --resume the recipe's latest; None for a new one."""
    given = command_line.value_of("--search-dir", flags)
    if given is not None:
        return Path(given)
    if "--resume" not in flags:
        return None
    latest = SEARCHES / find_recipe(name).folder / "latest"
    if not latest.exists():
        raise UserError(f"--resume: there is no search in {latest.parent}")
    return follow(latest)


def _parse(
    command: str, name: str, space: dict[str, str], flags: Sequence[str], path: Path | None, own: Own
) -> tuple[Own, Plan]:
    """Parse a command's flags, whose defaults on --resume are what the search there began with."""
    recipe = find_recipe(name).recipe
    if path is not None and "--resume" in flags and SearchDirectory(path).plan_path.exists():
        recorded = SearchDirectory(path).read_plan()
        if recorded.name != name:
            raise UserError(f"{path} is a search of {recorded.name}. Received: {name}")
        recipe, space = recorded.recipe, {**recorded.space, **space}
        own = dataclasses.replace(own, method=recorded.method)
    summary = f"{find_recipe(name).summary}\n{SPACE}"
    recipe, own = parse_flags(f"tuning {command} {name}", summary, recipe, own, flags)
    return own, make_plan(name, recipe, space, own.method)


def _threads(chosen: int | None, workers: int) -> int:
    """Return the threads of a trial: those that are asked for, or its share of the cores."""
    require(chosen is None or chosen >= 1, "--threads must be at least 1", threads=chosen)
    return chosen or max(1, (os.cpu_count() or 1) // workers)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    fits = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
    require(fits, "--address must be HOST:PORT", address=text)
    return host, int(port)


@contextlib.contextmanager
def _said_how_to_go_on(command: str, name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        again = command_line.shell_command("tuning", command, name, "--resume", "--search-dir", path)
        print(f"Resume: {again}", file=sys.stderr)
        raise


if __name__ == "__main__":
    commands = {"search": search, "report": report, "chief": chief, "worker": worker}
    sys.exit(command_line.run(commands, HELP, sys.argv[1:]))
