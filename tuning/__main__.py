"""Command line of the search: `python -m tuning COMMAND --help`."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from recipes import command_line
from recipes.catalog import CATALOG
from recipes.config import UserError, require
from recipes.data.sources import check_source
from recipes.runs.files import follow, point_latest
from recipes.runs.flags import parse, parse_flags, value_of
from recipes.runs.lock import claimed
from recipes.runs.recipe_lookup import find_recipe
from tuning.directory import SearchDirectory, open_search
from tuning.plan import Method, make_plan

SEARCHES = Path("searches")
Own = TypeVar("Own", "SearchArguments", "ChiefArguments")

HELP = """usage: python -m tuning COMMAND ...

  search RECIPE [flags]   search batch size, learning rate and other settings of a recipe
  report SEARCH           write the tables and the report of a search again
  chief RECIPE [flags]    coordinate a search whose trials are trained by workers on any machines
  worker [flags]          train trials for a chief
"""

SPACE = """
The search space is batch size and learning rate; --space.NAME adds any other setting, or changes a range:
  --space.training.batch-size 32:256               the powers of two in the range
  --space.optimizer.weight-decay 1e-5:1e-1:log     uniform on a log scale
  --space.model.dropout 0:0.5
  --space.schedule.name cosine,wsd
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchArguments:
    """Arguments of `search`."""

    search_dir: Path | None = None
    """Search directory (None: searches/RECIPE/TIMESTAMP)."""
    resume: bool = False
    """Continue the search in --search-dir, or the recipe's latest, with its own settings."""
    workers: int = 1
    """Number of trials at once, at least 1; each has its own process and its share of the cores."""
    threads: int | None = None
    """Threads of each trial, at least 1 (None: its share of the cores)."""
    method: Annotated[Method, tyro.conf.arg(name="")] = Method()

    def __post_init__(self) -> None:
        require(self.workers >= 1, "--workers must be at least 1", workers=self.workers)
        _check_threads(self.threads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChiefArguments:
    """Arguments of `chief`."""

    search_dir: Path | None = None
    """Search directory, on a file system shared with the workers; required."""
    address: str = "127.0.0.1:8765"
    """HOST:PORT to listen on; 0.0.0.0:PORT accepts workers on other machines."""
    resume: bool = False
    """Continue the search in --search-dir with its own settings."""
    method: Annotated[Method, tyro.conf.arg(name="")] = Method()

    def __post_init__(self) -> None:
        _host_and_port(self.address)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """Arguments of `worker`."""

    search_dir: Path
    """The chief's search directory."""
    address: str
    """The chief's HOST:PORT."""
    chief_timeout: float = 60.0
    """Seconds to wait for a chief that does not answer, above 0."""
    threads: int | None = None
    """Threads of a trial, at least 1 (None: all cores)."""

    def __post_init__(self) -> None:
        require(self.chief_timeout > 0, "--chief-timeout must be above 0", chief_timeout=self.chief_timeout)
        _check_threads(self.threads)
        _host_and_port(self.address)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Arguments of `report`."""

    search: tyro.conf.Positional[Path]
    """Search directory."""


def search(arguments: Sequence[str]) -> None:
    """Search on this machine."""
    with _opened("search", arguments, SearchArguments()) as (own, directory):
        with command_line.quiet_tensorflow():
            from tuning.run import run_search
        if directory.path.parent.parent == SEARCHES:
            point_latest(directory.path)
        threads = own.threads or max(1, (os.cpu_count() or 1) // own.workers)
        run_search(directory, workers=own.workers, threads=threads)


def chief(arguments: Sequence[str]) -> None:
    """Coordinate a search with workers on any machines."""
    with _opened("chief", arguments, ChiefArguments()) as (own, directory):
        with command_line.quiet_tensorflow():
            from tuning.run import run_chief
        run_chief(directory, *_host_and_port(own.address))


def worker(arguments: Sequence[str]) -> None:
    """Train trials for a chief."""
    own = parse(WorkerArguments, "tuning worker", arguments)
    with command_line.quiet_tensorflow():
        from tuning.run import run_worker
    threads = own.threads or os.cpu_count() or 1
    run_worker(SearchDirectory(own.search_dir), own.address, threads=threads, timeout=own.chief_timeout)


def report(arguments: Sequence[str]) -> None:
    """Write the tables and the report of a search again."""
    directory = SearchDirectory(parse(ReportArguments, "tuning report", arguments).search)
    _ = directory.plan
    with command_line.quiet_tensorflow():
        from tuning.run import finish
    finish(directory)


@contextlib.contextmanager
def _opened(command: str, arguments: Sequence[str], own: Own) -> Iterator[tuple[Own, SearchDirectory]]:
    """Parse the arguments of a command and hold its search directory.

    With --resume, the defaults are the settings of the search. If Ctrl-C or SIGTERM interrupts it, the command that
    resumes it is printed.
    """
    name, space, flags = _split(command, arguments)
    found = find_recipe(name)
    path = _recorded_path(SEARCHES / found.folder, flags)
    recipe = found.recipe
    if path is not None and "--resume" in flags and SearchDirectory(path).plan_path.exists():
        recorded = SearchDirectory(path).plan
        if recorded.name != name:
            raise UserError(f"{path} is a search of {recorded.name}. Received: {name}")
        recipe, space = recorded.recipe, {**recorded.space, **space}
        own = dataclasses.replace(own, method=recorded.method)
    recipe, own = parse_flags(f"tuning {command} {name}", f"{found.summary}\n{SPACE}", recipe, own, flags)
    check_source(recipe)
    if path is None and command == "chief":
        raise UserError("chief needs --search-dir, a folder that its workers see too")
    plan = make_plan(name, recipe, space, own.method)
    place = claimed(SEARCHES / found.folder) if path is None else contextlib.nullcontext(path)
    with place as path, open_search(path, plan, resume=own.resume) as directory:
        try:
            yield own, directory
        except KeyboardInterrupt:
            resume = command_line.shell_command("tuning", command, name, "--resume", "--search-dir", path)
            print(f"Resume: {resume}", file=sys.stderr)
            raise


def _split(command: str, arguments: Sequence[str]) -> tuple[str, dict[str, str], list[str]]:
    """Return the recipe's name, the range or choices of each --space flag, and all other flags."""
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


def _recorded_path(folder: Path, flags: Sequence[str]) -> Path | None:
    """Return the given search directory, or with --resume the latest in a folder; None for a new one."""
    given = value_of("--search-dir", flags)
    if given is not None or "--resume" not in flags:
        return Path(given) if given is not None else None
    if not (folder / "latest").exists():
        raise UserError(f"--resume: there is no search in {folder}")
    return follow(folder / "latest")


def _check_threads(threads: int | None) -> None:
    require(threads is None or threads >= 1, "--threads must be at least 1", threads=threads)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    valid = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
    require(valid, "--address must be HOST:PORT", address=address)
    return host, int(port)


COMMANDS: Mapping[str, command_line.Command] = {
    "search": search,
    "report": report,
    "chief": chief,
    "worker": worker,
}


def main() -> int:
    """Run the command line and return its exit status."""
    return command_line.run(COMMANDS, HELP, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
