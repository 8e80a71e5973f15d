"""The record of a run: what it depends on besides its settings, and whether settings and data are still the same."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes.command_line import shell_command
from recipes.config import UserError, flatten
from recipes.runs.directory import Run

PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets")


def describe_environment(seed: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of environment.json: time, command, seed, data, git revision, machine, versions."""
    return {
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": shlex.join(sys.orig_argv),
        "seed": seed,
        "data": dict(data),
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _git_revision() -> str | None:
    """Return the revision of this project's checkout, "+changes" appended if it is modified; None outside git."""
    describe = ("git", "describe", "--always", "--dirty=+changes", "--abbrev=12")
    here = Path(__file__).parent
    try:
        done = subprocess.run(describe, cwd=here, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def check_same(earlier: Mapping[str, Any], now: Mapping[str, Any], rule: str) -> None:
    """Raise a UserError that begins with the rule and names every change, old value first, if there is one."""
    before, after = dict(flatten(earlier)), dict(flatten(now))
    changed = [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    if changed:
        raise UserError(f"{rule}. Changed: {'; '.join(changed)}")


def check_same_data(run: Run, data: Mapping[str, Any], rule: str) -> None:
    """Raise a UserError if data differ from those in a run's environment.json. Arguments as `check_same`."""
    recorded = run.environment["data"]
    # An older version may have recorded less; the note says how the data were obtained.
    names = (recorded.keys() & data.keys()) - {"note"}
    check_same({name: recorded[name] for name in names}, {name: data[name] for name in names}, rule)


def check_scored(run: Run, data: Mapping[str, Any], *, strict: bool) -> str:
    """Compare the data that a run is scored on to the data that it was trained on.

    Args:
        run: The run.
        data: As in its environment.json.
        strict: Whether they must be the same.

    Returns:
        A note that a score on other data needs; "" where they are the same.

    Raises:
        UserError: `strict`, and they are not the same: every change is named, old value first.
    """
    source = run.environment["data"]["source"]
    try:
        check_same_data(run, data, f"{run.path} was trained on other data than {source} is now")
    except UserError as error:
        if strict:
            anyway = shell_command("recipes", "evaluate", run.path, "--data.source", source)
            raise UserError(f"{error}\nScore what is there now: {anyway}") from None
        if data["source"] == source:
            return f"{error}. What is scored here may have been trained on"
        return f"{data['source']} is not the data that {run.path} was trained on: that was {source}"
    return ""
