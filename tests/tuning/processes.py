"""Whole searches, what they leave, and the processes of their trials."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from recipes import command_line
from recipes.command_line import Command
from tests.processes import children

TINY = ("--data.source", "digits", "--model.dense", "8", "--training.epochs", "2")


def call(capsys: pytest.CaptureFixture[str], command: Command, *arguments: object) -> tuple[int, str]:
    """Run a command in this process; return its exit status and its errors.

    The trials of a search are forked from the tests' fork server, which has imported TensorFlow.
    """
    status = command_line.run({command.__name__: command}, "", [command.__name__, *map(str, arguments)])
    return status, capsys.readouterr().err


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
