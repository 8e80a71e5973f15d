"""Lower the learning rate when validation stops improving."""

from dataclasses import dataclass
from typing import Any

import keras

from recipes.training.callbacks.metric import MetricCallback
from recipes.training.optimizers import schedule_of
from recipes.training.schedules import Plateau


@dataclass(eq=False, kw_only=True)
class ReduceOnPlateau(MetricCallback):
    """Multiply the learning rate by `factor` after `patience` epochs without improvement, down to `minimum`.

    For an optimizer whose learning rate is a number or a `Plateau` schedule, which has a warm-up. Keras's
    ReduceLROnPlateau has none, and starts its wait again when training resumes.

    >>> model.compile(keras.optimizers.SGD(Plateau(0.1, warmup_steps=4)), "mse")
    >>> reduce = ReduceOnPlateau("loss", factor=0.1, patience=1, min_delta=100.0)  # nothing is that much better
    >>> history = model.fit(x, y, epochs=3, callbacks=[reduce], verbose=0)
    >>> round(float(model.optimizer.learning_rate), 4)
    0.001

    Args:
        monitor: Metric that should improve.
        factor: Factor by which the rate is reduced, in (0, 1).
        patience: Epochs without improvement before the rate is reduced, at least 1.
        min_delta: Smallest change that counts as an improvement.
        minimum: Lower bound of the rate.
        mode: "min", "max" or "auto", which infers it from the metric's name.
    """

    patience: int | None = 2
    factor: float = 0.5
    minimum: float = 0.0

    def set_model(self, model: keras.Model) -> None:
        """Find the learning rate.

        Raises:
            ValueError: The learning rate is another schedule.
        """
        super().set_model(model)
        schedule = schedule_of(model.optimizer)
        self.rate = schedule.rate if isinstance(schedule, Plateau) else schedule
        if not isinstance(self.rate, keras.Variable):
            raise ValueError(
                f"ReduceOnPlateau lowers a learning rate that is a number or a Plateau. Received: {schedule}"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the epoch with the best so far."""
        if not self.improved(logs) and self.patience_is_over:
            self.rate.assign(max(self._rate() * self.factor, self.minimum))
            self.waited = 0

    def _rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self.rate))

    def state(self) -> dict[str, Any]:
        """Return the best value, the wait and the rate reached."""
        return {**super().state(), "rate": self._rate()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        super().restore(state)
        self.rate.assign(state["rate"])
