"""Settings of what keeps a model simple."""

import dataclasses

from recipes.config.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regularization:
    """What is added to the training loss; the validation loss stays as it is. Penalties are of matrices and kernels."""

    l1: float = 0.0
    """Weight of the sum of |w|, at least 0: pulls weights of no use to 0 (Tibshirani 1996)."""
    l2: float = 0.0
    """Weight of the sum of w², at least 0. With adaptive optimizers decoupled decay
    (`optimizer.weight_decay`) does better (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    label_smoothing: float = 0.0
    """Part of each label that is shared out evenly among all classes, in [0, 1) (Szegedy et al. 2016,
    arXiv:1512.00567)."""

    def __post_init__(self) -> None:
        require(
            0 <= self.label_smoothing < 1,
            "regularization.label_smoothing must be in [0, 1)",
            label_smoothing=self.label_smoothing,
        )
        for name in ("l1", "l2"):
            value = getattr(self, name)
            require(value >= 0, f"regularization.{name} must be at least 0", **{name: value})
