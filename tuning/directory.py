"""The files of a search.

searches/RECIPE/NAME/
search.json         recipe, settings, search space, and how to search
trials/0000/        a trial: trial.json, log.txt, and a run directory for each seed
trials.csv          a row for each trial
best.json           settings of the best trial, for training of the recipe's own length:
                    `python -m recipes train RECIPE --settings` reads it
report.html         the report; it reloads itself while the search runs

The trials' files are the only record of what was tried and how it ended.
"""

import contextlib
import functools
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from recipes.config import UserError
from recipes.runs.directory import Run
from recipes.runs.files import write_json
from recipes.runs.lock import only_writer
from recipes.runs.record import check_same
from tuning.plan import Plan, plan_from_json
from tuning.trial import Trial, seconds_used, trial_from_json

FIXED = ("recipe", "settings", "space", "objective", "algorithm", "executions", "seed")
"""What must not change when a search is resumed; budgets may."""


@dataclass(frozen=True)
class SearchDirectory:
    """A search directory, by its path."""

    path: Path

    @property
    def plan_path(self) -> Path:
        """The file that makes it a search."""
        return self.path / "search.json"

    @property
    def best_path(self) -> Path:
        """Settings of the best trial."""
        return self.path / "best.json"

    @property
    def report_path(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @functools.cached_property
    def plan(self) -> Plan:
        """The settings of the search.

        Raises:
            UserError: It is not a search directory, or its file is invalid.
        """
        try:
            return plan_from_json(json.loads(self.plan_path.read_text()))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.path} is not a search directory: it has no search.json") from None
        except ValueError as error:
            if isinstance(error, UserError):
                raise UserError(f"{self.plan_path}: {error}") from error
            raise UserError(f"{self.plan_path} is not JSON: {error}") from error

    def write_plan(self, plan: Plan) -> None:
        """Write `search.json`, which makes the directory a search."""
        (self.path / "trials").mkdir(parents=True, exist_ok=True)
        write_json(self.plan_path, plan.to_json())

    def trial_path(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.path / "trials" / f"{number:04}"

    def runs(self, number: int) -> list[Run]:
        """Return the runs of a trial: one for each seed whose training has begun."""
        return [Run(path.parent) for path in sorted(self.trial_path(number).glob("seed-*/config.json"))]

    def seed_run(self, number: int, seed: int) -> Run:
        """Return the run of one seed of a trial, which may not have begun."""
        return Run(self.trial_path(number) / f"seed-{seed}")

    def write_trial(self, trial: Trial) -> None:
        """Write the file of a trial."""
        self.trial_path(trial.number).mkdir(exist_ok=True)
        write_json(self.trial_path(trial.number) / "trial.json", asdict(trial))

    def read_trial(self, number: int) -> Trial:
        """Read the file of a trial.

        Raises:
            KeyError: There is no such trial.
            UserError: The file is invalid.
        """
        path = self.trial_path(number) / "trial.json"
        if not path.exists():
            raise KeyError(f"There is no trial {number} in {self.path}")
        return _read_trial(path)

    def trials(self) -> list[Trial]:
        """Read the files of all trials, in the order of their numbers."""
        return [_read_trial(path) for path in sorted((self.path / "trials").glob("*/trial.json"))]

    def is_held(self, number: int) -> bool:
        """Return whether a live process, running or stopped, holds the lock of a trial."""
        try:
            with only_writer(self.trial_path(number)):
                return False
        except UserError:
            return True

    def deadline(self, trial: Trial) -> float:
        """Return the Unix time at which the time limit ends a running trial, s; infinite without a limit."""
        limit = self.plan.method.seconds
        return math.inf if limit is None else trial.last_seen + limit - seconds_used(self.trials())


def _read_trial(path: Path) -> Trial:
    try:
        return trial_from_json(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is not a trial: {error}") from error


@contextlib.contextmanager
def open_search(path: Path, plan: Plan, *, resume: bool) -> Iterator[SearchDirectory]:
    """Create a search, or open the one to resume, and hold it against other processes.

    Raises:
        UserError: Another process holds it; it exists and `resume` is false; on resume, another space or
            objective than at its start.
    """
    directory = SearchDirectory(path)
    path.mkdir(parents=True, exist_ok=True)
    with only_writer(path):  # before anything is written
        if directory.plan_path.exists():
            if not resume:
                raise UserError(f"{path} is a search already: --resume continues it")
            earlier, now = directory.plan.to_json(), plan.to_json()
            check_same(
                {name: earlier[name] for name in FIXED},
                {name: now[name] for name in FIXED},
                "--resume continues the search as it began",
            )
        elif any(path.iterdir()):
            raise UserError(f"{path} exists and is not a search directory. Choose another --search-dir")
        directory.write_plan(plan)
        yield SearchDirectory(path)
