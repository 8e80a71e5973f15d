"""Grid search: all combinations of the dimensions' grid values, in order."""

import itertools
from collections.abc import Sequence

from tuning.plan import Plan
from tuning.space import Value, same_values
from tuning.trial import Trial


def next_values(plan: Plan, trials: Sequence[Trial]) -> dict[str, Value] | None:
    """Return the first combination that no trial has, or None after the last one."""
    names = [dimension.name for dimension in plan.dimensions]
    for combination in itertools.product(*(dimension.grid() for dimension in plan.dimensions)):
        values = dict(zip(names, combination, strict=True))
        if not any(same_values(values, trial.values) for trial in trials):
            return values
    return None
