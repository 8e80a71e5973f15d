"""Hyperband: keras-tuner's oracle, in the state that the trials so far lead to.

The oracle sees the recorded trials start and end in the order in which they did, so it needs no state of
its own. keras-tuner starts promoted trials from scratch; here they continue from a checkpoint.
"""

from collections.abc import Mapping, Sequence

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from tuning.plan import Plan
from tuning.samplers.oracles import OBJECTIVE, arguments, opened, values_of
from tuning.space import Value
from tuning.trial import Trial


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
    epochs = {"max_epochs": plan.recipe.training.epochs, "hyperband_iterations": None}  # the budget ends it
    with opened(keras_tuner.oracles.HyperbandOracle(**arguments(plan), **epochs)) as oracle:
        numbers = _replay(oracle, trials, scores)
        answer = oracle.create_trial("next")
    if answer.status != TrialStatus.RUNNING:
        return None
    chosen = answer.hyperparameters.values
    return values_of(plan, answer), chosen["tuner/epochs"], numbers.get(chosen.get("tuner/trial_id"))


def _replay(
    oracle: keras_tuner.Oracle, trials: Sequence[Trial], scores: Mapping[int, float]
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
                oracle.update_trial(trial.trial_id, {OBJECTIVE: scores[number]})
                trial.status = TrialStatus.COMPLETED
            oracle.end_trial(trial)
    return {trial.trial_id: number for number, trial in created.items()}
