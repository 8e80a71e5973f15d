"""Bayesian search: a Gaussian process of the trials so far says what to try next.

keras-tuner's own maximizes its bound over points between the choices, rounds the best one, and so
tries what it has tried before. Here only points of the space are compared (Garrido-Merchan &
Hernandez-Lobato 2020, arXiv:1805.03463), and none that lies beside a trial.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from keras_tuner.engine.hyperparameters import Choice
from keras_tuner.engine.trial import Trial, TrialStatus
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from recipes.data.streams import stream
from tuning.oracles.durable import DurableOracle
from tuning.space import Value

Points = npt.NDArray[np.float64]

NOISE = 0.01
"""Variance of a metric between two trainings, as a part of its variance over the space."""
LENGTHS = (0.3, 2.0)
"""Least and greatest distance over which a metric changes, in ranges: a few trials can't tell."""
SPREAD = 0.25
"""Standard deviation of the first draws around the recipe's own values, as a part of each range.
Who wrote the recipe knew something: most of a range of two decades is far off."""
EXPLORATION = 1.0
"""Standard deviations in the confidence bound; keras-tuner's 2.6 is for hundreds of trials."""
CANDIDATES = 2000
"""Points of the space that the bound is compared at."""
BESIDE = 0.03
"""Two trials nearer than this in every range tell as much as one."""
WORST = 3.0
"""A metric is cut off where it is so many times further from the best than the median is: how bad a
diverged training is says nothing about the good ones."""


class BayesianSearch(DurableOracle):
    """A few values near the recipe's own, then those whose confidence bound is best.

    The upper confidence bound of Srinivas et al. 2010 (arXiv:0912.3995), over a Matern kernel. A
    failed trial counts as the worst, one that runs as a bit worse than what is expected of it.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose values; none are left when all points of a space of choices lie beside a trial."""
        if not self.trials and self.first is not None:
            return {"status": TrialStatus.RUNNING, "values": dict(self.first)}
        candidates = self._draw(stream(self.seed, "candidates", len(self.trials)))
        if not candidates:
            return {"status": TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED}
        scored = [trial for trial in self.trials.values() if trial.status == TrialStatus.COMPLETED]
        chosen = 0
        if len(scored) > len(self.get_space().space):
            chosen = int(np.argmin(self._bounds(self._encode(candidates), scored)))
        return {"status": TrialStatus.RUNNING, "values": candidates[chosen]}

    def _draw(self, random: np.random.Generator) -> list[dict[str, Value]]:
        """Draw points away from all trials: half of them around the recipe's own values, the rest evenly."""
        dimensions = self.get_space().space
        draws = random.uniform(size=(CANDIDATES, len(dimensions)))
        if self.first is not None:
            near = draws[: CANDIDATES // 2]
            for column, dimension in enumerate(dimensions):
                if _has_a_middle(dimension):
                    middle = dimension.value_to_prob(self.first[dimension.name])
                    near[:, column] = _around(middle, len(near), random)
        drawn = [
            {each.name: each.prob_to_value(place) for each, place in zip(dimensions, row, strict=True)}
            for row in draws.tolist()
        ]
        tried = self._encode([trial.hyperparameters.values for trial in self.trials.values()])
        points = self._encode(drawn)
        nearest = np.full(len(points), math.inf)
        for trial in tried:
            nearest = np.minimum(nearest, np.abs(points - trial).max(axis=1))
        return [values for values, distance in zip(drawn, nearest, strict=True) if distance > BESIDE]

    def _encode(self, many: list[Mapping[str, Any]] | list[dict[str, Value]]) -> Points:
        """Return (values, columns): a number's place in its range, a column for each name."""
        columns: list[list[float]] = []
        for dimension in self.get_space().space:
            chosen = [values[dimension.name] for values in many]
            if _has_a_middle(dimension):
                columns.append([dimension.value_to_prob(value) for value in chosen])
            else:
                columns += [[float(value == name) for value in chosen] for name in dimension.values]
        return np.array(columns).T

    def _bounds(self, candidates: Points, scored: list[Trial]) -> Points:
        """Return the confidence bound at each candidate, least is best."""
        sign = -1 if self.objective.direction == "max" else 1
        scores = _cut_off(np.array([sign * trial.score for trial in scored]))
        failed = [trial for trial in self.trials.values() if trial.status == TrialStatus.FAILED]
        points = self._points(scored + failed)
        values = np.concatenate([scores, np.full(len(failed), scores.max())])
        process = _fit(points, values)
        running = list(self.ongoing_trials.values())
        if running:
            mean, deviation = process.predict(self._points(running), return_std=True)
            points = np.concatenate([points, self._points(running)])
            process = _fit(points, np.concatenate([values, mean + deviation]))
        mean, deviation = process.predict(candidates, return_std=True)
        return np.asarray(mean - EXPLORATION * deviation)

    def _points(self, trials: list[Trial]) -> Points:
        points = self._encode([trial.hyperparameters.values for trial in trials])
        return points.reshape(len(trials), -1)


def _has_a_middle(dimension: Any) -> bool:
    """Tell numbers from names."""
    return not isinstance(dimension, Choice) or dimension.ordered


def _around(middle: float, count: int, random: np.random.Generator) -> Points:
    """Draw from a normal distribution around a place in [0, 1], as far as it is inside."""
    draws = random.normal(middle, SPREAD, size=20 * count)
    return draws[(draws > 0) & (draws < 1)][:count]


def _cut_off(scores: Points) -> Points:
    best, median = scores.min(), np.median(scores)
    return np.minimum(scores, best + WORST * (median - best))


def _fit(points: Points, values: Points) -> GaussianProcessRegressor:
    process = GaussianProcessRegressor(
        Matern(length_scale=0.5, length_scale_bounds=LENGTHS, nu=2.5),
        alpha=NOISE,
        normalize_y=True,
        n_restarts_optimizer=3,
        random_state=0,
    )
    with warnings.catch_warnings():  # of length scales at the ends of their range
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(points, values)
