"""keras-tuner's oracles, built for one question each: the trials' files are the only state of a search."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import TrialStatus

from recipes.config import flatten, to_dict
from recipes.data.streams import stream
from tuning.plan import Plan
from tuning.space import Value, same_values
from tuning.trial import Trial

OBJECTIVE = "score"
ORACLES = {"random": keras_tuner.oracles.RandomSearchOracle, "grid": keras_tuner.oracles.GridSearchOracle}


def next_values(plan: Plan, trials: Sequence[Trial]) -> dict[str, Value] | None:
    """Return values that no trial has, or None if the space is exhausted.

    A random search draws uniformly. A grid search takes the recipe's own values first, then all combinations
    of choices, whole numbers, and ten values of any other range. The oracle gives its own sequence, and
    values that a trial has are skipped: a resumed search repeats and omits none.

    Args:
        plan: The settings of the search.
        trials: All trials so far.
    """
    with opened(ORACLES[plan.method.algorithm](**arguments(plan, len(trials)))) as oracle:
        while (answer := oracle.create_trial("next")).status == TrialStatus.RUNNING:
            values = values_of(plan, answer)
            if not any(same_values(values, trial.values) for trial in trials):
                return values
            answer.status = TrialStatus.FAILED  # neither oracle looks at results
            oracle.end_trial(answer)
    return None


@contextlib.contextmanager
def opened(oracle: keras_tuner.Oracle) -> Iterator[keras_tuner.Oracle]:
    """Give an oracle a temporary folder for the files of its trials, and free it at the end."""
    oracle.verbose = 0
    oracle.save = lambda: None  # its state ends with the question
    with tempfile.TemporaryDirectory() as folder:
        BaseTuner(oracle, directory=folder)  # sets the folder
        yield oracle
    oracle.__dict__.clear()  # keras-tuner keeps every oracle for ever, as the key of its lock


def arguments(plan: Plan, *draw: int) -> dict[str, Any]:
    """Return the arguments of an oracle: the space, with the recipe's own values as defaults, and the seed.

    Args:
        plan: The settings of the search.
        draw: Number of the draw, for an oracle that draws from another seed each time.
    """
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
    return {
        "objective": keras_tuner.Objective(OBJECTIVE, "max" if plan.sign > 0 else "min"),
        "hyperparameters": space,
        # keras-tuner adds 1 for each value that it draws, and replaces 0 by a random seed.
        "seed": int(stream(plan.method.seed, "search", *draw).integers(1, 2**32)),
        "max_consecutive_failed_trials": 2**31,
    }


def values_of(plan: Plan, trial: Any) -> dict[str, Value]:
    """Return the values of a trial of an oracle, with True and False, which keras-tuner makes 1 and 0."""
    values = {dimension: trial.hyperparameters.values[dimension.name] for dimension in plan.dimensions}
    return {
        dimension.name: dimension.choices[dimension.choices.index(value)] if dimension.choices else value
        for dimension, value in values.items()
    }
