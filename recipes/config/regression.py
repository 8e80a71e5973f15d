"""Settings of the regression recipe."""

import dataclasses

from recipes.config.distillation import Distillation
from recipes.config.errors import UserError, require, require_seed
from recipes.config.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionData:
    """Where the numbers come from and how they are split."""

    source: str = "diabetes"
    """diabetes: ten measurements of 442 patients and how far their illness was a year later (Efron et
    al. 2004), in scikit-learn's wheel."""
    validation_fraction: float = 0.15
    """Part held out to choose epochs and settings, in (0, 1)."""
    test_fraction: float = 0.15
    """Part held out for the test, in (0, 1)."""
    split_seed: int = 0
    """Seed of the split. Not the training seed: runs of all seeds share their parts."""

    def __post_init__(self) -> None:
        if self.source not in ("auto", "diabetes"):
            raise UserError(f"data.source must be diabetes. Received: {self.source!r}")
        held_out = self.validation_fraction + self.test_fraction
        require(
            self.validation_fraction > 0 and self.test_fraction > 0 and held_out < 1,
            "data.validation_fraction and data.test_fraction must be above 0 and leave something to train on",
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
        )
        require_seed("data.split_seed", self.split_seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionModel:
    """Dense layers and a number."""

    dense: tuple[int, ...] = (5,)
    """Units of each hidden layer."""

    def __post_init__(self) -> None:
        require(
            all(size >= 1 for size in self.dense), "model.dense must be at least 1 each", dense=self.dense
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionRecipe(Recipe):
    """A network that tells a number from numbers."""

    metrics = ("validation_loss", "validation_mse", "validation_mae", "validation_r2")

    data: RegressionData = RegressionData()
    model: RegressionModel = RegressionModel()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.regularization.label_smoothing,
            "regularization.label_smoothing is for classes",
            label_smoothing=self.regularization.label_smoothing,
        )
        require(
            self.distillation.temperature == Distillation.temperature,
            "distillation.temperature is for classes",
            temperature=self.distillation.temperature,
        )
