"""Settings of the table recipe."""

import dataclasses
from typing import Literal

from recipes.config.errors import require
from recipes.config.fields import Count, ProperFraction, Seed, Settings
from recipes.config.recipe import Distillation, Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionData(Settings):
    """Where the table comes from and how it is split."""

    group = "data"

    source: Literal["auto", "diabetes"] = "diabetes"
    """diabetes: ten measurements of 442 patients and the progression of their illness after a year (Efron et
    al. 2004), included in scikit-learn."""
    validation_fraction: ProperFraction = 0.15
    """Fraction held out to choose epochs and settings, in (0, 1)."""
    test_fraction: ProperFraction = 0.15
    """Fraction held out for the test, in (0, 1)."""
    split_seed: Seed = 0
    """Seed of the split. Runs with different training seeds share their parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.validation_fraction + self.test_fraction < 1,
            "data.validation_fraction and data.test_fraction must leave a training part",
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionModel(Settings):
    """A network of dense layers with one output."""

    group = "model"

    dense: tuple[Count, ...] = (5,)
    """Units of each hidden layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionRecipe(Recipe):
    """A network that predicts a number from a row of numbers."""

    metrics = ("validation_loss", "validation_mse", "validation_mae", "validation_r2")

    data: RegressionData = RegressionData()
    model: RegressionModel = RegressionModel()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.distillation.temperature == Distillation.temperature,
            "distillation.temperature is for classifiers",
            temperature=self.distillation.temperature,
        )
