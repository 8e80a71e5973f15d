"""Random search: values drawn uniformly from the space."""

from collections.abc import Sequence

from recipes.data.streams import stream
from tuning.plan import Plan
from tuning.space import Value, same_values
from tuning.trial import Trial

DRAWS = 20
"""Draws that all repeat earlier trials: the space is exhausted."""


def next_values(plan: Plan, trials: Sequence[Trial]) -> dict[str, Value] | None:
    """Return values that no trial has, or None if the space is exhausted."""
    generator = stream(plan.method.seed, "random search", len(trials))
    for places in generator.uniform(size=(DRAWS, len(plan.dimensions))).tolist():
        values = {
            dimension.name: dimension.value_at(place)
            for dimension, place in zip(plan.dimensions, places, strict=True)
        }
        if not any(same_values(values, trial.values) for trial in trials):
            return values
    return None
