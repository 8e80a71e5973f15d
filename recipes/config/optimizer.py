"""Settings of the update rule."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from recipes.config.errors import require, require_at_least_one
from recipes.config.named import check_own, with_defaults

OptimizerName = Literal[
    "gradient-descent",
    "sgd",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adam",
    "adamw",
    "lion",
    "muon",
]

# What each update rule reads besides the learning rate; None in a field means the value given here.
OPTIMIZER_DEFAULTS: Mapping[OptimizerName, Mapping[str, Any]] = {
    "gradient-descent": {"weight_decay": 0.0},
    "sgd": {"weight_decay": 0.0},
    "momentum": {"weight_decay": 0.0, "momentum": 0.9},
    "nesterov": {"weight_decay": 0.0, "momentum": 0.9},
    "adagrad": {"initial_accumulator": 0.1},
    "rmsprop": {"momentum": 0.0, "beta_2": 0.9},
    "adam": {"beta_1": 0.9, "beta_2": 0.999},
    "adamw": {"weight_decay": 0.01, "beta_1": 0.9, "beta_2": 0.999},
    "lion": {"weight_decay": 0.0, "beta_1": 0.9, "beta_2": 0.99},
    "muon": {"weight_decay": 0.0, "momentum": 0.95, "adam_fraction": 0.5, "beta_2": 0.95},
}

OPTIMIZER_RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "weight_decay": ("at least 0", lambda x: x >= 0),
    "momentum": ("in [0, 1)", lambda x: 0 <= x < 1),
    "beta_1": ("in [0, 1)", lambda x: 0 <= x < 1),
    "beta_2": ("in [0, 1)", lambda x: 0 <= x < 1),
    "initial_accumulator": ("at least 0", lambda x: x >= 0),
    "adam_fraction": ("above 0", lambda x: x > 0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How a gradient becomes a step."""

    name: OptimizerName = "adam"
    """Update rule. gradient-descent takes the whole training set as one batch, sgd is the same rule on
    batches. Weight decay is decoupled and acts on matrices and kernels only, never on biases and norms."""
    learning_rate: float = 0.001
    """Highest learning rate; the schedule multiplies it by at most 1."""
    weight_decay: float | None = None
    """All but adagrad, rmsprop, adam: part of the learning rate by which a weight shrinks a step (None:
    0.01 for adamw, else 0)."""
    momentum: float | None = None
    """momentum, nesterov, rmsprop, muon: part of the last step that is made again, in [0, 1) (None: 0.9,
    0.9, 0, 0.95)."""
    beta_1: float | None = None
    """adam, adamw, lion: decay a step of the mean gradient, in [0, 1) (None: 0.9)."""
    beta_2: float | None = None
    """rmsprop, adam, adamw, muon: decay a step of the mean of squared gradients, in [0, 1) (None: 0.9,
    0.999, 0.999, 0.95); lion: of the mean gradient that is remembered (None: 0.99)."""
    initial_accumulator: float | None = None
    """adagrad: sum of squared gradients to start from, at least 0 (None: 0.1)."""
    adam_fraction: float | None = None
    """muon: learning rate of what is no hidden matrix (embedding, head, norms, biases) and gets
    AdamW, as a part of the learning rate (None: 0.5)."""
    clip_norm: float | None = None
    """Longest gradient, all weights together, above 0: a longer one is scaled down (None: any)."""
    accumulate: int = 1
    """Steps whose mean gradient makes one update, at least 1: batches larger than fit the memory."""
    moving_average: float = 0.0
    """Decay a step of an exponential moving average of the weights and of batch normalisation's
    statistics, in [0, 1); 0 is off. After n updates it is at most (1 + n) / (10 + n). The average is what
    is validated, kept and saved."""

    def __post_init__(self) -> None:
        require(
            self.learning_rate > 0,
            "optimizer.learning_rate must be above 0",
            learning_rate=self.learning_rate,
        )
        require(
            self.clip_norm is None or self.clip_norm > 0,
            "optimizer.clip_norm must be above 0",
            clip_norm=self.clip_norm,
        )
        require_at_least_one("optimizer", self, "accumulate")
        require(
            0 <= self.moving_average < 1,
            "optimizer.moving_average must be in [0, 1)",
            moving_average=self.moving_average,
        )
        check_own(self, "optimizer", OPTIMIZER_DEFAULTS[self.name], OPTIMIZER_RANGES)

    def parameters(self) -> dict[str, Any]:
        """Return what the named update rule reads, with its defaults in place of None."""
        return with_defaults(self, OPTIMIZER_DEFAULTS[self.name])
