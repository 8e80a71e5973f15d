"""Settings of the way to a minimum: optimizer, learning-rate schedule, early stopping, loop."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from recipes.config.errors import require

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

OptimizerName = Literal["adam", "adamw", "muon", "sgd"]

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


# What each update rule reads besides the learning rate; None in a field means the value given here.
OPTIMIZER_DEFAULTS: Mapping[OptimizerName, Mapping[str, Any]] = {
    "adam": {"beta_2": 0.999},
    "adamw": {"weight_decay": 0.01, "beta_2": 0.999},
    "muon": {"weight_decay": 0.0, "momentum": 0.95, "adam_fraction": 0.5, "beta_2": 0.95},
    "sgd": {"momentum": 0.9},
}

OPTIMIZER_RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "weight_decay": ("at least 0", lambda x: x >= 0),
    "momentum": ("in [0, 1)", lambda x: 0 <= x < 1),
    "beta_2": ("in [0, 1)", lambda x: 0 <= x < 1),
    "adam_fraction": ("above 0", lambda x: x > 0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How a gradient becomes a step."""

    name: OptimizerName = "adam"
    """Update rule. Weight decay is decoupled and acts on matrices and kernels only, never on biases
    and norms."""
    learning_rate: float = 0.001
    """Highest learning rate; the schedule multiplies it by at most 1."""
    weight_decay: float | None = None
    """adamw, muon: part of the learning rate by which a weight shrinks a step (None: 0.01, 0)."""
    momentum: float | None = None
    """sgd, muon: momentum, in [0, 1) (None: 0.9, 0.95)."""
    beta_2: float | None = None
    """adam, adamw, muon: decay a step of the mean of squared gradients, in [0, 1) (None: 0.999,
    0.999, 0.95)."""
    adam_fraction: float | None = None
    """muon: learning rate of what is no hidden matrix (embedding, head, norms, biases) and gets
    AdamW, as a part of the learning rate (None: 0.5)."""
    clip_norm: float | None = None
    """Longest gradient, all weights together, above 0: a longer one is scaled down (None: any)."""
    moving_average: float = 0.0
    """Decay a step of an exponential moving average of the weights, in [0, 1); 0 is off. The
    averaged weights are the ones that are validated, kept and saved."""

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
        require(
            0 <= self.moving_average < 1,
            "optimizer.moving_average must be in [0, 1)",
            moving_average=self.moving_average,
        )
        _check_own(self, "optimizer", OPTIMIZER_DEFAULTS[self.name], OPTIMIZER_RANGES)

    def parameters(self) -> dict[str, Any]:
        """Return what the named update rule reads, with its defaults in place of None."""
        return _with_defaults(self, OPTIMIZER_DEFAULTS[self.name])


def _check_own(
    settings: Any,
    group: str,
    known: Mapping[str, Any],
    ranges: Mapping[str, tuple[str, Callable[[Any], bool]]],
) -> None:
    """Refuse a setting that belongs to another curve or rule than the named one, or is out of its range."""
    for setting, (span, holds) in ranges.items():
        value = getattr(settings, setting)
        if value is None:
            continue
        possible = ", ".join(known) or "no setting of its own"
        require(setting in known, f"{group} {settings.name} takes {possible}", **{setting: value})
        require(holds(value), f"{group}.{setting} must be {span}", **{setting: value})


def _with_defaults(settings: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {setting: getattr(settings, setting) for setting in defaults}
    return {setting: defaults[setting] if value is None else value for setting, value in chosen.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate goes from step to step. Formulas: `recipes/schedules.py`."""

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
        _check_own(self, "schedule", SCHEDULE_DEFAULTS[self.name], SCHEDULE_RANGES)

    def parameters(self) -> dict[str, Any]:
        """Return what the named schedule reads, with its defaults in place of None."""
        return _with_defaults(self, SCHEDULE_DEFAULTS[self.name])


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Which epoch's weights are kept, and when to stop looking for better ones."""

    metric: str = "validation_loss"
    """Validation metric that chooses the epoch; a loss or an error is better low, else better high."""
    patience: int | None = None
    """Epochs without improvement after which training stops, at least 1; None never stops early.
    The best epoch's weights are kept either way."""
    min_delta: float = 0.0
    """Smallest change that counts as an improvement, at least 0."""
    start_epoch: int = 1
    """First epoch (counted from 1) that may be the best one."""

    def __post_init__(self) -> None:
        require(
            self.patience is None or self.patience >= 1,
            "early_stopping.patience must be at least 1 epoch, or None",
            patience=self.patience,
        )
        require(self.min_delta >= 0, "early_stopping.min_delta must be at least 0", min_delta=self.min_delta)
        require(
            self.start_epoch >= 1,
            "early_stopping.start_epoch must be at least 1",
            start_epoch=self.start_epoch,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The training loop."""

    epochs: int = 10
    """Passes over the training data, at least 1."""
    batch_size: int = 128
    """Examples a step, at least 1. What is left of an epoch's shuffled order after the last whole
    batch is not used in that epoch."""
    seed: int = 0
    """Fixes initial weights, data order, dropout and augmentation."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "training.epochs must be at least 1", epochs=self.epochs)
        require(self.batch_size >= 1, "training.batch_size must be at least 1", batch_size=self.batch_size)
        require(self.seed >= 0, "training.seed must be at least 0", seed=self.seed)


def better_when_low(metric: str) -> bool:
    """Tell whether a metric is a loss or an error."""
    return metric.endswith(("loss", "mse", "mae", "perplexity", "bits_per_character"))
