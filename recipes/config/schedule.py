"""Settings of the learning rate's way through the training."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from recipes.config.errors import require
from recipes.config.named import check_own, with_defaults

ScheduleName = Literal[
    "constant",
    "exponential",
    "polynomial",
    "cosine",
    "inverse-square-root",
    "step",
    "one-cycle",
    "wsd",
    "plateau",
]

# What each schedule reads besides the warm-up; None in a field means the value given here.
SCHEDULE_DEFAULTS: Mapping[ScheduleName, Mapping[str, Any]] = {
    "constant": {},
    "exponential": {"rate": 0.9},
    "polynomial": {"power": 1.0},
    "cosine": {"final_fraction": 0.0},
    "inverse-square-root": {"beta": 1.0},
    "step": {"factor": 0.1, "boundaries": (0.5, 0.75)},
    "one-cycle": {"rise_fraction": 0.2, "initial_fraction": 0.04, "final_fraction": 0.0},
    "wsd": {"decay_fraction": 0.2, "final_fraction": 0.0},
    "plateau": {"factor": 0.5, "patience": 2, "min_delta": 0.0, "minimum": 0.0},
}


SCHEDULE_RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "rate": ("in (0, 1]", lambda x: 0 < x <= 1),
    "power": ("above 0", lambda x: x > 0),
    "beta": ("above 0", lambda x: x > 0),
    "factor": ("in (0, 1)", lambda x: 0 < x < 1),
    "boundaries": (
        "increasing, each in (0, 1)",
        lambda x: all(0 < a < 1 for a in x) and list(x) == sorted(set(x)),
    ),
    "rise_fraction": ("in (0, 1)", lambda x: 0 < x < 1),
    "initial_fraction": ("in (0, 1]", lambda x: 0 < x <= 1),
    "decay_fraction": ("in (0, 1]", lambda x: 0 < x <= 1),
    "final_fraction": ("in [0, 1]", lambda x: 0 <= x <= 1),
    "patience": ("at least 1", lambda x: x >= 1),
    "min_delta": ("at least 0", lambda x: x >= 0),
    "minimum": ("at least 0", lambda x: x >= 0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate goes from step to step. Formulas: `recipes/training/schedules.py`."""

    name: ScheduleName = "constant"
    """Shape of the curve. Time is counted in epochs, so a curve stays itself at any batch size."""
    every: Literal["step", "epoch"] = "step"
    """Whether the rate changes at every step or only between epochs."""
    warmup: float = 0.0
    """Epochs of linear warm-up from 0 before the curve starts; parts of an epoch are fine."""
    rate: float | None = None
    """exponential: factor an epoch, in (0, 1] (None: 0.9)."""
    power: float | None = None
    """polynomial: the exponent d of (1 - t/T)^d, above 0 (None: 1)."""
    beta: float | None = None
    """inverse-square-root: the b of 1/sqrt(1 + b t), above 0 (None: 1)."""
    factor: float | None = None
    """step, plateau: what the rate is multiplied by each time, in (0, 1) (None: 0.1, 0.5)."""
    boundaries: tuple[float, ...] | None = None
    """step: when the rate drops, as increasing parts of the training in (0, 1) (None: 0.5 0.75)."""
    rise_fraction: float | None = None
    """one-cycle: part of the training in which the rate rises, in (0, 1) (None: 0.2)."""
    initial_fraction: float | None = None
    """one-cycle: first rate as a part of the highest, in (0, 1] (None: 0.04)."""
    decay_fraction: float | None = None
    """wsd: part of the training in which the rate falls, at the end, in (0, 1] (None: 0.2)."""
    final_fraction: float | None = None
    """cosine, one-cycle, wsd: last rate as a part of the highest, in [0, 1] (None: 0)."""
    patience: int | None = None
    """plateau: epochs without improvement before the rate drops, at least 1 (None: 2)."""
    min_delta: float | None = None
    """plateau: smallest change of the early-stopping metric that counts, at least 0 (None: 0)."""
    minimum: float | None = None
    """plateau: the rate never falls below this, at least 0 (None: 0)."""

    def __post_init__(self) -> None:
        require(self.warmup >= 0, "schedule.warmup must be at least 0 epochs", warmup=self.warmup)
        check_own(self, "schedule", SCHEDULE_DEFAULTS[self.name], SCHEDULE_RANGES)

    def parameters(self) -> dict[str, Any]:
        """Return what the named schedule reads, with its defaults in place of None."""
        return with_defaults(self, SCHEDULE_DEFAULTS[self.name])
