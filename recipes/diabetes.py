"""Train a network that tells a number from numbers: how far a patient's diabetes is after a year.

    python -m recipes train diabetes-mlp

A network this small is there to be looked at: 10-5-1, 61 parameters, trained in seconds. Settings,
data, model, train, test, report: it reads in that order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import numpy.typing as npt
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from recipes.config import RegressionData, RegressionRecipe
from recipes.data.batches import TrainingBatches
from recipes.data.numbers import RegressionDataset, Rows, evaluation_rows, keep, load_numbers
from recipes.distribution import join, on_one_device
from recipes.models.regression import build_regression
from recipes.models.saved import load_model
from recipes.reopened import Change, Reopened, pruned_in_training
from recipes.report.curves import plot_learning_curves
from recipes.report.page import Picture, settings_table, write_page
from recipes.report.regression import plot_predictions
from recipes.run import Run, check_scored, open_run
from recipes.settings import recorded_recipe
from recipes.training import (
    Outcome,
    batch_sizes,
    building,
    common_metrics,
    compile_model,
    fit,
    fix_seed,
    load_teacher,
    save_model,
)

LOSS = keras.losses.MeanSquaredError()


def train(  # noqa: PLR0913 - all there is to say of a training
    name: str,
    recipe: RegressionRecipe,
    path: Path,
    *,
    resume: bool = False,
    finish: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    model: keras.Model | None = None,
    final: bool = True,
) -> Run:
    """Train a recipe to its end and write the run directory. Arguments and errors as `recipes.mnist.train`."""
    strategy = join(name, recipe)
    fix_seed(recipe.training.seed)
    dataset = load_numbers(recipe.data)
    rows = dataset.train
    batches = TrainingBatches(
        rows.features, rows.targets, batch_sizes(recipe, len(rows)), recipe.training.seed, keep
    )
    teacher = load_teacher(recipe, lambda run: run.metrics["dataset"], dataset.name)
    with building(recipe.training, strategy):
        model = model or build_regression(recipe.model, rows.features, rows.targets)
    rate = compile_model(
        model,
        recipe,
        loss=LOSS,
        metrics=[
            keras.metrics.MeanSquaredError(name="mse"),
            keras.metrics.MeanAbsoluteError(name="mae"),
            keras.metrics.R2Score(name="r2"),
        ],
        sizes=batches.sizes,
        jit_pays=False,
    )
    with open_run(path, name, recipe, _about(dataset), resume=resume, steps=batches.sizes.total_steps) as run:
        print(f"{name}: {model.count_params():,} parameters; {dataset.name}, {len(rows)} training rows")
        validation = evaluation_rows(dataset.validation)
        outcome = fit(
            model,
            recipe,
            run,
            batches,
            validation,
            rate,
            finish=finish,
            teacher=teacher,
            after_history=callbacks,
        )
        model = on_one_device(model)
        save_model(model, run)
        if not final:
            run.finish(_metrics(model, name, run, dataset, outcome))
            return run
        change = pruned_in_training(model, recipe, dataset.validation.features)
        _score_and_report(model, name, run, dataset, outcome, change)
    return run


def reopen(run: Run) -> Reopened:
    """Open a finished run again, to make something of its model.

    Raises:
        UserError: An unfinished run.
    """
    name = run.metrics["recipe"]
    recipe = cast(RegressionRecipe, recorded_recipe(run.config))
    dataset = load_numbers(recipe.data)
    return Reopened(
        recipe=recipe,
        about=_about(dataset),
        validation=evaluation_rows(dataset.validation),
        examples=dataset.validation.features,
        loss=LOSS,
        validate=lambda model: score(model, dataset.validation, "validation"),
        close=lambda model, new, outcome, change: _score_and_report(
            model, name, new, dataset, outcome, change
        ),
    )


def evaluate(run: Run, data: RegressionData, *, strict: bool = False) -> dict[str, Any]:
    """Score a finished run on the test part. Arguments as `recipes.mnist.evaluate`.

    Returns:
        `dataset`, `note`, `examples`, and test_loss, test_mse, test_mae, test_r2.

    Raises:
        UserError: An unfinished run; `strict`, and other data than it was trained on.
    """
    dataset = load_numbers(data)
    note = check_scored(run, _about(dataset), strict=strict)
    scores = score(load_model(run.model_path), dataset.test, "test")
    return {"dataset": dataset.name, "note": note, "examples": len(dataset.test), **scores}


def predict(model: keras.Model, rows: Rows) -> npt.NDArray[np.float32]:
    """Return predictions (n, 1), in the targets' own unit."""
    predictions: npt.NDArray[np.float32] = model.predict(rows.features, verbose=0)
    return predictions


def score(model: keras.Model, rows: Rows, part: str) -> dict[str, float]:
    """Return part_loss and part_mse (the same), part_mae, part_r2, in the targets' own unit."""
    predictions = predict(model, rows)
    mse = float(mean_squared_error(rows.targets, predictions))
    figures = {
        "loss": mse,
        "mse": mse,
        "mae": float(mean_absolute_error(rows.targets, predictions)),
        "r2": float(r2_score(rows.targets, predictions)),
    }
    return {f"{part}_{name}": round(value, 6) for name, value in figures.items()}


def _about(dataset: RegressionDataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "source": dataset.name,
        "note": "",
        "fingerprint": dataset.fingerprint(),
        "train_examples": len(dataset.train),
        "validation_examples": len(dataset.validation),
    }


def _metrics(
    model: keras.Model, name: str, run: Run, dataset: RegressionDataset, outcome: Outcome
) -> dict[str, Any]:
    """Return all metrics but those of the test part."""
    common = common_metrics(model, name, run, outcome, dataset=dataset.name, data_source=dataset.name)
    return common | score(model, dataset.validation, "validation")


def _score_and_report(
    model: keras.Model,
    name: str,
    run: Run,
    dataset: RegressionDataset,
    outcome: Outcome,
    change: Change | None,
) -> None:
    metrics = _metrics(model, name, run, dataset, outcome) | score(model, dataset.test, "test")
    changed, tables = change.describe(model) if change else ({}, [])
    metrics |= changed
    curves, scatter = run.plots / "learning_curves.png", run.plots / "predictions.png"
    plot_learning_curves(run.history, "mae", outcome.best_epoch, curves)
    plot_predictions(dataset.test.targets, predict(model, dataset.test), scatter)
    write_page(
        run.path / "report.html",
        title=f"{name} on {dataset.name}",
        note="",
        figures={
            "test R²": f"{metrics['test_r2']:.3f}",
            "test mean absolute error": f"{metrics['test_mae']:.1f}",
            "test mean squared error": f"{metrics['test_mse']:.0f}",
            "parameters": f"{metrics['parameters']:,}",
            "kept epoch": f"{metrics['best_epoch']} of {metrics['epochs']}",
            "training time": f"{metrics['train_seconds']:.0f} s",
        },
        pictures=[
            *(change.pictures if change else ()),
            Picture(
                curves,
                "Mean squared error, mean absolute error and learning rate by epoch; the dotted line is "
                "the epoch that was kept.",
            ),
            Picture(scatter, "Test rows: what the network tells against what was; on the line it is right."),
        ],
        tables=[*tables, settings_table("Settings", run.config)],
    )
    run.finish(metrics)
