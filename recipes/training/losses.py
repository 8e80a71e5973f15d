"""Losses of a classifier whose outputs are probabilities and whose labels are one-hot."""

from typing import Any

import keras
from keras import ops

from recipes.config import LossName

Tensor = Any


def build_loss(name: LossName) -> keras.losses.Loss:
    """Return the loss of a name: labels and outputs (batch, classes) → their mean."""
    if name == "cross-entropy":
        return keras.losses.CategoricalCrossentropy()
    if name == "mean-squared-error":
        return keras.losses.MeanSquaredError()
    return MultiClassHinge()


class MultiClassHinge(keras.losses.Loss):
    """How far the true class is from beating all others by a margin of 1 (Crammer & Singer 2001).

    max(0, 1 + max over the others of z - z of the true class). Differences of log-probabilities are
    differences of logits, so it does not matter that outputs are probabilities.
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each example, (batch,)."""
        scores = ops.log(ops.maximum(y_pred, 1e-30))
        of_truth = ops.sum(y_true * scores, axis=-1)
        of_others = ops.max(scores - 1e9 * y_true, axis=-1)
        return ops.maximum(1.0 + of_others - of_truth, 0.0)
