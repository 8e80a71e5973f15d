"""How much each setting matters to the objective."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestRegressor

from tuning.plan import Trial
from tuning.space import Dimension, Value

ENOUGH_TRIALS = 6
"""Trials with a value without which a forest says nothing."""
TREES = 100
GRID = 24
"""Values at which a setting's own effect is looked at."""


def importance(dimensions: Sequence[Dimension], trials: Sequence[Trial]) -> dict[str, float]:
    """Return each setting's own part of the objective's variance over the space, largest first.

    Functional ANOVA's main effects (Hutter et al. 2014, "An Efficient Approach for Assessing
    Hyperparameter Importance") of a random forest that learnt the objective from the trials. What is
    missing to 1 is due to settings together. Empty where there are too few trials.

    Args:
        dimensions: What was varied.
        trials: The trials; those without a value are left out.
    """
    scored = [trial for trial in trials if trial.value is not None]
    if len(scored) < ENOUGH_TRIALS:
        return {}
    inputs = np.array([[place(each, trial.values[each.name]) for each in dimensions] for trial in scored])
    values = np.array([trial.value for trial in scored])
    forest = RandomForestRegressor(TREES, random_state=0, min_samples_leaf=2).fit(inputs, values)
    space = np.random.default_rng(0).uniform(size=(512, len(dimensions)))
    total = float(np.var(forest.predict(space)))
    parts = {
        dimension.name: float(np.var(_effect(forest, space, column))) / total if total else 0.0
        for column, dimension in enumerate(dimensions)
    }
    return dict(sorted(parts.items(), key=lambda part: -part[1]))


def _effect(
    forest: RandomForestRegressor, space: npt.NDArray[np.float64], column: int
) -> npt.NDArray[np.float64]:
    """Return the forest's mean over the space where one setting is held, for values of that setting."""
    grid = (np.arange(GRID) + 0.5) / GRID
    held = np.repeat(space[np.newaxis], GRID, axis=0)  # (GRID, points, settings)
    held[:, :, column] = grid[:, np.newaxis]
    means: npt.NDArray[np.float64] = (
        forest.predict(held.reshape(-1, held.shape[-1])).reshape(GRID, -1).mean(axis=1)
    )
    return means


def place(dimension: Dimension, value: Value) -> float:
    """Return where a value stands in its dimension, from 0 to 1."""
    if dimension.choices:
        return (dimension.choices.index(value) + 0.5) / len(dimension.choices)
    low, high, number = dimension.low, dimension.high, float(value)
    if dimension.log:
        low, high, number = np.log(low), np.log(high), np.log(number)
    return float((number - low) / (high - low))
