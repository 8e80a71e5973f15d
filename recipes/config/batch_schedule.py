"""Settings of the number of examples a step."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from recipes.config.named import check_own, with_defaults

BatchScheduleName = Literal["fixed", "random", "growing"]

# What each schedule reads besides training.batch_size; None in a field means the value given here.
BATCH_DEFAULTS: Mapping[BatchScheduleName, Mapping[str, Any]] = {
    "fixed": {},
    "random": {"largest": 512},
    "growing": {"largest": 4096, "factor": 5.0, "boundaries": (0.3, 0.6, 0.8)},
}

BATCH_RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "largest": ("at least 1", lambda x: x >= 1),
    "factor": ("above 1", lambda x: x > 1),
    "boundaries": (
        "increasing, each in (0, 1)",
        lambda x: all(0 < a < 1 for a in x) and list(x) == sorted(set(x)),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSchedule:
    """How the batch size goes from step to step. Formulas: `recipes/training/schedules.py`."""

    name: BatchScheduleName = "fixed"
    """fixed: training.batch_size. random: drawn evenly for each step from there to the largest. growing:
    from there up, instead of a falling learning rate (Smith et al. 2018, arXiv:1711.00489)."""
    largest: int | None = None
    """random, growing: examples of the largest batch, at least training.batch_size (None: 512, 4096)."""
    factor: float | None = None
    """growing: what the size is multiplied by each time, above 1 (None: 5)."""
    boundaries: tuple[float, ...] | None = None
    """growing: when it grows, as increasing parts of the training in (0, 1) (None: 0.3 0.6 0.8)."""

    def __post_init__(self) -> None:
        check_own(self, "batches", BATCH_DEFAULTS[self.name], BATCH_RANGES)

    def parameters(self) -> dict[str, Any]:
        """Return what the named schedule reads, with its defaults in place of None."""
        return with_defaults(self, BATCH_DEFAULTS[self.name])
