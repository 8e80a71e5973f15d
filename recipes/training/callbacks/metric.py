"""Base class of callbacks that wait for a metric to improve."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from recipes.training.callbacks.stateful import StatefulCallback

LOW = ("loss", "error", "entropy", "mse", "mae", "perplexity")
"""Endings of the names of metrics that are better when low."""
HIGH = ("accuracy", "auc", "precision", "recall", "score", "r2")
"""Endings of the names of metrics that are better when high."""


@dataclass(eq=False)
class MetricCallback(StatefulCallback):
    """Remember the best value of a metric and how many epochs ago it was.

    Args:
        monitor: Name of the metric in Keras's logs, such as "val_loss".
        patience: Epochs without improvement to wait, at least 1; None for no limit.
        min_delta: Smallest change that counts as an improvement.
        mode: "min" or "max", which values are better; "auto" infers it from the metric's name.

    Raises:
        ValueError: Another mode, or "auto" with an unknown name.

    Attributes:
        best: The best value; infinitely bad before the first.
        waited: Epochs since then.
    """

    monitor: str = "val_loss"
    _: KW_ONLY
    patience: int | None = None
    min_delta: float = 0.0
    mode: Literal["auto", "min", "max"] = "auto"

    def __post_init__(self) -> None:
        super().__init__()
        low, high = self.monitor.endswith(LOW), self.monitor.endswith(HIGH)
        if self.mode not in ("auto", "min", "max") or (self.mode == "auto" and not (low or high)):
            raise ValueError(
                "mode must be min or max, or auto if the metric has a known name. "
                f"Received: monitor={self.monitor!r}, mode={self.mode!r}"
            )
        self.sign = -1.0 if self.mode == "min" or (self.mode == "auto" and low) else 1.0
        self.on_train_begin()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset the best value."""
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

    @property
    def patience_is_over(self) -> bool:
        """Whether the last `patience` epochs brought no improvement."""
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Return the best value and the wait."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.best, self.waited = state["best"], state["waited"]
