"""Average the weights over the steps: validate, keep and save the average, train the weights themselves."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from recipes.models import Tensor
from recipes.training.callbacks.stateful import StatefulCallback, check_built
from recipes.training.optimizers import unscaled


class MovingAverage(StatefulCallback):
    """Keep an exponential moving average of the model's weights.

    average ← average + (1 - d) (weights - average), d = min(decay, (1 + n) / (10 + n)) after n updates: as
    in TensorFlow's ExponentialMovingAverage, so that the average never spans more than about a tenth of the
    steps so far. After 1,000 steps with a constant decay of 0.999, a third of the average would be the initial weights.

    The statistics of batch normalisation are averaged with the trainable weights: those of the
    last step do not fit averaged weights. Keras's `use_ema` averages trainable weights alone, by a constant decay.

    The model holds the averages from each validation to the next epoch, and after training. Must come before the
    callbacks that read the weights at the end of an epoch. For Keras's TensorFlow backend.

    >>> history = model.fit(x, y, epochs=2, callbacks=[MovingAverage(0.999), KeepBest("loss")], verbose=0)

    Args:
        decay: Largest decay of the average per step, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def set_model(self, model: keras.Model) -> None:
        """Create the averages, and extend the model's training step.

        Raises:
            ValueError: The model is not built.
        """
        super().set_model(model)
        check_built(self, model)
        self.variables = [weight for weight in model.weights if "float" in weight.dtype]
        with model.distribute_strategy.scope():
            self.others = [
                keras.Variable(
                    ops.convert_to_numpy(variable),
                    dtype=variable.dtype,
                    trainable=False,
                    aggregation="only_first_replica",  # they are the same on all
                    name="average",
                )
                for variable in self.variables
            ]
        step = model.train_step
        interrupted = getattr(step, "__self__", None)  # the MovingAverage of a fit that did not end
        self.step_of_model: Callable[[Any], dict[str, Tensor]] = (
            interrupted.step_of_model if isinstance(interrupted, MovingAverage) else step
        )
        model.train_step = self.step
        model.train_function = None  # of an earlier fit: Keras compiles another

    def step(self, data: Any) -> dict[str, Tensor]:
        """Make a training step, then update the averages."""
        logs = self.step_of_model(data)
        updates = ops.cast(unscaled(self.model.optimizer).iterations, "float32")
        decay = ops.minimum(self.decay, (1.0 + updates) / (10.0 + updates))
        for variable, average in zip(self.variables, self.others, strict=True):
            average.assign(average + (1.0 - decay) * (variable - average))
        return logs

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start from the model's weights."""
        self.averaged = False
        for variable, average in zip(self.variables, self.others, strict=True):
            average.assign(variable)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the trained weights back into the model."""
        self._hold(averages=False)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put the averages into the model."""
        self._hold(averages=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the averages into the model where no validation did."""
        self._hold(averages=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Give the model its own training step back."""
        self.model.train_step = self.step_of_model
        self.model.train_function = None

    def _hold(self, *, averages: bool) -> None:
        """Swap the model's weights with the others, unless it holds the right ones already."""
        if self.averaged == averages:
            return
        self.averaged = averages
        for variable, other in zip(self.variables, self.others, strict=True):
            value = ops.convert_to_numpy(variable)
            variable.assign(other)
            other.assign(value)

    def state(self) -> dict[str, Any]:
        """Return the trained weights, at the end of an epoch: the model holds the averages."""
        return {"trained": [ops.convert_to_numpy(weight) for weight in self.others]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the trained weights back."""
        self.averaged = True
        for weight, value in zip(self.others, state["trained"], strict=True):
            weight.assign(value)
