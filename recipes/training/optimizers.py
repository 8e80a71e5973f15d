"""Settings → a Keras optimizer."""

import functools
from collections.abc import Callable, Mapping, Sequence

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from recipes.config import Optimizer
from recipes.models.parameters import is_matrix

NOT_HIDDEN = ("embedding", "positions", "convolution", "head", "logits", "probabilities")
"""Words in the names of the layers that Muon leaves to AdamW: orthogonal updates are for matrices
between hidden vectors (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

# Constructor, and which of our settings each of its arguments takes.
RULES: Mapping[str, tuple[Callable[..., keras.optimizers.Optimizer], Mapping[str, str]]] = {
    "gradient-descent": (keras.optimizers.SGD, {}),
    "sgd": (keras.optimizers.SGD, {}),
    "momentum": (keras.optimizers.SGD, {"momentum": "momentum"}),
    "adagrad": (keras.optimizers.Adagrad, {"initial_accumulator_value": "initial_accumulator"}),
    "rmsprop": (keras.optimizers.RMSprop, {"rho": "beta_2", "momentum": "momentum"}),
    "adam": (keras.optimizers.Adam, {"beta_1": "beta_1", "beta_2": "beta_2"}),
    "adamw": (keras.optimizers.AdamW, {"beta_1": "beta_1", "beta_2": "beta_2"}),
    "muon": (
        functools.partial(keras.optimizers.Muon, exclude_layers=list(NOT_HIDDEN)),
        {
            "momentum": "momentum",
            "adam_beta_2": "beta_2",
            "adam_lr_ratio": "adam_fraction",
            "adam_weight_decay": "weight_decay",
        },
    ),
}


def build_optimizer(
    settings: Optimizer,
    learning_rate: float | LearningRateSchedule,
    variables: Sequence[keras.Variable],
) -> keras.optimizers.Optimizer:
    """Build the optimizer of some variables.

    Weight decay is decoupled (Loshchilov & Hutter 2019, arXiv:1711.05101) and acts on matrices and
    kernels only: decaying biases, scales and temperatures changes what a layer computes without
    making it simpler.

    Args:
        settings: The update rule and its settings.
        learning_rate: The learning rate, or its schedule.
        variables: What the optimizer will update.
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


def unscaled(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the update rule itself: for mixed_float16 it is inside an optimizer that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def finished_steps(optimizer: keras.optimizers.Optimizer) -> int:
    """Return how many steps the optimizer has made."""
    return int(ops.convert_to_numpy(unscaled(optimizer).iterations))


def schedule_of(optimizer: keras.optimizers.Optimizer) -> LearningRateSchedule | keras.Variable:
    """Return the learning-rate schedule, or the variable of a learning rate without one."""
    # `optimizer.learning_rate` is the schedule's value; Keras has no public name for the schedule itself.
    return unscaled(optimizer)._learning_rate


def last_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the learning rate of the last step; `optimizer.learning_rate` is that of the next one."""
    rate = schedule_of(optimizer)
    if isinstance(rate, LearningRateSchedule):
        rate = rate(max(finished_steps(optimizer) - 1, 0))
    return float(ops.convert_to_numpy(rate))
