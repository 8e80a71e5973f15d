"""Give a finished run's model int8 weights.

python -m recipes quantize runs/mnist-mlp/latest
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.compression.quantize import quantize
from recipes.report.page import Page, Table
from recipes.runs.directory import Run
from recipes.runs.opening import open_run
from recipes.runs.settings import recorded_recipe
from recipes.training.fit import Outcome, save_model

if TYPE_CHECKING:
    from recipes.task import Task


def quantize_run(task: "Task[Any]", path: Path) -> Run:
    """Write a run directory like any other, of a finished run's model with int8 weights.

    metrics.json names the layers that stay float32 (`not_quantized`) and the dense model's validation metric.

    Raises:
        UserError: Data that can't be loaded any more, or nothing to quantise.
    """
    source, metric = task.source_run, task.recipe.early_stopping.metric
    model = task.reload()
    smaller, left = quantize(model)
    record = {"run": str(source.path), "weights": "int8"}
    recipe, metrics = recorded_recipe(source.config), source.metrics
    with open_run(path, task.name, recipe, task.data.record(), resume=False, made_from=record) as run:
        run.history_path.write_bytes(source.history_path.read_bytes())
        save_model(smaller, run)
        task.prepare(run, smaller)
        task.write_results(
            smaller,
            run,
            Outcome(metrics["epochs"], metrics["best_epoch"], metrics["train_seconds"]),
            before=model,
            changes={
                "quantized_from": str(source.path),
                "not_quantized": left,
                f"dense_{metric}": metrics[metric],
            },
            page=Page(
                tables=[Table("Layers that stay float32", [{"layer": name} for name in left])] if left else []
            ),
        )
    return run
