"""Validate, keep and save the moving average of the weights, train the weights themselves."""

from typing import Any

import keras
import numpy.typing as npt
from keras import ops

from recipes.optimizers import inner


class ValidateMovingAverage(keras.callbacks.Callback):
    """Put the optimizer's averaged weights into the model for each validation, and take them out again.

    Keras's `SwapEMAWeights` leaves them in between epochs, where a checkpoint would take them for
    the weights that are trained. Here the model holds averaged weights only while it is validated.
    """

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put the averages in."""
        self._swap()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the trained weights back."""
        self._swap()

    def _swap(self) -> None:
        optimizer = inner(self.model.optimizer)
        for variable, average in zip(
            self.model.trainable_variables, optimizer._model_variables_moving_average, strict=True
        ):
            value = ops.convert_to_numpy(variable)
            variable.assign(average)
            average.assign(value)


def validated_weights(model: keras.Model) -> list[npt.NDArray[Any]]:
    """Return the weights that validation scores, in the order of `model.get_weights()`.

    With a moving average of the weights these are the averages, and the trained ones without.
    """
    optimizer = inner(model.optimizer)
    if not optimizer.use_ema:
        return list(model.get_weights())
    averages = {
        id(variable): average
        for variable, average in zip(
            model.trainable_variables, optimizer._model_variables_moving_average, strict=True
        )
    }
    return [ops.convert_to_numpy(averages.get(id(variable), variable)) for variable in model.weights]
