"""Settings of the training loop, early stopping and distillation."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from recipes.config.fields import (
    BelowOne,
    Count,
    NonNegative,
    Positive,
    Range,
    Seed,
    Settings,
    whole_part,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping(Settings):
    """Which epoch's weights are kept, and when training stops."""

    group = "early_stopping"
    removed: ClassVar[Mapping[str, Any]] = {"start_epoch": 1}

    metric: str = "validation_loss"
    """Validation metric that chooses the epoch. A loss or an error is minimised, any other metric maximised."""
    patience: Count | None = None
    """Epochs without improvement after which training stops, at least 1; None never stops early.
    The best epoch's weights are kept in both cases."""
    min_delta: NonNegative = 0.0
    """Smallest change that counts as an improvement, at least 0."""
    start_fraction: BelowOne = 0.0
    """Fraction of the epochs, from the first one on, that can't be the best, in [0, 1). With a schedule that decays
    to 0, an epoch at a high learning rate may have the best metric by chance."""

    def first_epoch(self, epochs: int) -> int:
        """Return the first epoch, counted from 1, that can be the best one."""
        return 1 + whole_part(self.start_fraction, epochs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """The training loop."""

    group = "training"
    removed: ClassVar[Mapping[str, Any]] = {"jit": "auto"}

    epochs: Count = 10
    """Passes over the training data, at least 1."""
    batch_size: Count = 128
    """Examples per step, at least 1. An incomplete last batch of an epoch is dropped."""
    seed: Seed = 0
    """Seed of initial weights, data order, dropout and augmentation, 0 to 2**32 - 1."""
    replicas: Count | None = None
    """Devices of this machine that share each batch, at least 1 (None: as many GPUs as divide batch_size, or one
    where the recipe trains on one device only; the CPU without a GPU). Without a GPU the CPU is divided into as
    many logical devices, for tests. On several machines TF_CONFIG names the workers. batch_size is the global one."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Keras's dtype policy; weights are float32 with each. Mixed precision is for accelerators that are faster in
    it: most CPUs are slower."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation(Settings):
    """Learning from a trained model's predictions in addition to the labels.

    Loss: (1 - weight) cross-entropy with the labels + weight temperature² KL(teacher ‖ student), both softened by the
    temperature (Hinton et al. 2015, arXiv:1503.02531). Regression: (1 - weight) squared error to the target +
    weight squared error to the teacher's prediction.
    """

    group = "distillation"

    teacher: str | None = None
    """Run directory of the teacher, which must have the same outputs (None: labels only)."""
    weight: Annotated[float, Range(above=0, at_most=1)] = 0.5
    """Weight of the teacher in the loss, in (0, 1]."""
    temperature: Positive = 2.0
    """Temperature that divides the logits of both models, above 0. A regression has none and takes this value only."""


def better_when_low(metric: str) -> bool:
    """Return whether a metric is minimised: a loss or an error."""
    return metric.endswith(("loss", "mse", "mae", "perplexity", "bits_per_character"))
