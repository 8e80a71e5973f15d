"""Lower the learning rate when validation stops improving."""

import math
from typing import Any

import keras

from recipes.config import Schedule, better_when_low
from recipes.training.schedules import LearningRate


class ReduceOnPlateau(keras.callbacks.Callback):
    """Multiply the rate by `factor` after `patience` epochs without improvement, down to `minimum`.

    Args:
        schedule: Settings of the schedule named plateau.
        rate: The learning rate's owner; its `plateau_factor` is what changes.
        metric: Validation metric to watch, the one that chooses the best epoch.
    """

    def __init__(self, schedule: Schedule, rate: LearningRate, metric: str) -> None:
        super().__init__()
        self.parameters = schedule.parameters()
        self.rate = rate
        self.metric = metric
        self.sign = -1.0 if better_when_low(metric) else 1.0
        self.best = -math.inf * self.sign
        self.waited = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start from the full rate."""
        self.restore({"best": -math.inf * self.sign, "waited": 0, "factor": 1.0})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the epoch with the best so far, and lower the rate when the wait is over."""
        value = float((logs or {})[self.metric.replace("validation_", "val_")])
        if self.sign * (value - self.best) > self.parameters["min_delta"]:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.parameters["patience"]:
            lowest = self.parameters["minimum"] / self.rate.highest
            self.rate.plateau_factor.assign(max(self._factor() * self.parameters["factor"], lowest))
            self.waited = 0

    def _factor(self) -> float:
        return float(keras.ops.convert_to_numpy(self.rate.plateau_factor))

    def state(self) -> dict[str, Any]:
        """Return the best value, the wait and the factor reached."""
        return {"best": self.best, "waited": self.waited, "factor": self._factor()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.best, self.waited = float(state["best"]), int(state["waited"])
        self.rate.plateau_factor.assign(state["factor"])
