"""Settings → a Keras optimizer."""

from collections.abc import Sequence
from typing import Any

import keras

from recipes.config import Optimizer
from recipes.schedules import LearningRate


def build_optimizer(
    settings: Optimizer, learning_rate: LearningRate, variables: Sequence[Any]
) -> keras.optimizers.Optimizer:
    """Build the optimizer of some variables.

    Weight decay is decoupled (Loshchilov & Hutter 2019, arXiv:1711.05101) and acts on matrices and
    kernels only: pulling biases and normalisation scales to 0 changes what a layer computes
    without making it simpler.
    """
    average = {"use_ema": True, "ema_momentum": settings.moving_average} if settings.moving_average else {}
    if settings.name == "adam":
        return keras.optimizers.Adam(learning_rate, **average)
    if settings.name == "sgd":
        momentum = 0.9 if settings.momentum is None else settings.momentum
        return keras.optimizers.SGD(learning_rate, momentum=momentum, **average)
    decay = 0.01 if settings.weight_decay is None else settings.weight_decay
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=decay, **average)
    optimizer.exclude_from_weight_decay(
        var_list=[variable for variable in variables if len(variable.shape) < 2]
    )
    return optimizer
