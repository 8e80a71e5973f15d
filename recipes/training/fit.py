"""Train a compiled model: callbacks, fit, outcome. Resume from the run's checkpoint."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from recipes.config import DivergedError, Recipe, better_when_low
from recipes.data.batch_sizes import BatchSizes
from recipes.distribution.keras_fit_patch import patched_fit
from recipes.distribution.strategy import divided, lost_worker, share_checkpoint
from recipes.models.image import AverageOfMembers
from recipes.models.parameters import sparsity
from recipes.models.saved import copy_without_optimizer
from recipes.runs.directory import Run
from recipes.training.callbacks import (
    Checkpoint,
    History,
    KeepBest,
    MovingAverage,
    Prune,
    ReduceOnPlateau,
    ShowProgress,
    StopOnNaN,
)
from recipes.training.losses import Term, added_to_loss, member_losses, weight_penalty
from recipes.training.optimizers import last_learning_rate

FINISHED_EARLY = "stopped early by hand"
"""Status in metrics.json of a run that `finish` ended."""


class Batches(Protocol):
    """Training data: `dataset` gives the batches of an epoch, which depend on the seed and on `epoch` alone."""

    sizes: BatchSizes
    epoch: tf.Variable
    dataset: tf.data.Dataset


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Attributes:
        epochs: Epochs trained.
        best_epoch: The epoch whose weights the model holds, counted from 1.
        train_seconds: Wall time of all epochs with their validation, over all resumes.
        status: Why training ended before its last epoch; "" at its end or by early stopping.
    """

    epochs: int
    best_epoch: int
    train_seconds: float
    status: str = ""


def fix_seed(seed: int) -> None:
    """Seed all random generators, and make TensorFlow's operations deterministic."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def fit(  # noqa: PLR0913 - the parts of a training
    model: keras.Model,
    recipe: Recipe,
    run: Run,
    batches: Batches,
    validation: tf.data.Dataset,
    *,
    finish: bool = False,
    taught: Term | None = None,
    before_history: Sequence[keras.callbacks.Callback] = (),
    after_history: Sequence[keras.callbacks.Callback] = (),
) -> Outcome:
    """Train a compiled model to its recipe's end, from the run's checkpoint if it has one.

    The model then holds the weights of its best epoch.

    Args:
        model: The compiled model.
        recipe: Its settings.
        run: Where history and checkpoints go.
        batches: The training data.
        validation: The validation data, which chooses the epoch.
        finish: Train no further than the checkpoint, which has at least one epoch.
        taught: What the loss of a teacher adds, where there is one.
        before_history: Callbacks that add to the metrics of an epoch.
        after_history: Callbacks that need the epoch's row in the history.

    Raises:
        DivergedError: The loss became NaN or infinite; the run's status says so.
        LostWorkerError: Another worker died; the run can be resumed from its checkpoint.
        KeyboardInterrupt: Ctrl-C; the best weights so far are saved, the run's status says so.
    """
    stopping, metric = recipe.early_stopping, recipe.early_stopping.metric
    decay, plateau = recipe.optimizer.moving_average, recipe.schedule.name == "plateau"
    monitored: dict[str, Any] = {
        "monitor": metric.replace("validation_", "val_"),
        "mode": "min" if better_when_low(metric) else "max",
    }
    keep_best = KeepBest(
        **monitored,
        patience=stopping.patience,
        min_delta=stopping.min_delta,
        first_epoch=_first_epoch(recipe, batches.sizes),
    )
    history = History(
        run.history_path,
        columns={
            "learning_rate": lambda: last_learning_rate(model.optimizer),
            "batch_size": lambda: batches.sizes.mean,
            "sparsity": lambda: sparsity(model),
            f"best_{metric}": lambda: keep_best.best,
        },
    )
    strategy = model.distribute_strategy
    share_checkpoint(strategy, run.checkpoint)
    checkpoint, progress = Checkpoint(run.checkpoint), ShowProgress()
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.epoch.assign(epoch)),
        StopOnNaN(),
        *([MovingAverage(decay)] if decay else []),
        *([_prune(recipe, batches.sizes)] if recipe.pruning.sparsity else []),
        *before_history,
        keep_best,
        *([ReduceOnPlateau(**monitored, **recipe.schedule.parameters())] if plateau else []),
        history,
        *after_history,
        checkpoint,
        keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False),
        progress,
    ]
    try:
        with (
            patched_fit(strategy),
            added_to_loss(model, _terms(model, recipe, taught)),
            contextlib.closing(progress),
        ):
            model.fit(
                divided(strategy, batches.dataset),
                validation_data=divided(strategy, validation),
                epochs=checkpoint.finished_epochs() if finish else recipe.training.epochs,
                shuffle=False,  # the batches are shuffled already
                callbacks=callbacks,
                verbose=0,
            )
    except KeyboardInterrupt:
        keep_best.put_best()
        save_model(model, run)
        run.write_status("interrupted", f"by Ctrl-C in epoch {len(history.rows) + 1}")
        raise
    except DivergedError as error:
        run.write_status("failed", str(error))
        raise
    except tf.errors.OpError as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        raise lost_worker(error, f"in epoch {len(history.rows) + 1}") from error
    done, seconds = len(history.rows), round(sum(row["seconds"] for row in history.rows), 3)
    if finish:  # if no epoch so far may be the best, the last one is kept
        return Outcome(done, keep_best.best_epoch or done, seconds, FINISHED_EARLY)
    return Outcome(done, keep_best.best_epoch, seconds)


def _first_epoch(recipe: Recipe, sizes: BatchSizes) -> int:
    """Return the first epoch, counted from 1, that may be the best: one with the final sparsity."""
    first = recipe.early_stopping.first_epoch(recipe.training.epochs)
    if not recipe.pruning.sparsity:
        return first
    end, _ = recipe.pruning.last_steps(sizes.total_steps)
    return max(first, math.ceil(end / sizes.steps_per_epoch))


def _prune(recipe: Recipe, sizes: BatchSizes) -> Prune:
    settings = dataclasses.asdict(recipe.pruning.resolved(sizes.total_steps))
    steps = {f"{name}_step": settings.pop(name) for name in ("begin", "end", "settle")}
    return Prune(**steps, **settings)


def _terms(model: keras.Model, recipe: Recipe, taught: Term | None) -> list[Term]:
    """Return what training adds to the loss of the labels."""
    averages = [layer for layer in model.layers if isinstance(layer, AverageOfMembers)]
    terms = [member_losses(average) for average in averages]
    if taught is not None:
        terms.append(taught)
    if recipe.regularization.l1 or recipe.regularization.l2:
        terms.append(weight_penalty(model, l1=recipe.regularization.l1, l2=recipe.regularization.l2))
    return terms


def save_model(model: keras.Model, run: Run) -> None:
    """Save the model without its optimizer: loading it needs nothing of this project."""
    beside = run.path / ".model.keras"  # Keras requires this suffix
    try:
        copy_without_optimizer(model).save(beside)
        beside.replace(run.model_path)
    finally:
        beside.unlink(missing_ok=True)
