"""Importance of each searched setting for the objective."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestRegressor

from tuning.space import Dimension
from tuning.trial import Trial

MINIMUM_TRIALS = 6
"""Trials with a value that a forest needs."""
TREES = 100
GRID = 24
"""Values at which the effect of a setting is evaluated."""


def importance(dimensions: Sequence[Dimension], trials: Sequence[Trial]) -> dict[str, float]:
    """Return the share of the objective's variance that each setting alone explains, largest first.

    The main effects of functional ANOVA (Hutter et al. 2014, "An Efficient Approach for Assessing
    Hyperparameter Importance") of a random forest that is fitted to the trials. The rest, up to 1, is
    due to interactions. Empty if there are too few trials.

    Args:
        dimensions: The searched settings.
        trials: The trials; those without a value are left out.
    """
    scored = [trial for trial in trials if trial.value is not None]
    if len(scored) < MINIMUM_TRIALS:
        return {}
    inputs = np.array([[each.place(trial.values[each.name]) for each in dimensions] for trial in scored])
    values = np.array([trial.value for trial in scored])
    forest = RandomForestRegressor(TREES, random_state=0, min_samples_leaf=2).fit(inputs, values)
    space = np.random.default_rng(0).uniform(size=(512, len(dimensions)))
    total = float(np.var(forest.predict(space)))
    shares = {
        dimension.name: float(np.var(_effect(forest, space, column))) / total if total else 0.0
        for column, dimension in enumerate(dimensions)
    }
    return dict(sorted(shares.items(), key=lambda share: -share[1]))


def _effect(
    forest: RandomForestRegressor, space: npt.NDArray[np.float64], column: int
) -> npt.NDArray[np.float64]:
    """Return the mean prediction over the space for each value of one setting, (GRID,)."""
    grid = (np.arange(GRID) + 0.5) / GRID
    held = np.repeat(space[np.newaxis], GRID, axis=0)  # (GRID, points, settings)
    held[:, :, column] = grid[:, np.newaxis]
    means: npt.NDArray[np.float64] = (
        forest.predict(held.reshape(-1, held.shape[-1])).reshape(GRID, -1).mean(axis=1)
    )
    return means
