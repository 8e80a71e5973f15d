"""Keep the best epoch's weights, and stop when no better epoch comes."""

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from recipes.config import EarlyStopping, better_when_low
from recipes.training.callbacks.moving_average import MovingAverage


class KeepBest(keras.callbacks.Callback):
    """Remember the validated weights of the best epoch, put them into the model when training ends.

    Keras's EarlyStopping does so too, also where nothing stopped early. Unlike it, this one keeps the
    weights that were scored when these are moving averages, never takes NaN for the best, and can say
    its state for a resume.

    Args:
        settings: Metric, patience in epochs, smallest change.
        first_epoch: First epoch, counted from 1, that may be the best one.
        average: What is validated in place of the trained weights, if anything is.

    Attributes:
        best: The metric's best value; infinitely bad before the first epoch that counts.
        best_epoch: The epoch that gave it, counted from 1; 0 before that.
        waited: Epochs since then.
    """

    def __init__(
        self, settings: EarlyStopping, *, first_epoch: int = 1, average: MovingAverage | None = None
    ) -> None:
        super().__init__()
        self.average = average
        self.settings = settings
        self.first_epoch = first_epoch
        self.sign = -1.0 if better_when_low(settings.metric) else 1.0
        self._reset()

    def _reset(self) -> None:
        self.best = -math.inf * self.sign
        self.best_epoch = 0
        self.waited = 0
        self.best_weights: list[npt.NDArray[Any]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget an earlier training."""
        self._reset()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the epoch with the best so far."""
        if epoch + 1 < self.first_epoch:
            return
        value = float((logs or {})[self.settings.metric.replace("validation_", "val_")])
        if self.sign * (value - self.best) > self.settings.min_delta:
            self.best, self.best_epoch, self.waited = value, epoch + 1, 0
            self.best_weights = self.average.weights() if self.average else self.model.get_weights()
            return
        self.waited += 1
        if self.settings.patience is not None and self.waited >= self.settings.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the best weights into the model."""
        self.put_best()

    def put_best(self) -> None:
        """Put the best weights so far into the model; before there are any, leave it as it is."""
        if self.best_weights:
            self.model.set_weights(self.best_weights)

    def state(self) -> dict[str, Any]:
        """Return the best value, its epoch and weights, and the wait."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self.waited,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.best, self.best_epoch, self.waited = state["best"], state["best_epoch"], state["waited"]
        self.best_weights = [np.array(weight) for weight in state["best_weights"]]
