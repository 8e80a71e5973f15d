"""Give a finished run's model int8 weights.

python -m recipes quantize runs/mnist-mlp/latest
"""

from pathlib import Path

from recipes.compression.quantize import quantize
from recipes.reopened import Change, reopen
from recipes.report.page import Table
from recipes.run import Run, open_run
from recipes.settings import recorded_recipe
from recipes.training import Outcome, save_model


def quantize_run(source: Run, path: Path) -> Run:
    """Write a run directory like any other, of a finished run's model with int8 weights.

    metrics.json names the layers that stay float32 (`not_quantized`) and the dense model's
    validation metric.

    Raises:
        UserError: An unfinished run, data that can't be had any more, or nothing to quantise.
    """
    model, opened = reopen(source)
    smaller, left = quantize(model)
    metric = opened.recipe.early_stopping.metric
    record = {"run": str(source.path), "weights": "int8"}
    name, recipe = source.metrics["recipe"], recorded_recipe(source.config)
    with open_run(path, name, recipe, opened.about, resume=False, made_from=record) as run:
        run.history_path.write_bytes(source.history_path.read_bytes())
        save_model(smaller, run)
        metrics = source.metrics
        change = Change(
            model,
            opened.examples,
            metrics={
                "quantized_from": str(source.path),
                "not_quantized": left,
                f"dense_{metric}": metrics[metric],
            },
            tables=[Table("Layers that stay float32", [{"layer": name} for name in left])] if left else [],
        )
        outcome = Outcome(metrics["epochs"], metrics["best_epoch"], metrics["train_seconds"])
        opened.close(smaller, run, outcome, change)
    return run
