"""Networks for regression on a table."""

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from recipes.config import RegressionModel


def build_regression(
    settings: RegressionModel, features: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]
) -> keras.Model:
    """Build a network in the data's own units; the training part decides how they are scaled.

    Args:
        settings: Sizes of the layers.
        features: (n, features) training rows.
        targets: (n, 1) training targets.

    Returns:
        A functional model, float32 (batch, features) → float32 (batch, 1).
    """
    count = features.shape[1]
    means, variances = features.mean(axis=0).tolist(), features.var(axis=0).tolist()
    x = row = keras.Input((count,), name="features")  # (batch, features)
    # In the data's own units float16 overflows and bfloat16 rounds.
    x = layers.Normalization(mean=means, variance=variances, dtype="float32", name="normalize")(x)
    for number, units in enumerate(settings.dense, start=1):
        x = layers.Dense(units, activation="relu", name=f"dense_{number}")(x)
    x = layers.Dense(1, dtype="float32", name="standardized")(x)  # (batch, 1)
    rescale = layers.Rescaling(
        float(targets.std()), float(targets.mean()), dtype="float32", name="prediction"
    )
    prediction = rescale(x)
    return keras.Model(row, prediction, name="regression")
