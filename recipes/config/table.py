"""Settings of the table recipes."""

import dataclasses
from typing import Literal

from recipes.config.errors import require
from recipes.config.fields import Count, ProperFraction, Seed, Settings
from recipes.config.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableData(Settings):
    """Where the table comes from and how it is split."""

    group = "data"

    source: str = "diabetes"
    """diabetes (offline: ten measurements of 442 patients and the progression of their illness after a year, Efron et
    al. 2004, included in scikit-learn), or the path of a CSV file whose first line names the columns."""
    target: str | None = None
    """Column to predict (None: the last one)."""
    target_type: Literal["auto", "number", "category"] = "auto"
    """number for a regression, category for a classification; auto: category for text and for whole numbers of at
    most 10 different values."""
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
class TableModel(Settings):
    """A network of dense layers."""

    group = "model"

    dense: tuple[Count, ...] = (5,)
    """Units of each hidden layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRecipe(Recipe):
    """A network that predicts a column of a table from the others."""

    metrics = (
        "validation_loss",
        "validation_mse",
        "validation_mae",
        "validation_r2",
        "validation_accuracy",
    )

    data: TableData = TableData()
    model: TableModel = TableModel()
