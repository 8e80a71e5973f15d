"""Settings of the optimizer, the learning-rate schedule, the batch size and the regularisation."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from recipes.config.fields import BelowOne, Count, NonNegative, Positive, ProperFraction, Range, Settings

OptimizerName = Literal["gradient-descent", "sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw", "muon"]

OPTIMIZERS: Mapping[OptimizerName, Mapping[str, float]] = {
    "gradient-descent": {"weight_decay": 0.0},
    "sgd": {"weight_decay": 0.0},
    "momentum": {"weight_decay": 0.0, "momentum": 0.9},
    "adagrad": {"initial_accumulator": 0.1},
    "rmsprop": {"momentum": 0.0, "beta_2": 0.9},
    "adam": {"beta_1": 0.9, "beta_2": 0.999},
    "adamw": {"weight_decay": 0.01, "beta_1": 0.9, "beta_2": 0.999},
    "muon": {"weight_decay": 0.0, "momentum": 0.95, "adam_fraction": 0.5, "beta_2": 0.95},
}
"""Hyperparameters of each optimizer besides the learning rate, with the defaults that None stands for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Settings):
    """The optimizer."""

    group = "optimizer"
    removed: ClassVar[Mapping[str, Any]] = {"accumulate": 1}
    used_by = OPTIMIZERS

    name: OptimizerName = "adam"
    """gradient-descent computes the gradient on the whole training set, sgd on batches. Weight decay is decoupled
    and applies to matrices and kernels only, not to biases and norms."""
    learning_rate: Positive = 0.001
    """Peak learning rate; the schedule multiplies it by at most 1."""
    weight_decay: NonNegative | None = None
    """All but adagrad, rmsprop, adam: weight decay, as a fraction of the learning rate per step (None: 0.01 for
    adamw, else 0)."""
    momentum: BelowOne | None = None
    """momentum, rmsprop, muon: momentum, in [0, 1) (None: 0.9, 0, 0.95)."""
    beta_1: BelowOne | None = None
    """adam, adamw: decay per step of the mean gradient, in [0, 1) (None: 0.9)."""
    beta_2: BelowOne | None = None
    """rmsprop, adam, adamw, muon: decay per step of the mean squared gradient, in [0, 1) (None: 0.9, 0.999, 0.999,
    0.95)."""
    initial_accumulator: NonNegative | None = None
    """adagrad: initial sum of squared gradients, at least 0 (None: 0.1)."""
    adam_fraction: Positive | None = None
    """muon: learning rate of the parameters that are not hidden matrices (embedding, head, norms, biases), which
    AdamW updates, as a fraction of the learning rate (None: 0.5)."""
    clip_norm: Positive | None = None
    """Largest global norm of the gradient; a larger gradient is scaled down to it (None: no clipping)."""
    moving_average: BelowOne = 0.0
    """Decay per step of an exponential moving average of the weights and of the statistics of batch normalisation,
    in [0, 1); 0 is off. After n updates the decay is at most (1 + n) / (10 + n). The averages are validated, kept
    and saved."""

    def parameters(self) -> dict[str, Any]:
        """Return the optimizer's hyperparameters, with its defaults in place of None."""
        chosen = {setting: getattr(self, setting) for setting in OPTIMIZERS[self.name]}
        return {**OPTIMIZERS[self.name], **{name: each for name, each in chosen.items() if each is not None}}

    def resolved(self) -> Self:
        """Return the same settings with the optimizer's defaults in place of None."""
        return dataclasses.replace(self, **self.parameters())

    def unresolved(self) -> Self:
        """Return the same settings with None in place of the optimizer's defaults, so that it can be replaced."""
        defaults = OPTIMIZERS[self.name]
        same: dict[str, Any] = {name: None for name in defaults if getattr(self, name) == defaults[name]}
        return dataclasses.replace(self, **same)


ScheduleName = Literal[
    "constant", "exponential", "polynomial", "cosine", "inverse-square-root", "one-cycle", "wsd", "plateau"
]

SCHEDULES: Mapping[ScheduleName, tuple[str, ...]] = {
    "constant": (),
    "exponential": ("rate",),
    "polynomial": ("power",),
    "cosine": ("final_fraction",),
    "inverse-square-root": ("beta",),
    "one-cycle": ("rise_fraction", "initial_fraction", "final_fraction"),
    "wsd": ("decay_fraction", "final_fraction"),
    "plateau": ("factor", "patience", "min_delta", "minimum"),
}
"""Settings of each schedule besides the warm-up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule(Settings):
    """The learning-rate schedule. Formulas: `recipes/training/schedules.py`."""

    group = "schedule"
    removed: ClassVar[Mapping[str, Any]] = {"every": "step", "boundaries": None}
    used_by = SCHEDULES

    name: ScheduleName = "constant"
    """Time is measured in epochs, so a schedule does not depend on the batch size."""
    warmup: NonNegative = 0.0
    """Epochs of linear warm-up from 0 before the schedule starts; may be a fraction of an epoch."""
    rate: Annotated[float, Range(above=0, at_most=1)] = 0.9
    """exponential: factor per epoch, in (0, 1]."""
    power: Positive = 1.0
    """polynomial: the exponent d of (1 - t/T)^d, above 0."""
    beta: Positive = 1.0
    """inverse-square-root: the b of 1/sqrt(1 + b t), above 0."""
    rise_fraction: ProperFraction = 0.2
    """one-cycle: fraction of the training in which the learning rate rises, in (0, 1)."""
    initial_fraction: Annotated[float, Range(above=0, at_most=1)] = 0.04
    """one-cycle: initial learning rate as a fraction of the peak, in (0, 1]."""
    decay_fraction: Annotated[float, Range(above=0, at_most=1)] = 0.2
    """wsd: fraction of the training, at its end, in which the learning rate decays, in (0, 1]."""
    final_fraction: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """cosine, one-cycle, wsd: final learning rate as a fraction of the peak, in [0, 1]."""
    factor: ProperFraction = 0.5
    """plateau: factor by which the learning rate is reduced, in (0, 1)."""
    patience: Count = 2
    """plateau: epochs without improvement before the learning rate is reduced, at least 1."""
    min_delta: NonNegative = 0.0
    """plateau: smallest change of the early-stopping metric that counts as an improvement, at least 0."""
    minimum: NonNegative = 0.0
    """plateau: lower bound of the learning rate, at least 0."""

    def parameters(self) -> dict[str, Any]:
        """Return the settings of the schedule by name."""
        return {setting: getattr(self, setting) for setting in SCHEDULES[self.name]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSchedule(Settings):
    """The number of examples per step."""

    group = "batches"
    removed: ClassVar[Mapping[str, Any]] = {"factor": None, "boundaries": None}
    used_by: ClassVar[Mapping[Any, Collection[str]]] = {"fixed": (), "random": ("largest",)}

    name: Literal["fixed", "random"] = "fixed"
    """fixed: training.batch_size. random: drawn uniformly for each step from training.batch_size to the largest."""
    largest: Count = 512
    """random: largest batch size, at least training.batch_size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regularization(Settings):
    """Penalties on matrices and kernels in the training loss; the validation loss does not include them."""

    group = "regularization"
    removed: ClassVar[Mapping[str, Any]] = {"label_smoothing": 0.0}

    l1: NonNegative = 0.0
    """Weight of the sum of |w|, at least 0: makes weights sparse (Tibshirani 1996)."""
    l2: NonNegative = 0.0
    """Weight of the sum of w², at least 0. With adaptive optimizers decoupled weight decay
    (`optimizer.weight_decay`) works better (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
