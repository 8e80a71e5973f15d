"""Searches in processes of their own, as a user starts them, and the check of their trials' files."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.processes import children

ROOT = Path(__file__).parents[2]
TINY = ("--data.source", "digits", "--model.dense", "8", "--training.epochs", "2")


def command(*arguments: object) -> list[str]:
    """Return the command line of a search."""
    return [sys.executable, "-m", "tuning", *map(str, arguments)]


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Start a command of the search."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the search to its end."""
    with start(*arguments, cwd=cwd) as process:
        output, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def trial_processes(pid: int) -> list[int]:
    """Return the processes of a search's trials: they are forked from its fork server."""
    return [trial for child in children(pid) for trial in children(child)]


def resident_mib(pid: int) -> int:
    """Return the memory that a process holds, MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


def trials(search: Path) -> list[dict[str, object]]:
    """Read the trials of a search."""
    return [json.loads(path.read_text()) for path in sorted(search.glob("trials/*/trial.json"))]


def ended(search: Path) -> int:
    """Return how many trials have ended."""
    return sum(trial["status"] != "running" for trial in trials(search))


def assert_complete(search: Path, count: int, epochs: Sequence[int] = (2,)) -> None:
    """Check that the files of a search have all its trials, each once and trained to its end."""
    found = trials(search)
    assert [trial["number"] for trial in found] == list(range(count))
    assert all(trial["status"] == "finished" for trial in found), found
    assert not (search / "oracle.json").exists()
    for trial in found:
        (history,) = search.glob(f"trials/{trial['number']:04}/seed-*/history.csv")
        assert len(history.read_text().splitlines()) - 1 in epochs
