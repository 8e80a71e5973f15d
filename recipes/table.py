"""Prediction of a column of a table from the others: a number (regression) or a class (classification).

    python -m recipes train table-mlp --data.source houses.csv --data.target price
    python -m recipes train diabetes-mlp

The sample is scikit-learn's diabetes data: the progression of a patient's illness after a year. `diabetes-mlp` is small
enough to be inspected: 10-5-1, 61 parameters, trained in seconds.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from recipes.config import Distillation, TableRecipe, UserError
from recipes.data.batch_sizes import batch_sizes
from recipes.data.batches import TrainingBatches, evaluation_batches, shuffled_batches
from recipes.data.table import SAMPLE, Schema, load_table
from recipes.models.table import build_classifier, build_regression
from recipes.report.charts import draw_confusion, draw_predictions
from recipes.report.page import Chart, Page, Table
from recipes.report.plots import plot_confusion, plot_predictions
from recipes.report.scores import score_classification
from recipes.runs.directory import Run
from recipes.task import Data, Part, Scores, Task
from recipes.training.losses import Divergence, squared_error

SPEED_BATCH_SIZE = 256


class TablePrediction(Task[TableRecipe]):
    """Predict from float32 rows (batch, columns): a number (batch, 1), or class probabilities (batch, classes)."""

    recipe_class = TableRecipe

    def load(self) -> None:
        """Load and split the table."""
        trained_on, schema = None, None
        if self.source:
            trained_on = self.source.metrics["data_source"]
            recorded = self.source.metrics.get("columns")
            schema = Schema.from_record(self.source.metrics) if recorded else None
        self.dataset = load_table(self.recipe.data, schema, trained_on)
        self.schema, self.classes = self.dataset.schema, self.dataset.schema.target.categories
        rows = {
            "train_examples": len(self.dataset.train),
            "validation_examples": len(self.dataset.validation),
        }
        name, source = self.dataset.name, self.dataset.data_source
        self.data = Data(name, source, self.dataset.fingerprint(), self.dataset.note, rows)
        self.plotted_metric = "accuracy" if self.classes else "mae"
        self.loss = (
            keras.losses.SparseCategoricalCrossentropy() if self.classes else keras.losses.MeanSquaredError()
        )
        self._check_settings()

    def _check_settings(self) -> None:
        """Refuse settings that are for the other kind of target."""
        metric = self.recipe.early_stopping.metric
        kind = "a classification" if self.classes else "a regression"
        if metric != "validation_loss" and (metric == "validation_accuracy") != bool(self.classes):
            raise UserError(f"early_stopping.metric: {kind} has no {metric}")
        if not self.classes and self.recipe.distillation.temperature != Distillation.temperature:
            raise UserError(
                f"distillation.temperature is for classifiers. Received: {self.recipe.distillation.temperature}"
            )

    def describe(self) -> str:
        """Describe the table and its target."""
        target = self.schema.target
        kind = f"one of {len(self.classes)} classes" if self.classes else "a number"
        parts = f"{len(self.dataset.train):,} training and {len(self.dataset.validation):,} validation rows"
        return f"{self.data.name}, {parts}, {len(self.schema.columns)} columns; {target.name} is {kind}"

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
        """Build dense layers on standardized numbers and one-hot categories."""
        rows, settings = self.dataset.train, self.recipe.model
        columns = self.schema.columns
        kinds = [len(column.categories) for column in columns], [column.missing for column in columns]
        if self.classes:
            return build_classifier(settings, rows.features, len(self.classes), *kinds)
        return build_regression(settings, rows.features, rows.targets, *kinds)

    def compile(self, model: keras.Model, **options: Any) -> None:
        """Compile with the cross-entropy and accuracy, or the mean squared error."""
        regression = [
            keras.metrics.MeanSquaredError(name="mse"),
            keras.metrics.MeanAbsoluteError(name="mae"),
            keras.metrics.R2Score(name="r2"),
        ]
        model.compile(loss=self.loss, metrics=["accuracy"] if self.classes else regression, **options)

    def divergence(self) -> Divergence:
        """Return the softened cross-entropy for classes, the squared error for numbers."""
        return super().divergence() if self.classes else squared_error

    def score(self, model: keras.Model, part: Part) -> Scores:
        """Return the metrics of a classification, or loss and mse (the same), mae and r2 in the target's own unit."""
        rows = self.dataset.validation if part == "validation" else self.dataset.test
        predictions = model.predict(rows.features, verbose=0)
        size = {"examples": len(rows)}
        if self.classes:
            scores = score_classification(predictions, rows.targets)
            by_class = {f"{part}_by_class": scores.by_class(self.classes)}
            return Scores(scores.summary(part), size, scores, by_class)
        mse = float(mean_squared_error(rows.targets, predictions))
        figures = {
            "loss": mse,
            "mse": mse,
            "mae": float(mean_absolute_error(rows.targets, predictions)),
            "r2": float(r2_score(rows.targets, predictions)),
        }
        metrics = {f"{part}_{name}": round(value, 6) for name, value in figures.items()}
        return Scores(metrics, size, (rows.targets, predictions))

    def page(self, run: Run, metrics: Mapping[str, Any], test: Scores) -> Page:
        """Show the confusion matrix, or predictions against targets."""
        if self.classes:
            confusion = run.plots / "confusion_matrix.png"
            plot_confusion(test.outputs.confusion, self.classes, confusion)
            return Page(
                figures={"test accuracy": f"{100 * metrics['test_accuracy']:.2f} %"},
                charts=[
                    Chart(
                        [draw_confusion(test.outputs.confusion, self.classes)],
                        "Test rows: rows are true classes, columns predictions.",
                    )
                ],
                tables=[Table("Test metrics by class", metrics["test_by_class"])],
            )
        scatter = run.plots / "predictions.png"
        targets, predictions = test.outputs
        plot_predictions(targets, predictions, scatter)
        return Page(
            figures={
                "test R²": f"{metrics['test_r2']:.3f}",
                "test mean absolute error": f"{metrics['test_mae']:.4g}",
                "test mean squared error": f"{metrics['test_mse']:.4g}",
            },
            charts=[
                Chart(
                    [draw_predictions(targets, predictions)],
                    "Test rows: predictions against targets. A perfect one lies on the line.",
                )
            ],
        )

    def examples(self) -> npt.NDArray[np.float32]:
        """Return validation rows, (n, columns), n at most 256."""
        return self.dataset.validation.features[:SPEED_BATCH_SIZE]

    def outputs(self, run: Run | None = None) -> Any:
        """Return the classes, or the dataset whose number is predicted."""
        if run is None:
            return list(self.classes) or self.data.name
        return list(run.metrics.get("target", {}).get("categories", ())) or run.metrics["dataset"]

    def details(self, epochs: int) -> dict[str, Any]:
        """Return the columns of a file: an export needs them to read rows."""
        return {} if self.data.source == SAMPLE else self.schema.record()
