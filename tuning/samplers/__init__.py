"""Samplers: pure functions from the search space, the trials so far and the seed to the next values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipes.command_line import quiet_tensorflow
from tuning.plan import Plan
from tuning.samplers import bayesian
from tuning.space import Value, own_values
from tuning.trial import Trial


@dataclass(frozen=True)
class Proposal:
    """The next trial.

    Attributes:
        values: Value of each searched setting.
        epoch_limit: The epoch after which it pauses. None trains all epochs.
        follows: Number of the trial whose checkpoint it continues from.
    """

    values: dict[str, Value]
    epoch_limit: int | None = None
    follows: int | None = None


def propose(plan: Plan, trials: Sequence[Trial], scores: Mapping[int, float]) -> Proposal | None:
    """Return the next trial of a search, or None if there is none at present.

    The first trial has the recipe's own values, a baseline, unless they are outside the space or the
    search is Hyperband.

    Args:
        plan: The settings of the search.
        trials: All trials so far, in the order of their numbers.
        scores: Score of each ended trial by its number; a trial that ended without one failed.
    """
    algorithm = plan.method.algorithm
    if algorithm != "hyperband" and not trials and (own := own_values(plan.recipe, plan.dimensions)):
        return Proposal(own)
    if algorithm == "bayesian":
        values = bayesian.next_values(plan, trials, scores)
        return Proposal(values) if values else None
    with quiet_tensorflow():  # keras-tuner imports it
        from tuning.samplers import hyperband, oracles
    if algorithm == "hyperband":
        chosen = hyperband.next_trial(plan, trials, scores)
        return Proposal(*chosen) if chosen else None
    values = oracles.next_values(plan, trials)
    return Proposal(values) if values else None
