"""The run directory on disk: what tuning and serving read, and what a resume goes on from.

runs/RECIPE/NAME/
config.json         recipe and settings: `train --settings` takes it
environment.json    versions, git revision, seed, data; made_from of a pruned or quantised run
history.csv         a row an epoch
model.keras         the best epoch's weights, without the optimizer
vocabulary.json     text: what the tokens are
metrics.json        written last: a run that has it is finished
report.html         with plots/*.png inside
tensorboard/        the curves as TensorBoard logs
checkpoint/         only while it runs, and after a kill
steps/              of a pruned run: a run for each step; trade_off.csv has a row for each
status.json         only after an interruption or a failure: what happened
"""

import contextlib
import csv
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.config import UserError, flatten
from recipes.files import write_json

RUNS = Path("runs")
PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets")


@dataclass(frozen=True)
class Run:
    """A run directory, by its path."""

    path: Path

    @property
    def model_path(self) -> Path:
        """The saved model."""
        return self.path / "model.keras"

    @property
    def history_path(self) -> Path:
        """The table of epochs."""
        return self.path / "history.csv"

    @property
    def vocabulary_path(self) -> Path:
        """The tokens of a language model."""
        return self.path / "vocabulary.json"

    @property
    def plots(self) -> Path:
        """The folder of pictures."""
        return self.path / "plots"

    @property
    def checkpoint(self) -> Path:
        """What a resume goes on from."""
        return self.path / "checkpoint" / "state.npz"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "metrics.json").exists()

    @property
    def config(self) -> dict[str, Any]:
        """Recipe and settings, as nested dicts."""
        return self._read("config.json")

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, git revision, seed and data."""
        return self._read("environment.json")

    @property
    def metrics(self) -> dict[str, Any]:
        """What the run measured.

        Raises:
            UserError: The run is not finished.
        """
        if not self.finished:
            raise UserError(
                f"{self.path} is not a finished run: it has no metrics.json. "
                f"Go on with it: python -m recipes train {self.config['recipe']} --resume --run-dir {self.path}"
            )
        return self._read("metrics.json")

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of `history.csv`."""
        with self.history_path.open() as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.path} is not a run directory: it has no {name}") from None
        except ValueError as error:
            raise UserError(f"{self.path / name} is not JSON: {error}") from error
        return content

    def set_aside(self, status: str, reason: str) -> None:
        """Write down that the run ended before its time: interrupted, or failed."""
        write_json(self.path / "status.json", {"status": status, "reason": reason})

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write `metrics.json`, which makes the run finished, then drop what only a resume needs."""
        write_json(self.path / "metrics.json", metrics)
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        (self.path / "status.json").unlink(missing_ok=True)


def new_path(folder: Path) -> Path:
    """Return a path in a folder that nothing has yet, the time: `runs/RECIPE/TIMESTAMP`."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path, number = folder / stamp, 1
    while path.exists():
        number += 1
        path = folder / f"{stamp}-{number}"
    return path


def latest_path(folder: Path, kind: str) -> Path:
    """Return what `latest` in a folder points at, to be gone on with.

    Args:
        folder: As `runs/RECIPE`.
        kind: What is in it, for the error.

    Raises:
        UserError: There is none.
    """
    latest = folder / "latest"
    if not latest.exists():
        raise UserError(f"--resume: there is no {kind} in {folder}")
    return followed(latest)


def followed(path: Path) -> Path:
    """Return where `latest` points now: a newer run is going to take the name."""
    return path.parent / path.readlink() if path.is_symlink() else path


def check_vacant(path: Path) -> None:
    """Refuse a path where something is already.

    Raises:
        UserError: There is a run, or something else.
    """
    if (path / "config.json").exists():
        raise UserError(f"{path} is a run already: --resume goes on with it, --overwrite replaces it")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists and is not a run directory. Choose another --run-dir")


def check_replaceable(path: Path) -> None:
    """Refuse to overwrite anything that is not a run.

    Raises:
        UserError: There is something else.
    """
    if not (path / "config.json").exists():
        check_vacant(path)


def check_same(earlier: Mapping[str, Any], now: Mapping[str, Any], rule: str) -> None:
    """Refuse to go on with other settings or other data than a run began with.

    Args:
        earlier: What the run began with.
        now: What is asked for.
        rule: Why they must be the same, the beginning of the error.

    Raises:
        UserError: Something differs: all of it is named, old value first.
    """
    before, after = dict(flatten(earlier)), dict(flatten(now))
    changed = [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    if changed:
        raise UserError(f"{rule}. Changed: {'; '.join(changed)}")


def create(path: Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> Run:
    """Create a run directory, replacing an old run there, and point `latest` at it.

    `config.json` is written last: without it a directory is no run, and nothing to resume.
    """
    existed = path.exists()
    try:
        if (path / "config.json").exists():
            shutil.rmtree(path)
        for folder in ("checkpoint", "plots"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        write_json(path / "environment.json", environment)
        write_json(path / "config.json", config)
    except OSError:
        if not existed:
            shutil.rmtree(path, ignore_errors=True)
        raise
    if path.parent.parent == RUNS:
        point_latest(path)
    return Run(path)


def open_run(
    path: Path,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    resume: bool,
    made_from: Mapping[str, Any] | None = None,
) -> Run:
    """Create a run, or open the one to go on with.

    Args:
        path: The run directory; an old run there is replaced unless it is resumed.
        config: Recipe and settings.
        data: What is trained on, by name, with a fingerprint.
        resume: Go on with the unfinished run there.
        made_from: What a run that was pruned or quantised was made from, and how.

    Raises:
        UserError: On resume, other settings or data than the run began with.
    """
    if not resume:
        environment = describe_environment(config["training"]["seed"], data)
        return create(path, config, environment | ({"made_from": dict(made_from)} if made_from else {}))
    run = Run(path)
    check_same(
        run.environment.get("made_from", {}), made_from or {}, "--resume goes on with what the run began with"
    )
    check_same(run.config, config, "--resume goes on with the settings the run began with")
    check_same(
        {**run.environment["data"], "note": ""},
        {**data, "note": ""},
        "--resume goes on with the data the run began with",
    )
    return run


def point_latest(path: Path) -> None:
    """Make `latest` beside a run point at it, in one step."""
    beside = path.with_name(f".latest.{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(path.name)
    beside.replace(path.with_name("latest"))


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold a folder, as a run's, against a second process that would write it; a kill gives it back.

    Raises:
        UserError: Another process holds it.
    """
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{path} is being written by another process") from None
    finally:
        os.close(folder)


def describe_environment(seed: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result depends on besides its settings."""
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
    """Return the revision of this project's checkout, with "+changes" where it has any."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty=+changes",
        "--abbrev=12",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
