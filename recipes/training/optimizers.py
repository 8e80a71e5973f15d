"""Settings → a Keras optimizer."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from recipes.config import Optimizer, OptimizerName
from recipes.models.parameters import is_matrix
from recipes.training.schedules import LearningRate

NO_HIDDEN_MATRIX = ("embedding", "positions", "convolution", "head", "logits", "probabilities")
"""Words in the names of the layers that Muon leaves to AdamW: orthogonal updates are for matrices
between hidden vectors (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""


# Constructor, and which of our settings each of its arguments takes.
RULES: dict[OptimizerName, tuple[Callable[..., keras.optimizers.Optimizer], dict[str, str]]] = {
    "gradient-descent": (keras.optimizers.SGD, {}),
    "sgd": (keras.optimizers.SGD, {}),
    "momentum": (keras.optimizers.SGD, {"momentum": "momentum"}),
    "adagrad": (keras.optimizers.Adagrad, {"initial_accumulator_value": "initial_accumulator"}),
    "rmsprop": (keras.optimizers.RMSprop, {"rho": "beta_2", "momentum": "momentum"}),
    "adam": (keras.optimizers.Adam, {"beta_1": "beta_1", "beta_2": "beta_2"}),
    "adamw": (keras.optimizers.AdamW, {"beta_1": "beta_1", "beta_2": "beta_2"}),
    "muon": (
        functools.partial(keras.optimizers.Muon, exclude_layers=list(NO_HIDDEN_MATRIX)),
        {
            "momentum": "momentum",
            "adam_beta_2": "beta_2",
            "adam_lr_ratio": "adam_fraction",
            "adam_weight_decay": "weight_decay",
        },
    ),
}


def build_optimizer(
    settings: Optimizer, learning_rate: LearningRate, variables: Sequence[Any]
) -> keras.optimizers.Optimizer:
    """Build the optimizer of some variables.

    Weight decay is decoupled (Loshchilov & Hutter 2019, arXiv:1711.05101) and acts on matrices and
    kernels only: pulling biases, scales and temperatures to 0 changes what a layer computes without
    making it simpler.
    """
    rule, arguments = RULES[settings.name]
    own = settings.parameters()
    chosen = {argument: own[setting] for argument, setting in arguments.items()}
    if "weight_decay" in own:
        chosen["weight_decay"] = own["weight_decay"]
    optimizer = rule(learning_rate=learning_rate, global_clipnorm=settings.clip_norm, **chosen)
    optimizer.exclude_from_weight_decay(
        var_list=[variable for variable in variables if not is_matrix(variable)]
    )
    return optimizer


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the rule itself: for mixed_float16 it is inside of one that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def finished_steps(optimizer: keras.optimizers.Optimizer) -> int:
    """Return how many steps were made."""
    return int(ops.convert_to_numpy(inner(optimizer).iterations))
