"""Keep the weights of the best epoch, and stop early."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recipes.training.callbacks.metric import MetricCallback


@dataclass(eq=False)
class KeepBest(MetricCallback):
    """Remember the weights of the best epoch, put them into the model when training ends, and stop early.

    Keras's EarlyStopping does so too. This one never takes NaN for the best, and a `Checkpoint` saves its state. After
    a `MovingAverage` in the list of callbacks it keeps the averages.

    >>> keep_best = KeepBest("val_loss", patience=3)
    >>> history = model.fit(x, y, validation_split=0.5, epochs=5, callbacks=[keep_best], verbose=0)
    >>> keep_best.best == min(history.history["val_loss"])
    True

    Args:
        monitor: Metric that chooses the epoch.
        patience: Epochs without improvement after which training stops, at least 1; None never stops.
        min_delta: Smallest change that counts as an improvement.
        first_epoch: First epoch, counted from 1, that may be the best one.
        mode: "min", "max" or "auto", which infers it from the metric's name.

    Attributes:
        best: The metric's best value; infinitely bad before the first epoch that counts.
        best_epoch: The epoch that gave it, counted from 1; 0 before that.
        waited: Epochs since then.
    """

    first_epoch: int = field(default=1, kw_only=True)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset the best epoch."""
        super().on_train_begin()
        self.best_epoch = 0
        self.best_weights: list[npt.NDArray[Any]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the epoch with the best so far."""
        if epoch + 1 < self.first_epoch:
            return
        if self.improved(logs):
            self.best_epoch, self.best_weights = epoch + 1, self.model.get_weights()
        elif self.patience_is_over:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the best weights into the model."""
        self.put_best()

    def put_best(self) -> None:
        """Put the best weights so far, if any, into the model."""
        if self.best_weights:
            self.model.set_weights(self.best_weights)

    def state(self) -> dict[str, Any]:
        """Return the best value, its epoch and weights, and the wait."""
        return {**super().state(), "best_epoch": self.best_epoch, "best_weights": self.best_weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        super().restore(state)
        self.best_epoch = state["best_epoch"]
        self.best_weights = [np.array(weight) for weight in state["best_weights"]]
