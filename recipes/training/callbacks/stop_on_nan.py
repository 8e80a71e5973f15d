"""Stop at a loss that is not finite."""

import math
from typing import Any

import keras

from recipes.config.errors import DivergedError


class StopOnNaN(keras.callbacks.Callback):
    """Raise DivergedError when the training loss is NaN or infinite, with its epoch and step.

    The loss is checked after each execution of the compiled step, so the step named is the last one of
    that execution. Keras's TerminateOnNaN names neither the epoch nor what may help.

    >>> model.compile(keras.optimizers.SGD(1e30), "mse")
    >>> history = model.fit(x, y, epochs=9, callbacks=[StopOnNaN()], verbose=0)
    Traceback (most recent call last):
    recipes.config.errors.DivergedError: The training loss became ...

    Raises:
        DivergedError: The loss is not finite.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember the epoch for the message."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the loss."""
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            steps = self.params["steps"] or batch + 1  # Keras does not know the length of every dataset
            raise DivergedError(
                f"The training loss became {loss} in epoch {self.epoch + 1}, by step {min(batch + 1, steps)} of {steps}. "
                "A lower learning rate (optimizer.learning_rate) or a longer warm-up (schedule.warmup) may help."
            )
