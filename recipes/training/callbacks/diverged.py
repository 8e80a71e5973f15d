"""Stop at a loss that is no number."""

import math
from typing import Any

import keras

from recipes.config import DivergedError


class StopOnNaN(keras.callbacks.Callback):
    """Raise DivergedError at a loss that is NaN or infinite, with its epoch and step.

    The loss is looked at after each execution of the compiled step, so the step named is the last
    one of the execution in which the loss went bad.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember the epoch for the message."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss."""
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            step = min(batch + 1, self.params["steps"])
            raise DivergedError(
                f"The training loss became {loss} in epoch {self.epoch + 1}, by step {step} of {self.params['steps']}. "
                "A lower optimizer.learning_rate or a longer schedule.warmup may help."
            )
