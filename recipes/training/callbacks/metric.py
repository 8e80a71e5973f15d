"""Base class of callbacks that wait for a metric to improve."""

import math
from typing import Any, Literal

from recipes.training.callbacks.stateful import StatefulCallback

Mode = Literal["auto", "min", "max"]
LOW = ("loss", "error", "entropy", "mse", "mae", "perplexity")
"""Endings of the names of metrics that are better when low."""
HIGH = ("accuracy", "auc", "precision", "recall", "score", "r2")
"""Endings of the names of metrics that are better when high."""


class MetricCallback(StatefulCallback):
    """Remember the best value of a metric and how many epochs ago it was.

    Args:
        monitor: Name of the metric in Keras's logs, such as "val_loss".
        patience: Epochs without improvement to wait, at least 1; None for ever.
        min_delta: Smallest change that counts as an improvement.
        mode: "min" or "max", which values are better; "auto" goes by the metric's name.

    Raises:
        ValueError: "auto", and a name that does not say it.

    Attributes:
        best: The best value; infinitely bad before the first.
        waited: Epochs since then.
    """

    def __init__(self, monitor: str, patience: int | None, min_delta: float, mode: Mode) -> None:
        super().__init__()
        if mode not in ("min", "max") and not monitor.endswith(LOW + HIGH):
            raise ValueError(
                f"mode must be min or max: the metric's name does not say it. Received: {monitor=}, {mode=}"
            )
        self.monitor = monitor
        self.patience = math.inf if patience is None else patience
        self.min_delta = min_delta
        self.sign = -1.0 if mode == "min" or (mode == "auto" and monitor.endswith(LOW)) else 1.0
        self.on_train_begin()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget an earlier training."""
        self.best = -math.inf * self.sign
        self.waited = 0

    def improved(self, logs: dict[str, Any] | None) -> bool:
        """Compare an epoch with the best so far; NaN is never better.

        Raises:
            ValueError: The epoch has no such metric.
        """
        metrics = logs or {}
        if self.monitor not in metrics:
            raise ValueError(
                f"{type(self).__name__} monitors a metric of the epoch: {', '.join(metrics)}. "
                f"Received: monitor={self.monitor!r}"
            )
        value = float(metrics[self.monitor])
        better = self.sign * (value - self.best) > self.min_delta
        self.best, self.waited = (value, 0) if better else (self.best, self.waited + 1)
        return better

    def state(self) -> dict[str, Any]:
        """Return the best value and the wait."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.best, self.waited = state["best"], state["waited"]
