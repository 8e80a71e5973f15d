"""The run directory on disk: what tuning and serving read, and what a resume continues from.

runs/RECIPE/NAME/
config.json         recipe and settings, the values that were used: `train --settings` takes it
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

`runs/RECIPE/latest` points at the recipe's training run that finished last.
"""

import contextlib
import csv
import fcntl
import importlib.metadata
import itertools
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

from recipes.command_line import shell_command
from recipes.config import Recipe, UserError, flatten, from_dict, to_dict
from recipes.runs.files import write_json
from recipes.runs.settings import folder_of

RUNS = Path("runs")
FOLDERS = ("checkpoint", "plots")
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
        if self.finished:
            return self._read("metrics.json")
        if self.path.name == "latest":
            raise UserError(_no_latest(self.path))
        raise UserError(f"{self.path} is not a finished run: it has no metrics.json. {self.advice}")

    @property
    def made_from(self) -> dict[str, Any]:
        """What a pruned or quantised run was made from, and how; empty for a training run."""
        made_from: dict[str, Any] = self.environment.get("made_from", {})
        return made_from

    @property
    def owner(self) -> Path | None:
        """The pruned run whose step this is, the run whose pre-training it is, or its trial's search."""
        path, record = self.path.absolute(), "config.json"
        if path.parent.parent.name == "trials":
            owner, record = path.parent.parent.parent, "search.json"
        elif path.parent.name == "steps":
            owner = path.parent.parent
        elif path.name == "pretraining":
            owner = path.parent
        else:
            return None
        return owner if (owner / record).exists() else None

    @property
    def advice(self) -> str:
        """How an unfinished run is resumed or finished, as commands."""
        recipe, made_from, owner = self.config.get("recipe"), self.made_from, self.owner
        if owner is not None:
            return f"It is a part of {owner}, which is resumed instead"
        if "structure" in made_from:
            return "Resume: " + shell_command(
                "recipes", "prune", made_from["run"], "--resume", "--run-dir", self.path
            )
        if made_from:
            return "Again: " + shell_command("recipes", "quantize", made_from["run"])
        lines = ["Resume: " + shell_command("recipes", "train", recipe, "--resume", "--run-dir", self.path)]
        if self.checkpoint.exists():
            lines.append("Score its best epoch so far: " + shell_command("recipes", "finish", self.path))
        return "\n".join(lines)

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
        if not isinstance(content, dict):
            raise UserError(f"{self.path / name} must hold a JSON object. Received: {type(content).__name__}")
        return content

    @property
    def status(self) -> str:
        """What ended an unfinished run: interrupted, failed, or "" where nothing said so."""
        if not (self.path / "status.json").exists():
            return ""
        return str(self._read("status.json").get("status", ""))

    def set_aside(self, status: str, reason: str) -> None:
        """Write down that the run ended before its time: interrupted, or failed."""
        write_json(self.path / "status.json", {"status": status, "reason": reason})

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write `metrics.json`, which makes the run finished, then drop what only a resume needs.

        `latest` points at it from now on, if it is a training run in `runs/RECIPE`.
        """
        write_json(self.path / "metrics.json", metrics)
        folder = RUNS / folder_of(str(self.config["recipe"]))
        if self.path.absolute().parent == folder.absolute() and not self.made_from:
            point_latest(self.path)
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        (self.path / "status.json").unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Make a directory in a folder that no other process has, named by the time: `runs/RECIPE/TIMESTAMP`.

    It goes again if nothing is in it at the end. A kill leaves it empty, which is in nobody's way.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        path = folder / (stamp if number == 1 else f"{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()


def latest_path(folder: Path, kind: str) -> Path:
    """Return what `latest` in a folder points at, to be resumed.

    Args:
        folder: As `searches/RECIPE`.
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


def finished_run(path: Path) -> Run:
    """Return a finished run by its path or by `latest`, with a path that stays the same run's.

    Raises:
        UserError: It is not finished; names the newest finished run where `latest` leads nowhere.
    """
    _ = Run(path).metrics
    return Run(followed(path))


def path_to_resume(folder: Path, *, held: bool = False) -> Path:
    """Return the newest unfinished training run in a folder that no process holds, else the newest finished one.

    The unfinished one is reserved from now on (`reserved`). One whose loss diverged is left out: it would diverge
    again.

    Args:
        folder: `runs/RECIPE`.
        held: Take one that another process holds, too, and reserve none.

    Raises:
        UserError: There is no run, or other processes hold all that are unfinished.
    """
    unfinished = _training_runs(folder, finished=False)
    if held and unfinished:
        return unfinished[0].path
    for run in unfinished:
        with contextlib.suppress(UserError):
            _reserved[run.path.resolve()] = _lock(run.path)
            return run.path
    if unfinished:
        raise UserError(f"--resume: {unfinished[0].path} is being written by another process")
    finished = _training_runs(folder, finished=True)
    if not finished:
        raise UserError(f"--resume: there is no run in {folder}")
    return finished[0].path


def _training_runs(folder: Path, *, finished: bool) -> list[Run]:
    """Return a recipe's training runs, the newest first; without those that failed."""
    found = []
    for config in folder.glob("*/config.json"):
        run = Run(config.parent)
        # One without an environment.json is no run that could be named.
        with contextlib.suppress(UserError):
            own = (
                not run.path.is_symlink()
                and folder_of(str(run.config.get("recipe"))) == folder.name
                and not run.made_from
            )
            if own and run.finished == finished and run.status != "failed":
                written = (run.path / "metrics.json" if finished else config).stat().st_mtime_ns
                found.append((written, run))
    return [run for _, run in sorted(found, key=lambda each: each[0], reverse=True)]


def _no_latest(path: Path) -> str:
    """Say why `latest` can't be used, and which run can."""
    why = (
        f"it points at {path.readlink()}, which is not finished" if path.is_symlink() else "it does not exist"
    )
    finished = _training_runs(path.parent, finished=True)
    newest = f"The newest finished run is {finished[0].path}" if finished else "No run there is finished"
    return f"{path} is not a finished run: {why}. {newest}"


def check_vacant(path: Path, offer: str) -> None:
    """Refuse a path where something is already.

    A directory that a kill left before its run began is vacant.

    Args:
        path: The directory.
        offer: What can be done about a run that is there, for the error.

    Raises:
        UserError: There is a run, or something else.
    """
    if (path / "config.json").exists():
        raise UserError(f"{path} is a run already: {offer}")
    if path.exists() and not (path.is_dir() and all(map(_of_a_beginning, path.iterdir()))):
        raise UserError(f"{path} exists and is not a run directory. Choose another --run-dir")


def _of_a_beginning(entry: Path) -> bool:
    """Tell whether `create` makes such an entry before a run begins."""
    if entry.is_dir():
        return entry.name in FOLDERS and not any(entry.iterdir())
    return entry.name.lstrip(".").startswith(("environment.json", "config.json."))


def check_same(earlier: Mapping[str, Any], now: Mapping[str, Any], rule: str) -> None:
    """Refuse to continue with other settings or other data than those of the run.

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


def check_scored(run: Run, data: Mapping[str, Any], *, strict: bool) -> str:
    """Compare the data that a run is scored on with what it was trained on.

    Args:
        run: The run.
        data: As its environment.json has it.
        strict: Whether it must be the same.

    Returns:
        What must be known of a score on it: that it is other data; "" where it is the same.

    Raises:
        UserError: `strict`, and it is not the same: what differs is named, old value first.
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


def check_same_data(run: Run, data: Mapping[str, Any], rule: str) -> None:
    """Refuse other data than a run began with. Arguments and errors as `check_same`."""
    recorded = run.environment["data"]
    # The note says how the data was come by. What was not recorded in the run's day can't differ.
    names = [name for name in recorded if name in data and name != "note"]
    check_same({name: recorded[name] for name in names}, {name: data[name] for name in names}, rule)


def create(path: Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> Run:
    """Create a run in a directory, replacing an old run there.

    `config.json` is written last, and removed last: without it a directory is no run, and nothing to resume.
    The directory itself stays, and with it the lock of whoever holds it.
    """
    path.mkdir(parents=True, exist_ok=True)
    old = sorted(
        path.iterdir(), key=lambda entry: (entry.name == "config.json", entry.name != "metrics.json")
    )
    for entry in old if (path / "config.json").exists() else []:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for folder in FOLDERS:
        (path / folder).mkdir(exist_ok=True)
    write_json(path / "environment.json", environment)
    write_json(path / "config.json", config)
    return Run(path)


@contextlib.contextmanager
def open_run(
    path: Path,
    name: str,
    recipe: Recipe,
    data: Mapping[str, Any],
    *,
    resume: bool,
    steps: int | None = None,
    made_from: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """Create a run, or open the one to resume, and hold it against other processes.

    Args:
        path: The run directory; an old run there is replaced unless it is resumed.
        name: The recipe's name.
        recipe: Its settings.
        data: What is trained on, by name, with a fingerprint.
        resume: Continue the unfinished run there.
        steps: Steps of the whole training, if it is one.
        made_from: What a run that was pruned or quantised was made from, and how.

    Raises:
        UserError: Another process holds it; on resume, other settings or data than the run began with.
    """
    config = {"recipe": name, **to_dict(recipe.resolved(steps))}
    if not resume:
        path.mkdir(parents=True, exist_ok=True)
    with only_writer(path):
        if resume:
            _check_resumed(Run(path), type(recipe), config, data, made_from or {}, steps)
            yield Run(path)
            return
        environment = describe_environment(recipe.training.seed, data)
        yield create(path, config, environment | ({"made_from": dict(made_from)} if made_from else {}))


def _check_resumed(
    run: Run,
    kind: type[Recipe],
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    made_from: Mapping[str, Any],
    steps: int | None,
) -> None:
    recorded = dict(run.config)
    recipe = recorded.pop("recipe", None)
    # A run may have been recorded with None for the defaults of its day, or before a setting existed.
    settings = to_dict(from_dict(kind, recorded).resolved(steps))
    check_same(run.made_from, made_from, "--resume continues what the run began with")
    check_same(
        {"recipe": recipe, **settings}, config, "--resume continues with the settings the run began with"
    )
    check_same_data(run, data, "--resume continues with the data the run began with")


def point_latest(path: Path) -> None:
    """Make `latest` beside a run point at it, in one step."""
    beside = path.with_name(f".latest.{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(path.name)
    beside.replace(path.with_name("latest"))


_reserved: dict[Path, int] = {}
"""Locks that this process took before the training that is to hold them, by path."""


@contextlib.contextmanager
def reserved(path: Path) -> Iterator[None]:
    """Hold a directory for a run that this process is about to begin; `only_writer` takes it over.

    It is made where it does not exist, and goes again if nothing is in it at the end. What `path_to_resume`
    reserved is released at the end.

    Raises:
        UserError: Another process holds it.
    """
    existed = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    key = path.resolve()
    if key not in _reserved:
        _reserved[key] = _lock(path)
    try:
        yield
    finally:
        if not existed:
            with contextlib.suppress(OSError):
                path.rmdir()
        folder = _reserved.pop(key, None)
        if folder is not None:
            os.close(folder)


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold a folder, as a run's, against a second process that would write it; a kill gives it back.

    Raises:
        UserError: Another process holds it.
    """
    folder = _reserved.pop(path.resolve(), None)
    if folder is None:
        folder = _lock(path)
    try:
        yield
    finally:
        os.close(folder)


def _lock(path: Path) -> int:
    """Return a descriptor of a directory that holds its lock until it is closed."""
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(folder).st_nlink:
            return folder
    except BlockingIOError:
        pass
    os.close(folder)  # held, or removed just now by the process that held it
    raise UserError(f"{path} is being written by another process")


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
