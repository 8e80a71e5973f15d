"""Grid search."""

import itertools
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from tuning.oracles.durable import DurableOracle
from tuning.space import Value


class GridSearch(DurableOracle):
    """All combinations in turn, ranges in ten steps.

    keras-tuner's own forgets on a resume where it was.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the first combination that was not tried."""
        dimensions = self.get_space().space
        for combination in itertools.product(*(_steps(dimension) for dimension in dimensions)):
            values = {dimension.name: value for dimension, value in zip(dimensions, combination, strict=True)}
            if not self._duplicate(values):
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED}


def _steps(dimension: Any) -> list[Value]:
    values = list(dimension.values)
    return values if isinstance(dimension, keras_tuner.engine.hyperparameters.Choice) else sorted(values)
