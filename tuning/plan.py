"""A search on disk: what it is to do, and what each of its trials came to.

searches/RECIPE/NAME/
search.json         recipe, settings, space, and how to search
oracle.json         where keras-tuner's oracle stands
trials/0000/        a trial: trial.json, log.txt, and a run directory for each seed
trials.csv          a row a trial
best.json           settings of the best trial, for a training of the recipe's own length:
                    `python -m recipes train RECIPE --settings` takes it
report.html         with plots/*.png inside
"""

import contextlib
import functools
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from recipes.config import (
    Recipe,
    UserError,
    better_when_low,
    from_dict,
    nearest,
    require,
    require_seed,
    to_dict,
)
from recipes.runs.comparison import check_same
from recipes.runs.directory import Run
from recipes.runs.files import write_json
from recipes.runs.lock import only_writer
from recipes.runs.settings import find_recipe, with_settings
from tuning.space import Dimension, Value, default_space, parse_space

SEARCHES = Path("searches")
FIXED = ("recipe", "settings", "space", "objective", "algorithm", "executions", "seed")
"""What a resumed search must not change; budgets may."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How to search."""

    algorithm: Literal["bayesian", "random", "grid", "hyperband"] = "bayesian"
    """How the next trial is chosen. hyperband trains many trials for a few epochs and the best of
    them for longer, up to --training.epochs (Li et al. 2018, arXiv:1603.06560)."""
    objective: str | None = None
    """Validation metric to make best (None: the recipe's early_stopping.metric)."""
    trials: int = 20
    """Most trials, at least 1."""
    seconds: float | None = None
    """Most wall time; the trials that run then end with their epoch (None: no limit)."""
    executions: int = 1
    """Seeds a trial, at least 1: its value is their mean."""
    early_ending: bool = True
    """End a trial that is worse than the median of the finished ones at the same epoch (the median
    rule of Golovin et al. 2017, Google Vizier), where their early values foretold their last ones."""
    seed: int = 0
    """Seed of the search; the recipe's training.seed is that of the trials."""

    def __post_init__(self) -> None:
        require(self.trials >= 1, "--trials must be at least 1", trials=self.trials)
        require(self.executions >= 1, "--executions must be at least 1", executions=self.executions)
        require(self.seconds is None or self.seconds > 0, "--seconds must be above 0", seconds=self.seconds)
        require_seed("--seed", self.seed)


@dataclass(frozen=True)
class Plan:
    """What a search is to do.

    Attributes:
        name: The recipe's name.
        recipe: Its settings, with the objective as what chooses the epoch.
        space: What is varied, as text by setting.
        method: How to search.
    """

    name: str
    recipe: Recipe
    space: dict[str, str]
    method: Method

    @property
    def objective(self) -> str:
        """The validation metric that is made best."""
        return self.recipe.early_stopping.metric

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if better_when_low(self.objective) else 1

    @functools.cached_property
    def dimensions(self) -> list[Dimension]:
        """What is varied."""
        return parse_space(self.recipe, self.space)

    def to_json(self) -> dict[str, Any]:
        """Return what `search.json` holds."""
        method = to_dict(self.method) | {"objective": self.objective}
        return {"recipe": self.name, "settings": to_dict(self.recipe), "space": self.space, **method}


def make_plan(name: str, recipe: Recipe, space: Mapping[str, str], method: Method) -> Plan:
    """Check what is asked for, and fill in what is left out.

    Args:
        name: The recipe's name.
        recipe: Its settings.
        space: What is varied besides batch size and learning rate, or instead of their own ranges.
        method: How to search.

    Raises:
        UserError: A metric that the recipe does not report, or a space that is none.
    """
    require(
        recipe.training.seed + method.executions <= 2**32,
        f"a trial's seeds are training.seed and those after it, at most {2**32 - 1}",
        seed=recipe.training.seed,
        executions=method.executions,
    )
    metric = method.objective or recipe.early_stopping.metric
    if metric not in recipe.metrics:
        raise UserError(f"--objective: the recipe reports no {metric!r}. {nearest(metric, recipe.metrics)}")
    chosen = with_settings(recipe, {"early_stopping": {"metric": metric}})
    plan = Plan(name, chosen, {**default_space(recipe), **space}, method)
    names = [dimension.name for dimension in plan.dimensions]
    require(
        method.algorithm != "hyperband" or "training.epochs" not in names,
        "hyperband chooses the epochs itself: leave --space.training.epochs out",
        algorithm=method.algorithm,
    )
    return plan


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a trial is, or came to.

    Attributes:
        number: Its place in the search, from 0.
        values: What was chosen, by setting.
        status: running; finished; stopped before its last epoch; failed.
        value: The objective of the weights that were kept, mean of the seeds; finite. None before the
            end, when it failed, or when it was stopped before an epoch that could be kept.
        reason: Why it was stopped or failed.
        refused: Whether its settings or its data were refused, before any training.
        started: Unix time of its beginning, s.
        ended: Unix time of its end.
        epochs: Epochs trained, of all seeds.
        saved_seconds: What the rest would have taken of a trial that was stopped for being hopeless.
        memory_mib: Most memory of its process.
    """

    number: int
    values: dict[str, Value]
    status: Literal["running", "finished", "stopped", "failed"] = "running"
    value: float | None = None
    reason: str = ""
    refused: bool = False
    started: float = field(default_factory=time.time)
    ended: float | None = None
    epochs: int = 0
    saved_seconds: float = 0.0
    memory_mib: float = 0.0

    @property
    def known_value(self) -> float:
        """The value of a trial that has one."""
        if self.value is None:
            raise ValueError(f"trial {self.number} has no value")
        return self.value

    @property
    def seconds(self) -> float:
        """Wall time from its beginning to its end, s; 0 before that."""
        return 0.0 if self.ended is None else self.ended - self.started


@dataclass(frozen=True)
class Order:
    """A trial to train.

    Attributes:
        search: Path of the search.
        trial: The trial.
        threads: Threads to compute with.
        epochs: Epochs to pause after; None trains to the end.
        follows: Number of the trial to go on from; None starts anew.
    """

    search: Path
    trial: Trial
    threads: int
    epochs: int | None = None
    follows: int | None = None


@dataclass(frozen=True)
class SearchDirectory:
    """A search, by its path."""

    path: Path

    @property
    def plan_path(self) -> Path:
        """What the search is to do."""
        return self.path / "search.json"

    @property
    def oracle_path(self) -> Path:
        """Where the oracle stands."""
        return self.path / "oracle.json"

    @property
    def table_path(self) -> Path:
        """The table of trials."""
        return self.path / "trials.csv"

    @property
    def best_path(self) -> Path:
        """Settings of the best trial."""
        return self.path / "best.json"

    @property
    def report_path(self) -> Path:
        """The page about the search."""
        return self.path / "report.html"

    def trial_path(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.path / "trials" / f"{number:04}"

    def runs(self, number: int) -> list[Run]:
        """Return the runs of a trial, one for each seed that has begun."""
        return [Run(path.parent) for path in sorted(self.trial_path(number).glob("seed-*/config.json"))]

    def seed_run(self, number: int, seed: int) -> Run:
        """Return the run of a trial's seed, which need not have begun."""
        return Run(self.trial_path(number) / f"seed-{seed}")

    def read_plan(self) -> Plan:
        """Read what the search is to do.

        Raises:
            UserError: It is no search.
        """
        try:
            tree = json.loads(self.plan_path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.path} is not a search directory: it has no search.json") from None
        except ValueError as error:
            raise UserError(f"{self.plan_path} is not JSON: {error}") from error
        try:
            return _plan_from_json(tree)
        except UserError as error:
            raise UserError(f"{self.plan_path}: {error}") from error

    def write_plan(self, plan: Plan) -> None:
        """Write what the search is to do: only now it is a search."""
        (self.path / "trials").mkdir(parents=True, exist_ok=True)
        write_json(self.plan_path, plan.to_json())

    def deadline(self, plan: Plan) -> float:
        """Return the Unix time at which the search's time is over, s; infinite without a limit."""
        if plan.method.seconds is None:
            return math.inf
        state = json.loads(self.oracle_path.read_text())
        return float(state["written"] + plan.method.seconds - state["seconds_used"])

    def is_held(self, number: int) -> bool:
        """Tell whether a live process, running or stopped, holds a trial to train it."""
        try:
            with only_writer(self.trial_path(number)):
                return False
        except FileNotFoundError:
            return False
        except UserError:
            return True

    def write_trial(self, trial: Trial) -> None:
        """Write what a trial came to."""
        self.trial_path(trial.number).mkdir(exist_ok=True)
        write_json(self.trial_path(trial.number) / "trial.json", asdict(trial))

    def read_trial(self, number: int) -> Trial | None:
        """Read what a trial came to; None before it began."""
        path = self.trial_path(number) / "trial.json"
        return _read_trial(path) if path.exists() else None

    def trials(self) -> list[Trial]:
        """Read all trials that have begun, in their order."""
        paths = sorted((self.path / "trials").glob("*/trial.json"))
        return [_read_trial(path) for path in paths]


def _plan_from_json(tree: Any) -> Plan:
    """Return the plan that `search.json` holds."""
    kinds = {"recipe": str, "settings": dict, "space": dict}
    if not isinstance(tree, dict) or not all(isinstance(tree.get(key), kinds[key]) for key in kinds):
        raise UserError("a search has a recipe (text), settings and a space (tables)")
    method = {key: value for key, value in tree.items() if key not in kinds}
    name, space = tree["recipe"], tree["space"]
    texts = all(isinstance(text, str) for text in space.values())
    require(texts, "space must have a range or values as text for each setting", space=space)
    recipe = from_dict(type(find_recipe(name).recipe), tree["settings"])
    return make_plan(name, recipe, space, from_dict(Method, method))


def _read_trial(path: Path) -> Trial:
    """Read a trial. Versions that took NaN for a value called it finished.

    Raises:
        UserError: The file holds something else.
    """
    try:
        trial = Trial(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is not a trial's: {error}") from error
    if trial.value is None or math.isfinite(trial.value):
        return trial
    return replace(trial, status="failed", value=None, reason=f"the objective became {trial.value}")


@contextlib.contextmanager
def open_search(path: Path, plan: Plan, *, resume: bool) -> Iterator[SearchDirectory]:
    """Begin a search, or open the one to resume, and hold it against other processes.

    Raises:
        UserError: Another process holds it; there is one already; on resume, another space or objective
            than it began with.
    """
    search = SearchDirectory(path)
    path.mkdir(parents=True, exist_ok=True)
    with only_writer(path):  # before anything is written
        if search.plan_path.exists():
            if not resume:
                raise UserError(f"{path} is a search already: --resume goes on with it")
            _check_resumed(search.read_plan(), plan)
        elif any(path.iterdir()):
            raise UserError(f"{path} exists and is not a search directory. Choose another --search-dir")
        search.write_plan(plan)
        yield search


def _check_resumed(before: Plan, now: Plan) -> None:
    """Refuse to go on with another search than the one that began.

    Raises:
        UserError: Something differs: all of it is named, old value first.
    """
    earlier, later = before.to_json(), now.to_json()
    check_same(
        {name: earlier[name] for name in FIXED},
        {name: later[name] for name in FIXED},
        "--resume goes on with the search that began",
    )


def ranked(trials: list[Trial], sign: int) -> list[Trial]:
    """Return the finished trials, those that were stopped, and those without a value; the best of each first."""
    return sorted(
        trials,
        key=lambda trial: (trial.value is None, trial.status != "finished", -sign * (trial.value or 0.0)),
    )


def best_trial(trials: list[Trial], sign: int) -> Trial | None:
    """Return the best finished trial, the first of equal ones; the best that was stopped if none is finished."""
    best = ranked(trials, sign)[:1]
    return best[0] if best and best[0].value is not None else None
