"""Hyperband: keras-tuner's oracle, in the state that the trials so far lead to.

The oracle sees the recorded trials start and end in the order in which they did, so it needs no state of
its own. keras-tuner starts promoted trials from scratch; here they continue from a checkpoint.
"""

import tempfile
from collections.abc import Mapping, Sequence

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import TrialStatus

from recipes.config import flatten, to_dict
from recipes.data.streams import stream
from tuning.plan import Plan
from tuning.space import Value
from tuning.trial import Trial


class _Oracle(keras_tuner.oracles.HyperbandOracle):
    """keras-tuner's Hyperband oracle, which keeps no files."""

    def save(self) -> None:
        """Do nothing: the trials' files are the state."""


def next_trial(
    plan: Plan, trials: Sequence[Trial], scores: Mapping[int, float]
) -> tuple[dict[str, Value], int, int | None] | None:
    """Return the next trial, or None if there is none at present.

    Args:
        plan: The settings of the search.
        trials: All trials so far.
        scores: Score of each ended trial by its number; a trial that ended without one failed.

    Returns:
        The values, the epoch after which the trial pauses, and the number of the trial it continues from.
    """
    oracle = _Oracle(
        objective=keras_tuner.Objective(plan.objective, "max" if plan.sign > 0 else "min"),
        max_epochs=plan.recipe.training.epochs,
        hyperband_iterations=None,  # the budget of the search ends it
        hyperparameters=_hyperparameters(plan),
        # keras-tuner adds 1 for each value that it draws, and replaces 0 by a random seed.
        seed=int(stream(plan.method.seed, "search").integers(1, 2**32)),
        max_consecutive_failed_trials=2**31,
    )
    oracle.verbose = 0
    with tempfile.TemporaryDirectory() as folder:
        BaseTuner(oracle, directory=folder)  # sets the folder where the oracle writes its trials
        numbers = _replay(oracle, plan, trials, scores)
        answer = oracle.create_trial("next")
    oracle.__dict__.clear()  # keras-tuner keeps every oracle for ever, as the key of its lock
    if answer.status != TrialStatus.RUNNING:
        return None
    chosen = answer.hyperparameters.values
    values = {dimension.name: chosen[dimension.name] for dimension in plan.dimensions}
    return values, chosen["tuner/epochs"], numbers.get(chosen.get("tuner/trial_id"))


def _replay(
    oracle: keras_tuner.Oracle, plan: Plan, trials: Sequence[Trial], scores: Mapping[int, float]
) -> dict[str, int]:
    """Let the oracle see all trials start and end; return the number of each of its trials."""
    starts = [(trial.started, False, trial.number) for trial in trials]
    ends = [
        (trial.ended or trial.started, True, trial.number) for trial in trials if trial.status != "running"
    ]
    values = {trial.number: trial.values for trial in trials}
    created = {}
    for _, is_end, number in sorted(starts + ends):
        if not is_end:
            trial = oracle.create_trial(str(number))
            if trial.status == TrialStatus.RUNNING:
                created[number] = trial
                trial.hyperparameters.values.update(values[number])
        elif number in created:
            trial = created[number]
            trial.status = TrialStatus.FAILED
            if number in scores:
                oracle.update_trial(trial.trial_id, {plan.objective: scores[number]})
                trial.status = TrialStatus.COMPLETED
            oracle.end_trial(trial)
    return {trial.trial_id: number for number, trial in created.items()}


def _hyperparameters(plan: Plan) -> keras_tuner.HyperParameters:
    """Return the search space for keras-tuner, with the recipe's own values as defaults if they are inside."""
    own = dict(flatten(to_dict(plan.recipe)))
    space = keras_tuner.HyperParameters()
    for dimension in plan.dimensions:
        default = {"default": own[dimension.name]} if dimension.contains(own[dimension.name]) else {}
        if dimension.choices:
            space.Choice(dimension.name, list(dimension.choices), ordered=dimension.ordered, **default)
            continue
        add = space.Int if isinstance(dimension.low, int) else space.Float
        sampling = "log" if dimension.log else "linear"
        add(dimension.name, dimension.low, dimension.high, sampling=sampling, **default)
    return space
