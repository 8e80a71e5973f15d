"""Settings of pruning, while training and afterwards."""

import dataclasses
from typing import Literal

from recipes.config.errors import require, require_at_least_one
from recipes.config.parts import whole_part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruning:
    """Which weights become exactly 0 while the others learn. Formulas: `recipes/training/schedules.py`."""

    sparsity: float = 0.0
    """Part of the prunable weights (of matrices and kernels) that is 0 in the end, in [0, 1); 0 is off."""
    schedule: Literal["polynomial", "constant", "one-shot"] = "polynomial"
    """How sparsity grows: along a cubic from begin to end; all of it from begin on; or once, at begin."""
    begin: int = 0
    """Step of the first pruning, at least 0."""
    end: int | None = None
    """Step at which the sparsity is reached, above begin (None: half of the training)."""
    settle: int | None = None
    """Step of the last choice of weights, not before end: from end to there as many are chosen anew
    (None: at 0.85 of the training; never for one-shot)."""
    frequency: int = 100
    """Steps from one choice of weights to the next, at least 1."""
    ranking: Literal["global", "layer"] = "global"
    """Whether the smallest weights of the whole model go, or of each layer."""
    leave_out: tuple[str, ...] = ()
    """Layers that are not pruned."""
    biases: bool = False
    """Prune biases too. Of a network that keeps one weight in seventy they are a tenth of the rest."""
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
        require(
            self.settle is None or self.settle >= (self.end or self.begin),
            "pruning.settle must not come before pruning.end",
            end=self.end,
            settle=self.settle,
        )
        require_at_least_one("pruning", self, "frequency")

    def last_steps(self, total_steps: int) -> tuple[int, int]:
        """Return end and settle, or what None stands for in a training of so many steps."""
        end = self.end if self.end is not None else max(self.begin + 1, total_steps // 2)
        return end, self.settle if self.settle is not None else max(end, whole_part(0.85, total_steps))

    def resolved(self, total_steps: int) -> "Pruning":
        """Return the same settings with these steps in place of None, where they are read."""
        if not self.sparsity or self.schedule == "one-shot":
            return self
        end, settle = self.last_steps(total_steps)
        return dataclasses.replace(self, end=end, settle=settle)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPruning:
    """How a finished run is pruned, step by step, with training between the steps."""

    structure: Literal["units", "weights"] = "units"
    """What goes. Units (neurons, filters, attention heads, feed-forward units) are cut out: the model
    gets smaller and faster. Single weights become 0: more of them can go, in an archive it gets smaller."""
    importance: Literal["magnitude", "batch-norm", "taylor"] = "taylor"
    """Which units go first: those with the smallest weights, the smallest scale in the batch
    normalisation behind them, or the smallest change of the validation loss to first order."""
    ranking: Literal["global", "layer"] = "global"
    """Whether the least of the whole model go (heads among heads), or of each layer."""
    leave_out: tuple[str, ...] = ()
    """Layers that are not pruned."""
    tolerance: float = 0.1
    """How much worse the validation metric may get, at least 0: points (hundredths) of an accuracy,
    or as it is of a loss."""
    fraction: float = 0.3
    """Part of what is left that a step removes, in (0, 1); halved after a step that went too far."""
    epochs: int = 3
    """Epochs of training after each step, at least 1, by the recipe's own schedule in that time."""
    steps: int = 12
    """Most steps, at least 1; they end, too, when the fraction has been halved three times."""
    distill: bool = False
    """Learn from the dense model besides the labels."""

    def __post_init__(self) -> None:
        require(self.tolerance >= 0, "tolerance must be at least 0", tolerance=self.tolerance)
        require(0 < self.fraction < 1, "fraction must be in (0, 1)", fraction=self.fraction)
        for name in ("epochs", "steps"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1", **{name: getattr(self, name)})
