"""Average the weights over the steps: validate, keep and save the average, train the weights themselves."""

from typing import Any

import keras
import numpy.typing as npt
from keras import ops

from recipes.training.optimizers import inner

Tensor = Any


class MovingAverage(keras.callbacks.Callback):
    """Keep an exponential moving average of the model's weights, and put it in for each validation.

    average ← average + (1 - d) (weights - average), d = min(decay, (1 + n) / (10 + n)) after n updates: as
    in TensorFlow's ExponentialMovingAverage, so that the average never spans more than about a tenth of the
    steps so far. A constant 0.999 would keep a third of the initial weights after 1,000 steps.

    The statistics of batch normalisation are averaged with the trainable weights: those of the
    weights of the last step belong to another network. Keras's `use_ema` averages trainable weights
    alone, by a constant decay.

    Args:
        decay: Largest part of the average that a step leaves, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def set_model(self, model: keras.Model) -> None:
        """Make room for the averages, and extend the step of the model that is to be trained."""
        super().set_model(model)
        self.variables = [weight for weight in model.weights if "float" in weight.dtype]
        with model.distribute_strategy.scope():
            self.averages = [
                keras.Variable(
                    ops.convert_to_numpy(variable),
                    dtype=variable.dtype,
                    trainable=False,
                    aggregation="only_first_replica",  # they are the same on all
                    name="average",
                )
                for variable in self.variables
            ]
        self.step_of_model = model.train_step
        model.train_step = self.step

    def step(self, data: Any) -> dict[str, Tensor]:
        """Make a training step, then move the averages."""
        logs: dict[str, Tensor] = self.step_of_model(data)
        updates = ops.cast(inner(self.model.optimizer).iterations, "float32")
        decay = ops.minimum(self.decay, (1.0 + updates) / (10.0 + updates))
        for variable, average in zip(self.variables, self.averages, strict=True):
            average.assign(average + (1.0 - decay) * (variable - average))
        return logs

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start from the weights there are."""
        self.restore({"averages": self.variables})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Give the model its own step back."""
        self.model.train_step = self.step_of_model

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put the averages in."""
        self._swap()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the trained weights back."""
        self._swap()

    def _swap(self) -> None:
        for variable, average in zip(self.variables, self.averages, strict=True):
            value = ops.convert_to_numpy(variable)
            variable.assign(average)
            average.assign(value)

    def weights(self) -> list[npt.NDArray[Any]]:
        """Return the averages, in the order of `model.get_weights()`."""
        averages = {
            id(variable): average for variable, average in zip(self.variables, self.averages, strict=True)
        }
        return [ops.convert_to_numpy(averages.get(id(weight), weight)) for weight in self.model.weights]

    def state(self) -> dict[str, Any]:
        """Return the averages."""
        return {"averages": [ops.convert_to_numpy(average) for average in self.averages]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take averages back."""
        for average, value in zip(self.averages, state["averages"], strict=True):
            average.assign(value)
