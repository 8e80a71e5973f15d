"""Networks that predict a column of a table from the others."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from recipes.config import TableModel
from recipes.models import Tensor


def build_regression(
    settings: TableModel,
    features: npt.NDArray[np.float32],
    targets: npt.NDArray[np.float32],
    categories: Sequence[int],
    missing: Sequence[bool],
) -> keras.Model:
    """Build a network that predicts a number in its own unit; the training part decides how it is scaled.

    Args:
        settings: Sizes of the layers.
        features: (n, columns) training rows, as `recipes.data.table.Rows` has them.
        targets: (n, 1) training targets.
        categories: Number of categories of each column, 0 for a column of numbers.
        missing: Whether values of each column may be missing.

    Returns:
        A functional model, float32 (batch, columns) → float32 (batch, 1).
    """
    row, x = _hidden(settings, features, categories, missing)
    x = layers.Dense(1, dtype="float32", name="standardized")(x)  # (batch, 1)
    rescale = layers.Rescaling(
        float(targets.std()), float(targets.mean()), dtype="float32", name="prediction"
    )
    return keras.Model(row, rescale(x), name="regression")


def build_classifier(
    settings: TableModel,
    features: npt.NDArray[np.float32],
    num_classes: int,
    categories: Sequence[int],
    missing: Sequence[bool],
) -> keras.Model:
    """Build a network that predicts a class.

    Args:
        settings: Sizes of the layers.
        features: (n, columns) training rows, as `recipes.data.table.Rows` has them.
        num_classes: Number of classes, at least 2.
        categories: Number of categories of each column, 0 for a column of numbers.
        missing: Whether values of each column may be missing.

    Returns:
        A functional model, float32 (batch, columns) → class probabilities float32 (batch, num_classes).
    """
    row, x = _hidden(settings, features, categories, missing)
    output = layers.Dense(num_classes, activation="softmax", dtype="float32", name="probabilities")
    return keras.Model(row, output(x), name="table_classifier")


def _hidden(
    settings: TableModel,
    features: npt.NDArray[np.float32],
    categories: Sequence[int],
    missing: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Return the input, (batch, columns), and the output of the hidden layers, (batch, units)."""
    row = keras.Input((len(categories),), name="features")
    means, variances = np.nanmean(features, axis=0).tolist(), np.nanvar(features, axis=0).tolist()
    # In the data's own units float16 overflows and bfloat16 rounds.
    if any(categories) or any(missing):
        encode = EncodeColumns(means, variances, categories, missing, dtype="float32", name="encode")
    else:
        encode = layers.Normalization(mean=means, variance=variances, dtype="float32", name="normalize")
    x = encode(row)
    for number, units in enumerate(settings.dense, start=1):
        x = layers.Dense(units, activation="relu", name=f"dense_{number}")(x)
    return row, x


@keras.saving.register_keras_serializable(package="keras_recipes")
class EncodeColumns(layers.Layer):
    """Standardize numbers, mark missing ones, and encode categories one-hot.

    A missing number becomes the mean, and another output is 1 for it.

    Args:
        means, variances: Of each column of numbers; those of categories are not used.
        categories: Number of categories of each column, 0 for a column of numbers.
        missing: Whether values of each column may be missing.
    """

    def __init__(
        self,
        means: Sequence[float],
        variances: Sequence[float],
        categories: Sequence[int],
        missing: Sequence[bool],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.means, self.variances = list(means), list(variances)
        self.categories, self.missing = list(categories), list(missing)

    def call(self, row: Tensor) -> Tensor:
        """Return the encoded columns, (batch, outputs), from (batch, columns): categories are their places from 1."""
        parts = []
        for column, count in enumerate(self.categories):
            if count:
                index = ops.cast(row[:, column], "int32")  # (batch,); 0: missing or unknown
                parts.append(ops.one_hot(index, count + 1, dtype=self.compute_dtype))
            else:
                value = row[:, column : column + 1]  # (batch, 1)
                absent = ops.isnan(value)
                scaled = (value - self.means[column]) / max(
                    math.sqrt(self.variances[column]), keras.config.epsilon()
                )
                parts.append(ops.where(absent, ops.zeros_like(scaled), scaled))
                if self.missing[column]:
                    parts.append(ops.cast(absent, self.compute_dtype))
        return ops.concatenate(parts, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        names = ("means", "variances", "categories", "missing")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
