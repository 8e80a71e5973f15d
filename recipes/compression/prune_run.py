"""Prune a finished run step by step, with training between the steps, as far as its metric allows.

    python -m recipes prune runs/mnist-cnn/latest
    python -m recipes prune runs/mnist-cnn/latest --structure weights --tolerance 0.05

Each step is a run of the recipe's own training, in `steps/` of the new run, that starts with the model of the step
before: a kill costs an epoch, and every step can be exported.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.compression import importance
from recipes.compression.cost import multiply_adds
from recipes.compression.quantize import check_not_quantized
from recipes.compression.shrink import shrink, silence
from recipes.compression.units import KINDS, Units, find_units
from recipes.config import Recipe, RunPruning, UserError, better_when_low, nearest, to_dict, with_settings
from recipes.models.parameters import count_nonzero
from recipes.models.saved import load_model
from recipes.report.charts import draw_trade_off
from recipes.report.page import Chart, Page, Table
from recipes.report.plots import plot_trade_off
from recipes.runs.directory import Run
from recipes.runs.files import write_csv
from recipes.runs.opening import open_run
from recipes.runs.recipe_lookup import recorded_recipe
from recipes.training.callbacks.pruning import keep_zeros, prunable
from recipes.training.compile import building
from recipes.training.fit import Outcome, fix_seed, save_model

if TYPE_CHECKING:  # the task, which trains the steps, is above this package
    from recipes.task import Task

SMALLEST_FRACTION = 1 / 8
"""Pruning ends when the fraction is below this part of the first one."""
TAYLOR_BATCHES = 8


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the trade-off curve: the dense run, or a step.

    Attributes:
        run: Its run.
        left: Fraction of the units or weights that it keeps.
        value: Its validation metric.
        kept: Whether that is within the tolerance: the next step then starts from this one.
    """

    run: Run
    left: float
    value: float
    kept: bool


def prune_run(task: "Task[Any]", path: Path, settings: RunPruning, *, resume: bool = False) -> Run:
    """Prune a finished run and write a run directory like any other.

    Args:
        task: The task of the dense run.
        path: The new run directory.
        settings: How, and how far.
        resume: Continue the unfinished pruning there.

    Returns:
        The new run, with the smallest model within the tolerance. If no step is within it, that is the model of
        the source run, and terminal, metrics.json and report say so.

    Raises:
        UserError: An unfinished run; data that is no longer available or on which the dense model exceeds the
            tolerance; layers that do not exist or can't be pruned; on resume, settings that differ from the run's.
            Nothing is written.
    """
    source = task.source_run
    dense = task.reload()
    check_not_quantized(dense)
    _check_reproduced(task, dense, settings)
    _check_prunable(dense, settings)
    record = {"run": str(source.path), **to_dict(settings)}
    recipe = recorded_recipe(source.config)
    with open_run(path, task.name, recipe, task.data.record(), resume=resume, made_from=record) as run:
        points = list(_trade_off(task, run, settings))
        _write_results(task, run, dense, settings, points)
    return run


def _check_reproduced(task: "Task[Any]", dense: keras.Model, settings: RunPruning) -> None:
    metric = task.recipe.early_stopping.metric
    recorded, now = task.source_run.metrics[metric], task.score(dense, "validation").metrics[metric]
    if not _within(now, recorded, metric, settings.tolerance):
        raise UserError(
            f"tolerance {settings.tolerance}: the dense model itself exceeds it: its {metric} was {recorded} "
            f"when it was trained and is {now} on the current data"
        )


def _within(value: float, dense: float, metric: str, tolerance: float) -> bool:
    """Return whether a metric is within the tolerance: percentage points of an accuracy, absolute for a loss."""
    loss = better_when_low(metric)
    worse = (value - dense) if loss else 100 * (dense - value)
    return worse <= tolerance + 1e-9


def _check_prunable(dense: keras.Model, settings: RunPruning) -> None:
    if settings.structure == "weights":
        prunable(dense, settings.leave_out)
        return
    units = _candidates(dense, settings)
    if settings.importance == "batch-norm":
        importance.batch_normalization(units)


def _candidates(model: keras.Model, settings: RunPruning) -> Units:
    """Return the units that may be removed."""
    units = find_units(model)
    layers = [layer for group in units.groups for layer in group.name.split("+")]
    for name in settings.leave_out:
        if name not in layers:
            raise UserError(f"leave_out: there is no prunable layer {name!r}. {nearest(name, layers)}")
    left_out = set(settings.leave_out)
    groups = [group for group in units.groups if not left_out & set(group.name.split("+"))]
    if not groups:
        raise UserError("the model has no prunable layers left: dense, convolution or Transformer layers")
    return dataclasses.replace(units, groups=groups)


def _trade_off(task: "Task[Any]", run: Run, settings: RunPruning) -> Iterator[Point]:
    """Yield the dense run and each step; finished steps of a killed pruning are only read."""
    source, metric = task.source_run, task.recipe.early_stopping.metric
    dense = source.metrics[metric]
    here = Point(source, _left(source, task.recipe, settings), dense, kept=True)
    yield here
    fraction = settings.fraction
    for number in range(1, settings.steps + 1):
        step = Run(run.path / "steps" / f"{number:02}")
        left = here.left * (1 - fraction)
        if not step.finished and not _train_step(task, here, step, settings, fraction):
            return
        value = step.metrics[metric]
        point = Point(step, left, value, _within(value, dense, metric, settings.tolerance))
        print(f"step {number}: {_describe(point, metric)}", flush=True)
        yield point
        if point.kept:
            here = point
        else:
            fraction /= 2
        if fraction < settings.fraction * SMALLEST_FRACTION:
            return


def _left(source: Run, recipe: Recipe, settings: RunPruning) -> float:
    """Return the fraction of the weights that are not 0; 1 for units."""
    if settings.structure == "units":
        return 1.0
    model = load_model(source.model_path)
    weights = [
        keras.ops.convert_to_numpy(variable)
        for variable in prunable(model, settings.leave_out, biases=recipe.pruning.biases)
    ]
    return sum(int(np.count_nonzero(each)) for each in weights) / sum(each.size for each in weights)


def _describe(point: Point, metric: str) -> str:
    verdict = (
        "within the tolerance" if point.kept else "exceeds the tolerance: discarded, the fraction is halved"
    )
    return (
        f"{point.run.metrics['nonzero_parameters']:,} nonzero parameters, "
        f"{metric} {point.value:.4f}, {verdict}"
    )


def _train_step(task: "Task[Any]", before: Point, step: Run, settings: RunPruning, fraction: float) -> bool:
    """Prune the model of the step before and train it; return False if there is nothing left to prune."""
    resume = (step.path / "config.json").exists()
    start = step.path.with_name(f"{step.path.name}-start.keras")
    if settings.structure == "units" and not start.exists():
        smaller = _without_least(load_model(before.run.model_path), task, settings, fraction)
        if smaller is None:
            return False
        start.parent.mkdir(exist_ok=True)
        beside = start.with_name(f".{start.name}")
        smaller.save(beside)
        beside.replace(start)
    fix_seed(task.recipe.training.seed)  # of its dropout too
    recipe = _step_recipe(task.source_run, task.recipe, settings, before.left * (1 - fraction))
    with building(recipe.training, tf.distribute.get_strategy()):
        model = load_model(start if settings.structure == "units" else before.run.model_path)
    keep_zeros(model)
    type(task)(task.name, recipe).train(step.path, resume=resume, model=model, final=False)
    start.unlink(missing_ok=True)
    return True


def _without_least(
    model: keras.Model, task: "Task[Any]", settings: RunPruning, fraction: float
) -> keras.Model | None:
    """Return the model without a fraction of its units, or None if none can be removed."""
    units = _candidates(model, settings)
    scores = _scores(model, units, task, settings)
    chosen = importance.least(units, scores, dict.fromkeys(KINDS, fraction))
    if not chosen.any():
        return None
    silence(units, chosen)
    return shrink(model)


def _scores(model: keras.Model, units: Units, task: "Task[Any]", settings: RunPruning) -> importance.Scores:
    if settings.importance == "magnitude":
        return importance.magnitude(units)
    if settings.importance == "batch-norm":
        return importance.batch_normalization(units)
    return importance.taylor(units, _gradients(model, units, task))


def _gradients(
    model: keras.Model, units: Units, task: "Task[Any]"
) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """Yield the gradients of the loss on validation batches, by the variables' paths."""
    makers = {tie.variable.path: tie.variable.value for tie in units.ties if tie.role == "makes"}

    @tf.function
    def gradients(inputs: Any, targets: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = task.loss(targets, model(inputs, training=False), sample_weight=weights)
        return tape.gradient(loss, makers)

    for batch in task.validation().take(TAYLOR_BATCHES):
        inputs, targets, *weights = batch
        found = gradients(inputs, targets, weights[0] if weights else None)
        yield {path: gradient.numpy() for path, gradient in found.items()}


def _step_recipe(source: Run, recipe: Recipe, settings: RunPruning, left: float) -> Recipe:
    """Return the settings of the training after a step: the recipe's own with fewer epochs.

    Rewinding the learning rate gives better models than fine-tuning with the final one (Renda et al. 2020,
    "Comparing Rewinding and Fine-tuning in Neural Network Pruning", arXiv:2003.02389).
    """
    weights = {
        "sparsity": 1 - left,
        "schedule": "constant",
        "begin": 0,
        "end": None,
        "settle": None,
        "leave_out": settings.leave_out,
    }
    return with_settings(
        recipe,
        {
            "training": {"epochs": settings.epochs, "replicas": 1},
            "schedule": {"warmup": min(recipe.schedule.warmup, settings.epochs / 5)},
            "early_stopping": {"patience": None},
            "pruning": weights if settings.structure == "weights" else {"sparsity": 0.0},
            "distillation": {"teacher": str(source.path) if settings.distill else None},
        },
    )


def _write_results(
    task: "Task[Any]", run: Run, dense: keras.Model, settings: RunPruning, points: Sequence[Point]
) -> None:
    """Write the run of the last model within the tolerance."""
    metric = task.recipe.early_stopping.metric
    kept = [point for point in points if point.kept]
    best = kept[-1]
    model = load_model(best.run.model_path)
    save_model(model, run)
    rows = [_row(number, point, metric) for number, point in enumerate(points)]
    write_csv(run.path / "trade_off.csv", rows)
    limit = points[0].value + settings.tolerance * (1 if better_when_low(metric) else -0.01)
    plot_trade_off(rows, metric, limit, run.plots / "trade_off.png")
    caption = (
        "Validation metric against the percentage of the parameters that are 0 or removed; crosses exceed the "
        "tolerance, the dashed line."
    )
    said = f"{len(kept) - 1} of {len(points) - 1} steps are within the tolerance of {settings.tolerance}"
    if len(kept) == 1:
        said = f"Nothing was pruned, the model is that of {points[0].run.path}: {said}"
        print(said, flush=True)
    task.prepare(run, model)
    task.write_results(
        model,
        run,
        _write_history(run, kept),
        before=dense,
        changes={
            "pruned_from": str(points[0].run.path),
            "tolerance": settings.tolerance,
            f"dense_{metric}": points[0].value,
            "steps_kept": len(kept) - 1,
        },
        page=Page(
            remarks=[said],
            charts=[Chart([draw_trade_off(rows, metric, limit)], caption)],
            tables=[Table("Steps of the pruning", rows)],
        ),
    )


def _row(number: int, point: Point, metric: str) -> dict[str, Any]:
    model = load_model(point.run.model_path)
    return {
        "step": number,
        "kept": point.kept,
        "parameters": model.count_params(),
        "nonzero_parameters": count_nonzero(model),
        "multiply_adds": multiply_adds(model),
        metric: point.value,
    }


def _write_history(run: Run, kept: Sequence[Point]) -> Outcome:
    """Write the epochs of the kept steps, one after the other, without those of the dense run."""
    trained = kept[1:] or kept
    rows: list[dict[str, float]] = []
    best_epoch = 0
    for point in trained:
        best_epoch = len(rows) + int(point.run.metrics["best_epoch"])
        rows += [{**row, "epoch": len(rows) + row["epoch"]} for row in point.run.history]
    write_csv(run.history_path, rows)
    return Outcome(len(rows), best_epoch, round(sum(row["seconds"] for row in rows), 3))
