"""Find runs: a finished one by its path or `latest`, and the unfinished one to resume."""

import contextlib
from pathlib import Path

from recipes.config import UserError
from recipes.runs.directory import Run
from recipes.runs.files import follow
from recipes.runs.lock import reserve
from recipes.runs.settings import folder_of


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
        newest = f"The newest finished run is {finished[0].path}" if finished else "No run there is finished"
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
