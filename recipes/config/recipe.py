"""Settings of the training that every recipe has, and of pruning a finished run."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from recipes.config.errors import UserError, nearest, require
from recipes.config.fields import (
    BelowOne,
    Count,
    NonNegative,
    NonNegativeInt,
    Positive,
    ProperFraction,
    Range,
    Seed,
    Settings,
    whole_part,
)
from recipes.config.optimization import BatchSchedule, Optimizer, Regularization, Schedule


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruning(Settings):
    """Magnitude pruning during training: `recipes/training/callbacks/pruning.py`."""

    group = "pruning"
    removed: ClassVar[Mapping[str, Any]] = {"ranking": "global", "regrow": True}

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
    leave_out: tuple[str, ...] = ()
    """Layers that are not pruned."""
    biases: bool = False
    """Whether biases are pruned too. At one weight in seventy they are a tenth of the remaining parameters."""

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

    removed: ClassVar[Mapping[str, Any]] = {"ranking": "global"}

    structure: Literal["units", "weights"] = "units"
    """Units (neurons, filters, attention heads, feed-forward units) are removed: the model becomes smaller and
    faster. Single weights are set to 0: more of them can be pruned, and the compressed file becomes smaller."""
    importance: Literal["magnitude", "batch-norm", "taylor"] = "taylor"
    """Importance of a unit: the size of its weights, the scale of the batch normalisation after it, or the first-order
    change of the validation loss without it. The least important units are removed."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """Settings of a training; the recipe of each task adds its data and its model.

    Attributes:
        metrics: Validation metrics that can choose the epoch.
    """

    metrics: ClassVar[tuple[str, ...]] = ("validation_loss",)

    data: Any
    model: Any
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    batches: BatchSchedule = BatchSchedule()
    early_stopping: EarlyStopping = EarlyStopping()
    pruning: Pruning = Pruning()
    distillation: Distillation = Distillation()
    regularization: Regularization = Regularization()
    training: Training = Training()

    def resolved(self, steps: int | None = None) -> Self:
        """Return the same settings with the values that are used in place of None, where None means a default.

        Args:
            steps: Steps of the whole training; None leaves the settings that depend on them.
        """
        pruning = self.pruning if steps is None else self.pruning.resolved(steps)
        return dataclasses.replace(self, optimizer=self.optimizer.resolved(), pruning=pruning)

    def unresolved(self) -> Self:
        """Return the same settings with None in place of the optimizer's defaults: another one can be chosen."""
        return dataclasses.replace(self, optimizer=self.optimizer.unresolved())

    def __post_init__(self) -> None:
        super().__post_init__()
        metric = self.early_stopping.metric
        if metric not in self.metrics:
            raise UserError(
                f"early_stopping.metric: the recipe has no {metric!r}. {nearest(metric, self.metrics)}"
            )
        random, batch_size = self.batches.name == "random", self.training.batch_size
        require(
            not random or self.batches.largest >= batch_size,
            "batches.largest must be at least training.batch_size",
            largest=self.batches.largest,
            batch_size=batch_size,
        )
        require(
            self.optimizer.name != "gradient-descent" or not random,
            "gradient-descent computes the gradient on all examples: batches must be fixed",
            batches=self.batches.name,
        )
        weight_decay = self.optimizer.parameters().get("weight_decay")
        require(
            not (self.regularization.l2 and weight_decay),
            "weight decay twice: regularization.l2 or optimizer.weight_decay",
            l2=self.regularization.l2,
            weight_decay=weight_decay,
        )
        require(
            self.schedule.warmup < self.training.epochs,
            "schedule.warmup must be shorter than the training",
            warmup=self.schedule.warmup,
            epochs=self.training.epochs,
        )
