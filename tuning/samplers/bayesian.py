"""Bayesian search: a Gaussian process over the trials so far chooses the next values.

keras-tuner's Bayesian oracle maximizes its bound between the choices, rounds the optimum, and so tries
values twice. Here the bound is compared at points of the space only (Garrido-Merchan & Hernandez-Lobato
2020, arXiv:1805.03463), and points close to a trial are left out.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from recipes.data.streams import stream
from tuning.plan import Plan
from tuning.space import Dimension, Value, own_values
from tuning.trial import Trial

Points = npt.NDArray[np.float64]

NOISE = 0.01
"""Variance of the objective between two trainings, relative to its variance over the trials."""
LENGTH_SCALES = (0.3, 2.0)
"""Bounds of the kernel's length scale, in ranges: a few trials do not determine it."""
SPREAD = 0.25
"""Standard deviation of the candidates around the recipe's own values, in ranges."""
EXPLORATION = 1.0
"""Standard deviations in the confidence bound; keras-tuner's 2.6 is for hundreds of trials."""
CANDIDATES = 2000
"""Points of the space at which the bound is compared."""
MINIMUM_DISTANCE = 0.03
"""Distance, in ranges, below which two trials give the same information."""
CUT_OFF = 3.0
"""Scores are limited to this many times the median's distance from the best: how bad a diverged trial is
gives no information about the good ones."""


def next_values(plan: Plan, trials: Sequence[Trial], scores: Mapping[int, float]) -> dict[str, Value] | None:
    """Return the values with the best confidence bound, or None if every point is close to a trial.

    The lower confidence bound of Srinivas et al. 2010 (arXiv:0912.3995) with a Matern kernel. A failed trial
    counts as the worst one, a running trial as slightly worse than expected. The first trials are drawn
    near the recipe's own values.

    Args:
        plan: The settings of the search.
        trials: All trials so far.
        scores: Score of each ended trial by its number; a trial that ended without one failed.
    """
    dimensions = plan.dimensions
    candidates = _draw(plan, trials)
    if not candidates:
        return None
    scored = [trial for trial in trials if trial.number in scores]
    if len(scored) <= len(dimensions):
        return candidates[0]
    costs = _cut_off(np.array([-plan.sign * scores[trial.number] for trial in scored]))
    running = [trial for trial in trials if trial.status == "running"]
    failed = [trial for trial in trials if trial.status != "running" and trial.number not in scores]
    points = _encode(dimensions, [trial.values for trial in scored + failed])
    costs = np.concatenate([costs, np.full(len(failed), costs.max())])
    process = _fit(points, costs)
    if running:
        others = _encode(dimensions, [trial.values for trial in running])
        mean, deviation = process.predict(others, return_std=True)
        process = _fit(np.concatenate([points, others]), np.concatenate([costs, mean + deviation]))
    mean, deviation = process.predict(_encode(dimensions, candidates), return_std=True)
    return candidates[int(np.argmin(mean - EXPLORATION * deviation))]


def _draw(plan: Plan, trials: Sequence[Trial]) -> list[dict[str, Value]]:
    """Draw points that are not close to a trial: half near the recipe's own values, half uniformly."""
    seed = int(stream(plan.method.seed, "search").integers(1, 2**32))
    generator = stream(seed, "candidates", len(trials))
    dimensions = plan.dimensions
    places = generator.uniform(size=(CANDIDATES, len(dimensions)))
    own = own_values(plan.recipe, dimensions)
    if own is not None:
        near = places[: CANDIDATES // 2]
        for column, dimension in enumerate(dimensions):
            if dimension.ordered:
                near[:, column] = _around(dimension.place(own[dimension.name]), len(near), generator)
    drawn = [
        {dimension.name: dimension.value_at(place) for dimension, place in zip(dimensions, row, strict=True)}
        for row in places.tolist()
    ]
    points = _encode(dimensions, drawn)
    nearest = np.full(len(points), math.inf)
    for tried in _encode(dimensions, [trial.values for trial in trials]):
        nearest = np.minimum(nearest, np.abs(points - tried).max(axis=1))
    return [values for values, distance in zip(drawn, nearest, strict=True) if distance > MINIMUM_DISTANCE]


def _encode(dimensions: Sequence[Dimension], many: Sequence[Mapping[str, Any]]) -> Points:
    """Return the points of values: the place of each number, a column for each name, (values, columns)."""
    columns: list[list[float]] = []
    for dimension in dimensions:
        chosen = [values[dimension.name] for values in many]
        if dimension.ordered:
            columns.append([dimension.place(value) for value in chosen])
        else:
            columns += [[float(value == name) for value in chosen] for name in dimension.choices]
    return np.array(columns).T


def _around(center: float, count: int, generator: np.random.Generator) -> Points:
    """Draw from a normal distribution around a place, truncated to [0, 1]."""
    draws = generator.normal(center, SPREAD, size=20 * count)
    return draws[(draws > 0) & (draws < 1)][:count]


def _cut_off(costs: Points) -> Points:
    best, median = costs.min(), np.median(costs)
    return np.minimum(costs, best + CUT_OFF * (median - best))


def _fit(points: Points, costs: Points) -> GaussianProcessRegressor:
    process = GaussianProcessRegressor(
        Matern(length_scale=0.5, length_scale_bounds=LENGTH_SCALES, nu=2.5),
        alpha=NOISE,
        normalize_y=True,
        n_restarts_optimizer=3,
        random_state=0,
    )
    with warnings.catch_warnings():  # of length scales at their bounds
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(points, costs)
