"""keras-tuner's oracles, made to survive a kill, to keep to a budget and to take lost trials back.

keras-tuner writes its state in several files, not at once, and in the middle of a change: a kill
between two of them loses a trial or counts one twice. Here all of it is one file, written whole
after each change.
"""

import itertools
import json
import math
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from sklearn.exceptions import ConvergenceWarning

from recipes.config import Recipe, flatten, to_dict
from recipes.files import write_json
from tuning.plan import Plan
from tuning.space import Dimension, Value, own_values

LEASE_SECONDS = 30.0
"""A worker that is not heard of for so long has died: its trial is given to another."""
NOISE = 0.01
"""Variance of a metric between two trainings, as a part of its variance over the space, for the
Gaussian process: keras-tuner's 1e-4 takes every wiggle of a short training for the truth."""
SPREAD = 0.25
"""Standard deviation of the Bayesian search's first draws around the recipe's own values, as a part
of each range. Who wrote the recipe knew something: most of a range of two decades is far off."""
EXPLORATION = 1.0
"""Standard deviations in the confidence bound; keras-tuner's 2.6 is for hundreds of trials."""


class DurableOracle(keras_tuner.Oracle):
    """What all algorithms share here.

    Args:
        state_path: Where the state is kept.
        max_number: Most trials.
        max_seconds: Most wall time, all sessions together; None is no limit.
        first: Values of the first trial; None leaves them to the algorithm.
        lease: Seconds after which a silent worker has died.
        **arguments: As keras-tuner takes them.
    """

    ongoing_trials: dict[str, Trial]

    def __init__(
        self,
        *,
        state_path: Path,
        max_number: int,
        max_seconds: float | None,
        first: dict[str, Value] | None,
        lease: float = LEASE_SECONDS,
        **arguments: Any,
    ) -> None:
        super().__init__(max_consecutive_failed_trials=2**31, **arguments)
        self.verbose = 0  # tuning.table shows more
        self.state_path = state_path
        self.max_number = max_number
        self.max_seconds = max_seconds
        self.first = first
        self.lease = lease
        self.seconds_before = 0.0
        self.began = time.monotonic()
        self.heard: dict[str, float] = {}
        self.mutex = threading.RLock()

    @property
    def seconds_used(self) -> float:
        """Wall time of the search so far."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def seconds_left(self) -> float:
        """Wall time that is left; infinite without a limit."""
        return math.inf if self.max_seconds is None else self.max_seconds - self.seconds_used

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the values of a trial: the recipe's own for the first, which the others must beat."""
        if not self.trials and self.first is not None:
            return {"status": TrialStatus.RUNNING, "values": dict(self.first)}
        return super().populate_space(trial_id)

    def create_trial(self, tuner_id: str) -> Trial:
        """Give a worker its next trial, one of status IDLE to ask again, or STOPPED at the end."""
        with self.mutex:
            self.heard[tuner_id] = time.monotonic()
            self.give_back_lost()
            spent = len(self.trials) >= self.max_number or self.seconds_left <= 0
            if spent and tuner_id not in self.ongoing_trials and not self._retry_queue:
                # While others train, one of them may die and leave its trial to this worker.
                if self.ongoing_trials:
                    return Trial(self.get_space(), status=TrialStatus.IDLE)
                self.tuner_ids.discard(tuner_id)
                return Trial(self.get_space(), status=TrialStatus.STOPPED)
            trial = super().create_trial(tuner_id)
            if trial.status == TrialStatus.RUNNING:
                self.write()
            return trial

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Take a trial's value."""
        with self.mutex:
            self._known(trial_id)
            return super().update_trial(trial_id, metrics, step)

    def end_trial(self, trial: Trial) -> None:
        """Take a trial's end; a second end of the same is none."""
        with self.mutex:
            self._known(trial.trial_id)
            if trial.trial_id in self.end_order:
                return
            super().end_trial(trial)
            self.write()

    def get_trial(self, trial_id: str) -> Trial:
        """Return a trial. Workers ask for theirs as a sign of life."""
        with self.mutex:
            self._known(trial_id)
            for tuner_id, trial in self.ongoing_trials.items():
                if trial.trial_id == trial_id:
                    self.heard[tuner_id] = time.monotonic()
            return super().get_trial(trial_id)

    def _known(self, trial_id: str) -> None:
        """Refuse an unknown trial before keras-tuner does, which would keep its lock for ever."""
        if trial_id not in self.trials:
            raise KeyError(f"There is no trial {trial_id!r} in this search")

    def give_back_lost(self) -> None:
        """Queue the trials of workers that have died for the others."""
        with self.mutex:
            silent = {
                tuner_id
                for tuner_id in self.tuner_ids
                if time.monotonic() - self.heard.get(tuner_id, self.began) > self.lease
            }
            self.tuner_ids -= silent
            for tuner_id in silent & self.ongoing_trials.keys():
                self._retry_queue.append(self.ongoing_trials.pop(tuner_id).trial_id)
                self.write()

    def save(self) -> None:
        """Do nothing: keras-tuner saves in the middle of a change, `write` comes after it."""

    def _save_trial(self, trial: Trial) -> None:
        """Do nothing, as `save`."""

    def write(self) -> None:
        """Write all there is to know, at once."""
        trials = [trial.get_state() for trial in self.trials.values()]
        state = {
            "written": time.time(),
            "seconds_used": self.seconds_used,
            "oracle": self.get_state(),
            "trials": trials,
        }
        write_json(self.state_path, state)

    def read(self, *, workers_live: bool) -> None:
        """Go on from what was written.

        Args:
            workers_live: Whether the workers may have outlived this process, as those of a chief do:
                they keep their trials as long as they are heard of. Otherwise all are given back.
        """
        if not self.state_path.exists():
            return
        state = json.loads(self.state_path.read_text())
        self.seconds_before = state["seconds_used"]
        self.trials = {each["trial_id"]: Trial.from_state(each) for each in state["trials"]}
        self.set_state(state["oracle"])
        if workers_live:
            self.tuner_ids |= self.ongoing_trials.keys()
        else:
            self._retry_queue += [trial.trial_id for trial in self.ongoing_trials.values()]
            self.ongoing_trials = {}


class RandomSearch(DurableOracle, keras_tuner.oracles.RandomSearchOracle):
    """Values drawn evenly over the space."""


class GridSearch(DurableOracle):
    """All combinations in turn, ranges in ten steps.

    keras-tuner's own forgets on a resume where it was.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the first combination that was not tried."""
        dimensions = self.get_space().space
        for combination in itertools.product(*(_steps(dimension) for dimension in dimensions)):
            values = {dimension.name: value for dimension, value in zip(dimensions, combination, strict=True)}
            if not self._duplicate(values):
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED}


def _steps(dimension: Any) -> list[Value]:
    values = list(dimension.values)
    return values if isinstance(dimension, keras_tuner.engine.hyperparameters.Choice) else sorted(values)


class BayesianSearch(DurableOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """A few values near the recipe's own, then those that a Gaussian process of the trials thinks most of."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose values. A failed trial counts as the worst, or the search would come back to it."""
        failed = [trial for trial in self.trials.values() if trial.status == TrialStatus.FAILED]
        scores = [trial.score for trial in self.trials.values() if trial.status == TrialStatus.COMPLETED]
        if not scores:
            return super().populate_space(trial_id)
        worst = min(scores) if self.objective.direction == "max" else max(scores)
        for trial in failed:
            trial.status, trial.score = TrialStatus.COMPLETED, worst
        try:
            with warnings.catch_warnings():  # of length scales at the ends of their range
                warnings.simplefilter("ignore", ConvergenceWarning)
                return super().populate_space(trial_id)
        finally:
            for trial in failed:
                trial.status, trial.score = TrialStatus.FAILED, None

    def _random_values(self) -> dict[str, Any] | None:
        """Draw values around the recipe's own, from a normal distribution that ends with the range."""
        if self.first is None:
            return super()._random_values()
        for _ in range(self._max_collisions):
            values = {}
            for dimension in self.get_space().space:
                self._seed_state += 1
                if not getattr(dimension, "ordered", True):  # names have no middle
                    values[dimension.name] = dimension.random_sample(self._seed_state)
                    continue
                middle = dimension.value_to_prob(self.first[dimension.name])
                values[dimension.name] = dimension.prob_to_value(_inside(middle, self._seed_state))
            if not self._duplicate(values):
                return values
        return None


def _inside(middle: float, seed: int) -> float:
    """Draw from a normal distribution around a place in [0, 1] until the draw is inside too."""
    random = np.random.default_rng(seed)
    while not 0 < (draw := random.normal(middle, SPREAD)) < 1:
        pass
    return draw


class HyperbandSearch(DurableOracle, keras_tuner.oracles.HyperbandOracle):
    """Many trials for a few epochs, the best of them for longer."""


def hyperparameters(recipe: Recipe, dimensions: list[Dimension]) -> keras_tuner.HyperParameters:
    """Return a space as keras-tuner has it, with the recipe's own values as defaults where they are inside."""
    own = dict(flatten(to_dict(recipe)))
    space = keras_tuner.HyperParameters()
    for dimension in dimensions:
        start = {"default": own[dimension.name]} if dimension.holds(own[dimension.name]) else {}
        if dimension.choices:
            ordered = not any(isinstance(choice, str | bool) for choice in dimension.choices)
            space.Choice(dimension.name, list(dimension.choices), ordered=ordered, **start)
            continue
        add = space.Int if isinstance(dimension.low, int) else space.Float
        scale = "log" if dimension.log else "linear"
        add(dimension.name, dimension.low, dimension.high, sampling=scale, **start)
    return space


def build_oracle(plan: Plan, state_path: Path) -> DurableOracle:
    """Build the oracle of a search."""
    dimensions = plan.dimensions
    common: dict[str, Any] = {
        "state_path": state_path,
        "max_number": plan.method.trials,
        "max_seconds": plan.method.seconds,
        "objective": keras_tuner.Objective(plan.objective, "max" if plan.sign > 0 else "min"),
        "hyperparameters": hyperparameters(plan.recipe, dimensions),
        "seed": plan.method.seed + 1,  # keras-tuner takes 0 for none
    }
    first = own_values(plan.recipe, dimensions)
    match plan.method.algorithm:
        case "random":
            return RandomSearch(**common, first=first, max_trials=None)
        case "grid":
            return GridSearch(**common, first=None)
        case "hyperband":
            # Without end: the budget of trials or seconds ends it.
            epochs = plan.recipe.training.epochs
            return HyperbandSearch(**common, first=None, max_epochs=epochs, hyperband_iterations=None)
    points = len(dimensions) + 1
    return BayesianSearch(
        **common, first=first, max_trials=None, num_initial_points=points, alpha=NOISE, beta=EXPLORATION
    )
