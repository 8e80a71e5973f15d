"""The record of what a result depends on besides its settings: environment.json."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets")


def describe_environment(seed: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return seed, data, git revision, machine and package versions."""
    return {
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
