"""What every recipe is made of, whatever it trains on."""

import dataclasses
from typing import Any, ClassVar, Self

from recipes.config.batch_schedule import BatchSchedule
from recipes.config.distillation import Distillation
from recipes.config.errors import UserError, nearest, require
from recipes.config.named import without_defaults
from recipes.config.optimizer import Optimizer
from recipes.config.pruning import Pruning
from recipes.config.regularization import Regularization
from recipes.config.schedule import Schedule
from recipes.config.training import EarlyStopping, Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training from its data to its end; each kind of recipe says what data and model are.

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
            steps: Steps of the whole training; None leaves what depends on them.
        """
        return dataclasses.replace(
            self,
            optimizer=dataclasses.replace(self.optimizer, **self.optimizer.parameters()),
            schedule=dataclasses.replace(self.schedule, **self.schedule.parameters()),
            batches=dataclasses.replace(self.batches, **self.batches.parameters()),
            pruning=self.pruning if steps is None else self.pruning.resolved(steps),
        )

    def unresolved(self) -> Self:
        """Return the same settings with None in place of values that are defaults: another name can be chosen."""
        named = {name: getattr(self, name) for name in ("optimizer", "schedule", "batches")}
        return dataclasses.replace(self, **{name: without_defaults(group) for name, group in named.items()})

    def __post_init__(self) -> None:
        metric = self.early_stopping.metric
        if metric not in self.metrics:
            raise UserError(
                f"early_stopping.metric: the recipe has no {metric!r}. {nearest(metric, self.metrics)}"
            )
        largest = self.batches.parameters().get("largest", self.training.batch_size)
        require(
            largest >= self.training.batch_size,
            "batches.largest must be at least training.batch_size",
            largest=largest,
            batch_size=self.training.batch_size,
        )
        require(
            self.training.jit != "on" or self.batches.name == "fixed",
            "XLA compiles a step for one batch size: growing and random ones need training.jit auto or off",
            jit=self.training.jit,
            batches=self.batches.name,
        )
        require(
            self.optimizer.name != "gradient-descent" or self.batches.name == "fixed",
            "gradient-descent takes all examples at once: its batch size can't change",
            batches=self.batches.name,
        )
        require(
            not (self.regularization.l2 and self.optimizer.parameters().get("weight_decay")),
            "weight decay twice: regularization.l2 or optimizer.weight_decay",
            l2=self.regularization.l2,
            weight_decay=self.optimizer.parameters().get("weight_decay"),
        )
        require(
            self.schedule.warmup < self.training.epochs,
            "schedule.warmup must be shorter than the training",
            warmup=self.schedule.warmup,
            epochs=self.training.epochs,
        )
        require(
            self.early_stopping.start_epoch <= self.training.epochs,
            "early_stopping.start_epoch must be an epoch of the training",
            start_epoch=self.early_stopping.start_epoch,
            epochs=self.training.epochs,
        )
