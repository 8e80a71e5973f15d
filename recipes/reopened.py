"""A finished run, opened again to make something of its model: what pruning and quantising need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from recipes.compression.cost import sparsity_by_layer
from recipes.config import Recipe
from recipes.kinds import module_of
from recipes.measurement import measure
from recipes.models.saved import load_model
from recipes.report.page import Picture, Table
from recipes.run import Run, check_same_data
from recipes.settings import recorded_recipe
from recipes.training import Outcome


@dataclass(frozen=True)
class Change:
    """What a model was before it was pruned or quantised, for the new run's report.

    Attributes:
        before: That model.
        examples: A batch for both, to measure their speed.
        metrics: What else metrics.json says of the change.
        pictures: What else the report shows of it.
        tables: As pictures.
    """

    before: keras.Model
    examples: Any
    metrics: dict[str, Any] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()

    def describe(self, after: keras.Model) -> tuple[dict[str, Any], list[Table]]:
        """Measure both, and return it for metrics.json and as tables for the report."""
        measured = measure(self.before, after, self.examples)
        layers = sparsity_by_layer(after)
        rows = [
            {
                "figure": FIGURES[name],
                "before": f"{old:,}",
                "after": f"{new:,}",
                "ratio": f"{old / new:.2f}" if new else "",
            }
            for (name, old), new in zip(measured["before"].items(), measured["after"].values(), strict=True)
        ]
        size = len(tf.nest.flatten(self.examples)[0])
        caption = f"Before and after, measured in turns on this machine; throughput in batches of {size}"
        tables = [Table(caption, rows), Table("Weights by layer", layers), *self.tables]
        return {**self.metrics, "compression": measured, "sparsity_by_layer": layers}, tables


def pruned_in_training(model: keras.Model, recipe: Recipe, examples: Any) -> Change | None:
    """Return what training made of a dense model of the same sizes, if it pruned."""
    if not recipe.pruning.sparsity:
        return None
    return Change(type(model).from_config(model.get_config()), examples)


FIGURES = {
    "parameters": "parameters",
    "nonzero_parameters": "parameters that are not 0",
    "model_bytes": "size of model.keras, bytes",
    "gzipped_bytes": "the same in gzip, bytes",
    "multiply_adds": "multiply-adds of an example",
    "latency_ms": "latency of one example, ms",
    "examples_per_second": "throughput, examples/s",
}


@dataclass(frozen=True)
class Reopened:
    """A finished run's data, loss and scores.

    Attributes:
        recipe: Its settings, with the data source that it had.
        about: Its data as a run's environment.json has it.
        validation: Its validation part as (inputs, targets), or with weights.
        examples: A batch of inputs.
        loss: What it was trained on.
        validate: The validation metrics of a model, by name.
        close: Scores a model and writes the rest of a run's directory.
    """

    recipe: Recipe
    about: dict[str, Any]
    validation: tf.data.Dataset
    examples: Any
    loss: keras.losses.Loss
    validate: Callable[[keras.Model], dict[str, float]]
    close: Callable[[keras.Model, Run, Outcome, Change], None]


def reopen(run: Run) -> tuple[keras.Model, Reopened]:
    """Load a finished run's model and open its data again.

    Raises:
        UserError: An unfinished run, or data that can't be had any more or has changed.
    """
    _ = run.metrics  # refuses an unfinished run
    opened: Reopened = module_of(recorded_recipe(run.config)).reopen(run)
    check_same_data(run, opened.about, f"{run.path} was trained on other data than there is now")
    return load_model(run.model_path), opened
