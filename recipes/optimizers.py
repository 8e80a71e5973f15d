"""Settings → a Keras optimizer."""

from collections.abc import Sequence
from typing import Any

import keras

from recipes.config import Optimizer
from recipes.schedules import LearningRate

NO_HIDDEN_MATRIX = ("embedding", "positions", "convolution", "head", "probabilities")
"""Words in the names of the layers that Muon leaves to AdamW: orthogonal updates are for matrices
between hidden vectors (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""


def build_optimizer(
    settings: Optimizer, learning_rate: LearningRate, variables: Sequence[Any]
) -> keras.optimizers.Optimizer:
    """Build the optimizer of some variables.

    Weight decay is decoupled (Loshchilov & Hutter 2019, arXiv:1711.05101) and acts on matrices and
    kernels only: pulling biases and normalisation scales to 0 changes what a layer computes
    without making it simpler.
    """
    common: dict[str, Any] = {"learning_rate": learning_rate, "global_clipnorm": settings.clip_norm}
    if settings.moving_average:
        common |= {"use_ema": True, "ema_momentum": settings.moving_average}
    own = settings.parameters()
    if settings.name == "sgd":
        return keras.optimizers.SGD(momentum=own["momentum"], **common)
    if settings.name == "adam":
        return keras.optimizers.Adam(beta_2=own["beta_2"], **common)
    if settings.name == "adamw":
        optimizer = keras.optimizers.AdamW(beta_2=own["beta_2"], weight_decay=own["weight_decay"], **common)
    else:
        optimizer = keras.optimizers.Muon(
            momentum=own["momentum"],
            adam_lr_ratio=own["adam_fraction"],
            adam_beta_2=own["beta_2"],
            weight_decay=own["weight_decay"],
            adam_weight_decay=own["weight_decay"],
            exclude_layers=list(NO_HIDDEN_MATRIX),
            **common,
        )
    optimizer.exclude_from_weight_decay(
        var_list=[variable for variable in variables if len(variable.shape) < 2]
    )
    return optimizer
