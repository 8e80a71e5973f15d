"""Settings of pruning while training."""

import dataclasses
from typing import Literal

from recipes.config.errors import require, require_at_least_one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruning:
    """Which weights become exactly 0 while the others learn. Formulas: `recipes/schedules.py`."""

    sparsity: float = 0.0
    """Part of the prunable weights (of matrices and kernels) that is 0 in the end, in [0, 1); 0 is off."""
    schedule: Literal["polynomial", "constant", "one-shot"] = "polynomial"
    """How sparsity grows: along a cubic from begin to end; all of it from begin on, weights chosen
    anew until end; or once, at begin."""
    begin: int = 0
    """Step of the first pruning, at least 0."""
    end: int | None = None
    """Step at which the sparsity is reached and the choice of weights is final, above begin (None:
    three quarters of the training)."""
    frequency: int = 100
    """Steps from one choice of weights to the next, at least 1."""
    ranking: Literal["global", "layer"] = "global"
    """Whether the smallest weights of the whole model go, or of each layer."""
    leave_out: tuple[str, ...] = ()
    """Layers that are not pruned."""
    regrow: bool = True
    """Let pruned weights learn on unseen, so that one that was pruned too early can come back
    (Guo et al. 2016, Dynamic Network Surgery)."""

    def __post_init__(self) -> None:
        require(0 <= self.sparsity < 1, "pruning.sparsity must be in [0, 1)", sparsity=self.sparsity)
        require(self.begin >= 0, "pruning.begin must be at least 0", begin=self.begin)
        require(
            self.end is None or self.end > self.begin,
            "pruning.end must come after pruning.begin",
            begin=self.begin,
            end=self.end,
        )
        require_at_least_one("pruning", self, "frequency")
