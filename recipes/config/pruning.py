"""Settings of pruning, during and after training."""

import dataclasses
from typing import Literal

from recipes.config.errors import require
from recipes.config.fields import (
    BelowOne,
    Count,
    NonNegative,
    NonNegativeInt,
    ProperFraction,
    Settings,
    whole_part,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruning(Settings):
    """Magnitude pruning during training. Formula: `recipes/training/schedules.py`."""

    group = "pruning"

    sparsity: BelowOne = 0.0
    """Final fraction of the prunable weights (of matrices and kernels) that are 0, in [0, 1); 0 is off."""
    schedule: Literal["polynomial", "constant"] = "polynomial"
    """Sparsity over time: cubic from begin to end, or constant from begin on."""
    begin: NonNegativeInt = 0
    """Step of the first pruning, at least 0."""
    end: int | None = None
    """Step at which the final sparsity is reached, after begin (None: half of the training)."""
    settle: int | None = None
    """Step after which the pruned weights do not change, not before end (None: 0.85 of the training)."""
    frequency: Count = 100
    """Steps between two updates of the masks, at least 1."""
    ranking: Literal["global", "layer"] = "global"
    """Whether weights are ranked over the whole model or in each layer."""
    leave_out: tuple[str, ...] = ()
    """Layers that are not pruned."""
    biases: bool = False
    """Whether biases are pruned too. At one weight in seventy they are a tenth of the remaining parameters."""
    regrow: bool = True
    """Whether pruned weights are trained further in a dense copy, so that a weight pruned too early can return
    (Guo et al. 2016, Dynamic Network Surgery)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.end is None or self.end > self.begin,
            "pruning.end must come after pruning.begin",
            begin=self.begin,
            end=self.end,
        )
        require(
            self.settle is None or self.settle >= (self.end or self.begin),
            "pruning.settle must not come before pruning.end",
            end=self.end,
            settle=self.settle,
        )

    def last_steps(self, total_steps: int) -> tuple[int, int]:
        """Return end and settle, with their defaults in a training of so many steps in place of None."""
        end = self.end if self.end is not None else max(self.begin + 1, total_steps // 2)
        return end, self.settle if self.settle is not None else max(end, whole_part(0.85, total_steps))

    def resolved(self, total_steps: int) -> "Pruning":
        """Return the same settings with these steps in place of None, if there is pruning."""
        if not self.sparsity:
            return self
        end, settle = self.last_steps(total_steps)
        return dataclasses.replace(self, end=end, settle=settle)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPruning(Settings):
    """Pruning of a finished run, step by step, with training after each step."""

    structure: Literal["units", "weights"] = "units"
    """Units (neurons, filters, attention heads, feed-forward units) are removed: the model becomes smaller and
    faster. Single weights are set to 0: more of them can be pruned, and the compressed file becomes smaller."""
    importance: Literal["magnitude", "batch-norm", "taylor"] = "taylor"
    """Importance of a unit: the size of its weights, the scale of the batch normalisation after it, or the first-order
    change of the validation loss without it. The least important units are removed."""
    ranking: Literal["global", "layer"] = "global"
    """Whether units or weights are ranked over the whole model (heads among heads) or in each layer."""
    leave_out: tuple[str, ...] = ()
    """Layers that are not pruned."""
    tolerance: NonNegative = 0.1
    """Allowed loss of the validation metric, at least 0: percentage points of an accuracy, absolute for a loss."""
    fraction: ProperFraction = 0.3
    """Fraction of the remaining units or weights that a step removes, in (0, 1); halved after a step that exceeds the
    tolerance."""
    epochs: Count = 3
    """Epochs of training after each step, at least 1, with the recipe's own schedule."""
    steps: Count = 12
    """Most steps, at least 1. Pruning also ends when the fraction has been halved three times."""
    distill: bool = False
    """Whether the dense model is the teacher in the training after each step."""
