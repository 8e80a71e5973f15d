"""Settings that every recipe has."""

import dataclasses
from typing import Any, ClassVar, Self

from recipes.config.errors import UserError, nearest, require
from recipes.config.fields import Settings
from recipes.config.optimization import BatchSchedule, Optimizer, Regularization, Schedule
from recipes.config.pruning import Pruning
from recipes.config.training import Distillation, EarlyStopping, Training


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
