"""Settings of what keeps a model simple."""

import dataclasses

from recipes.config.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regularization:
    """A penalty on the weights of matrices and kernels: part of the training loss, not of the validation loss."""

    l1: float = 0.0
    """Weight of the sum of |w|, at least 0: pulls weights of no use to 0 (Tibshirani 1996)."""
    l2: float = 0.0
    """Weight of the sum of w², at least 0. With adaptive optimizers decoupled decay
    (`optimizer.weight_decay`) does better (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    def __post_init__(self) -> None:
        for name in ("l1", "l2"):
            value = getattr(self, name)
            require(value >= 0, f"regularization.{name} must be at least 0", **{name: value})
