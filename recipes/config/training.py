"""Settings of the training loop, and of what ends it."""

import dataclasses
from typing import Literal

from recipes.config.errors import require, require_seed
from recipes.config.parts import whole_part


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
    start_fraction: float = 0.0
    """Part of the epochs, from the first on, that can't be the best, in [0, 1). Under a schedule that
    ends at 0 an epoch at a high rate may be the best by luck, which the last ones need less of."""

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
        require(
            0 <= self.start_fraction < 1,
            "early_stopping.start_fraction must be in [0, 1)",
            start_fraction=self.start_fraction,
        )

    def first_epoch(self, epochs: int) -> int:
        """Return the first of a training's epochs, counted from 1, that may be the best one."""
        return max(self.start_epoch, 1 + whole_part(self.start_fraction, epochs))


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
    replicas: int | None = None
    """Devices of this machine that share each batch, at least 1 (None: as many GPUs as divide batch_size, one
    where the recipe trains on one device only; without GPUs the CPU as one).
    Without a GPU the CPU is divided into as many, which is for trying things out, not for speed. Across
    machines TF_CONFIG says who takes part; batch_size is that of all replicas together."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """What layers compute in; weights stay float32. The others are for accelerators that are faster in
    them: a CPU mostly is slower."""
    jit: Literal["auto", "on", "off"] = "auto"
    """Whether XLA compiles a step. auto: where it was measured to help on a CPU, which it does
    Transformers and not convolutions, and where the batch size is fixed."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "training.epochs must be at least 1", epochs=self.epochs)
        require(self.batch_size >= 1, "training.batch_size must be at least 1", batch_size=self.batch_size)
        require(
            self.replicas is None or self.replicas >= 1,
            "training.replicas must be at least 1, or None",
            replicas=self.replicas,
        )
        require_seed("training.seed", self.seed)


def better_when_low(metric: str) -> bool:
    """Tell whether a metric is a loss or an error."""
    return metric.endswith(("loss", "mse", "mae", "perplexity", "bits_per_character"))
