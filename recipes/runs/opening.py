"""Find a finished run; begin one, or resume one: choose its directory, lock it, write or compare its record."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recipes.command_line import shell_command
from recipes.config import Recipe, UserError, from_dict, to_dict
from recipes.runs.directory import RUNS, Run
from recipes.runs.files import follow, write_json
from recipes.runs.lock import claimed, only_writer, reserve, reserved
from recipes.runs.recipe_lookup import folder_of
from recipes.runs.record import check_same, check_same_data, describe_environment

FOLDERS = ("checkpoint", "plots")


def finished_run(path: Path) -> Run:
    """Return the finished run at a path; of a link such as `latest`, with the path that it points at now.

    Raises:
        UserError: It is not finished; where `latest` is not, the newest finished run is named.
    """
    run = Run(path)
    if path.name == "latest" and not run.finished:
        link = path.is_symlink()
        why = f"it points at {path.readlink()}, which is not finished" if link else "it does not exist"
        finished = training_runs(path.parent, finished=True)
        train = shell_command("recipes", "train", path.parent.name)
        newest = f"The newest finished run is {finished[0].path}" if finished else f"Train one first: {train}"
        raise UserError(f"{path} is not a finished run: {why}. {newest}")
    _ = run.metrics  # raises if it is not finished
    return Run(follow(path))


def path_to_resume(folder: Path, *, held: bool = False) -> Path:
    """Return and reserve the newest unfinished training run in a folder, else return the newest finished one.

    Runs that another process holds are left out, and those whose loss diverged: it would diverge again.

    Args:
        folder: `runs/RECIPE`.
        held: Whether to return the newest unfinished run even if another process holds it, and reserve none.

    Raises:
        UserError: There is no run, or other processes hold all that are unfinished.
    """
    unfinished = training_runs(folder, finished=False)
    if held and unfinished:
        return unfinished[0].path
    for run in unfinished:
        with contextlib.suppress(UserError):
            reserve(run.path)
            return run.path
    if unfinished:
        raise UserError(f"--resume: {unfinished[0].path} is being written by another process")
    finished = training_runs(folder, finished=True)
    if not finished:
        raise UserError(f"--resume: there is no run in {folder}")
    return finished[0].path


def training_runs(folder: Path, *, finished: bool) -> list[Run]:
    """Return a recipe's training runs that did not fail, the newest first."""
    found = []
    for config in folder.glob("*/config.json"):
        run = Run(config.parent)
        with contextlib.suppress(UserError):  # a directory without a readable environment.json is not a run
            own = not run.path.is_symlink() and folder_of(str(run.config.get("recipe"))) == folder.name
            if own and not run.made_from and run.finished == finished and run.status != "failed":
                written = (run.path / "metrics.json" if finished else config).stat().st_mtime_ns
                found.append((written, run))
    return [run for _, run in sorted(found, key=lambda each: each[0], reverse=True)]


@contextlib.contextmanager
def choose_run(
    name: str,
    path: Path | None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    begin: bool = False,
    offer: str = "--resume continues it, --overwrite replaces it",
) -> Iterator[tuple[Run, bool]]:
    """Choose and reserve the directory of the run that a command begins or resumes.

    Args:
        name: The recipe's name.
        path: The directory that is asked for; None for a new one in `runs/RECIPE`, or the one to resume there.
        resume: Resume the run that is there.
        overwrite: Replace the run that is there.
        begin: With `resume`, begin a run where there is none.
        offer: What can be done about a run that is there, for the error.

    Yields:
        The run, and whether to resume it.

    Raises:
        UserError: Another process holds the directory, or it is used in another way than was asked for.
    """
    if resume and overwrite:
        raise UserError("--resume continues a run and --overwrite replaces it: choose one")
    folder = RUNS / folder_of(name)
    if path is None and not resume:
        with claimed(folder) as path:
            yield Run(path), False
        return
    run = Run(path_to_resume(folder) if path is None else follow(path))
    if run.path.name == "latest":
        raise UserError(f"{run.path} is the link to the newest finished run. Choose another --run-dir")
    if resume and not begin and not run.started:
        raise UserError(f"--resume: no run has begun in {run.path}. Without --resume one begins there")
    if not run.path.is_dir():
        check_vacant(run.path, offer)
    with reserved(run.path):
        started = run.started
        if not (started and (resume or overwrite)):
            check_vacant(run.path, offer)
        yield run, started and resume


def check_vacant(path: Path, offer: str) -> None:
    """Refuse a path where something is already.

    A directory in which a run was killed before it began is vacant.

    Args:
        path: The directory.
        offer: What can be done about a run that is there, for the error.

    Raises:
        UserError: There is a run, or something else.
    """
    if Run(path).started:
        raise UserError(f"{path} is a run already: {offer}")
    if path.exists() and not (path.is_dir() and all(map(_precedes_run, path.iterdir()))):
        raise UserError(f"{path} exists and is not a run directory. Choose another --run-dir")


def _precedes_run(entry: Path) -> bool:
    """Return whether `create` makes such an entry before there is a run."""
    if entry.is_dir():
        return entry.name in FOLDERS and not any(entry.iterdir())
    return entry.name.lstrip(".").startswith(("environment.json", "config.json."))


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
    """Create a run, or open the one to resume, and lock it against other processes.

    Args:
        path: The run directory; an old run there is replaced unless it is resumed.
        name: The recipe's name.
        recipe: Its settings.
        data: What environment.json says about the data, with a fingerprint.
        resume: Continue the unfinished run there.
        steps: Steps of the whole training, if it is one.
        made_from: The source run of a pruned or quantised run, and the settings of it.

    Raises:
        UserError: Another process holds it; on resume, other settings or data than the run began with.
    """
    run, made_from = Run(path), dict(made_from or {})
    config = {"recipe": name, **to_dict(recipe.resolved(steps))}
    if not resume:
        path.mkdir(parents=True, exist_ok=True)
    with only_writer(path):
        if not resume:
            environment = describe_environment(recipe.training.seed, data)
            create(path, config, environment | ({"made_from": made_from} if made_from else {}))
        else:
            recorded = run.config
            recorded_name = recorded.pop("recipe", None)
            # An older version may have recorded None for a default, or not have had a setting.
            settings = to_dict(from_dict(type(recipe), recorded).resolved(steps))
            earlier = {"recipe": recorded_name, **settings}
            check_same(run.made_from, made_from, "--resume continues what the run began with")
            check_same(earlier, config, "--resume continues with the settings the run began with")
            check_same_data(run, data, "--resume continues with the data the run began with")
        yield run


def create(path: Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> Run:
    """Create a run in a directory, replacing an old run there.

    `config.json` is written last and removed last: without it there is no run to resume.
    The directory itself stays, and with it the lock on it.
    """
    run = Run(path)
    path.mkdir(parents=True, exist_ok=True)
    old = sorted(
        path.iterdir(), key=lambda entry: (entry.name == "config.json", entry.name != "metrics.json")
    )
    for entry in old if run.started else []:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for folder in FOLDERS:
        (path / folder).mkdir(exist_ok=True)
    write_json(path / "environment.json", environment)
    write_json(path / "config.json", config)
    return run
