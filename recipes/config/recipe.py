"""What every recipe is made of, whatever it trains on."""

import dataclasses
from typing import Any, ClassVar

from recipes.config.distillation import Distillation
from recipes.config.errors import UserError, nearest, require
from recipes.config.optimization import EarlyStopping, Optimizer, Schedule, Training
from recipes.config.pruning import Pruning
from recipes.config.regularization import Regularization


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
    early_stopping: EarlyStopping = EarlyStopping()
    pruning: Pruning = Pruning()
    distillation: Distillation = Distillation()
    regularization: Regularization = Regularization()
    training: Training = Training()

    def __post_init__(self) -> None:
        metric = self.early_stopping.metric
        if metric not in self.metrics:
            raise UserError(
                f"early_stopping.metric: the recipe has no {metric!r}. {nearest(metric, self.metrics)}"
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
