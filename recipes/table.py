"""Regression on a table: predict a number from a row of numbers.

    python -m recipes train diabetes-mlp

The sample is scikit-learn's diabetes data: how far a patient's illness has progressed after a year. Its network is
small enough to be inspected: 10-5-1, 61 parameters, trained in seconds.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from recipes.config import RegressionRecipe
from recipes.data.batch_sizes import batch_sizes
from recipes.data.batches import TrainingBatches, evaluation_batches, shuffled_batches
from recipes.data.table import load_table
from recipes.models.regression import build_regression
from recipes.report.page import Page, Picture
from recipes.report.plots import plot_predictions
from recipes.runs.directory import Run
from recipes.task import Data, Part, Scores, Task


class Regression(Task[RegressionRecipe]):
    """Predict a number: float32 features (batch, features) to the target in its own unit, (batch, 1)."""

    recipe_class = RegressionRecipe
    loss = keras.losses.MeanSquaredError()
    plotted_metric = "mae"

    def load(self) -> None:
        """Load and split the table."""
        self.dataset = load_table(self.recipe.data)
        train, name = self.dataset.train, self.dataset.name
        counts = {"train_examples": len(train), "validation_examples": len(self.dataset.validation)}
        self.data = Data(name, name, self.dataset.fingerprint(), counts=counts)

    def describe(self) -> str:
        """Describe the table."""
        return f"{self.data.name}, {len(self.dataset.train)} training rows"

    def batches(self) -> TrainingBatches:
        """Return batches of training rows."""
        rows = self.dataset.train
        sizes = batch_sizes(self.recipe, len(rows))
        return shuffled_batches(rows.features, rows.targets, sizes, self.recipe.training.seed)

    def validation(self) -> Any:
        """Return the validation rows."""
        rows = self.dataset.validation
        return evaluation_batches((rows.features, rows.targets))

    def build(self) -> keras.Model:
        """Build dense layers between the scaling of features and target, which the training part decides."""
        return build_regression(self.recipe.model, self.dataset.train.features, self.dataset.train.targets)

    def compile(self, model: keras.Model, **options: Any) -> None:
        """Compile with the mean squared error."""
        metrics = [
            keras.metrics.MeanSquaredError(name="mse"),
            keras.metrics.MeanAbsoluteError(name="mae"),
            keras.metrics.R2Score(name="r2"),
        ]
        model.compile(loss=self.loss, metrics=metrics, **options)

    def score(self, model: keras.Model, part: Part) -> Scores:
        """Return loss and mse (the same), mae and r2, in the target's own unit."""
        rows = self.dataset.validation if part == "validation" else self.dataset.test
        predictions = model.predict(rows.features, verbose=0)
        mse = float(mean_squared_error(rows.targets, predictions))
        figures = {
            "loss": mse,
            "mse": mse,
            "mae": float(mean_absolute_error(rows.targets, predictions)),
            "r2": float(r2_score(rows.targets, predictions)),
        }
        metrics = {f"{part}_{name}": round(value, 6) for name, value in figures.items()}
        return Scores(metrics, {"examples": len(rows)}, (rows.targets, predictions))

    def page(self, run: Run, metrics: Mapping[str, Any], test: Scores) -> Page:
        """Show predictions against targets."""
        scatter = run.plots / "predictions.png"
        targets, predictions = test.outputs
        plot_predictions(targets, predictions, scatter)
        return Page(
            figures={
                "test R²": f"{metrics['test_r2']:.3f}",
                "test mean absolute error": f"{metrics['test_mae']:.1f}",
                "test mean squared error": f"{metrics['test_mse']:.0f}",
            },
            pictures=[
                Picture(scatter, "Test rows: predictions against targets. A perfect one lies on the line.")
            ],
        )

    def examples(self) -> npt.NDArray[np.float32]:
        """Return the validation rows, (n, features)."""
        return self.dataset.validation.features

    def outputs(self, run: Run | None = None) -> str:
        """Return the dataset whose target is predicted."""
        return self.dataset.name if run is None else str(run.metrics["dataset"])
