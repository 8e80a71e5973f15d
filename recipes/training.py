"""The one way to train: compile, fit, resume."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import tensorflow as tf

from recipes.callbacks.data_order import DataOrder
from recipes.callbacks.diverged import StopOnNaN
from recipes.callbacks.early_stopping import KeepBest
from recipes.callbacks.history import History
from recipes.callbacks.moving_average import ValidateMovingAverage
from recipes.callbacks.plateau import ReduceOnPlateau
from recipes.callbacks.progress import ShowProgress, current_rate
from recipes.callbacks.pruning import Prune, prunable
from recipes.callbacks.resume import Checkpoint
from recipes.callbacks.training_loss import Penalty, Teacher, Term, TrainingLoss
from recipes.config import Distillation, DivergedError, Recipe, Regularization, UserError
from recipes.models.bare import bare_copy
from recipes.models.parameters import sparsity
from recipes.optimizers import build_optimizer
from recipes.run import Run
from recipes.schedules import LearningRate, Sparsity

STEPS_PER_EXECUTION = 32
"""Steps that run without coming back to Python. Fewer are slower, more make Ctrl-C wait."""


class Batches(Protocol):
    """Training data: `dataset` gives the passes, whose content depends on the seed and on `epoch` alone."""

    steps_per_epoch: int
    epoch: tf.Variable
    dataset: tf.data.Dataset


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        epochs: Epochs trained.
        best_epoch: The epoch whose weights the model holds, counted from 1.
        train_seconds: Wall time of all epochs with their validation, over all resumes.
    """

    epochs: int
    best_epoch: int
    train_seconds: float


def fix_seed(seed: int) -> None:
    """Make everything that follows a function of the seed, on this machine."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    *,
    loss: Any,
    metrics: Sequence[Any] = (),
    weighted_metrics: Sequence[Any] = (),
    steps_per_epoch: int,
    jit_compile: bool,
) -> LearningRate:
    """Compile a model by its recipe.

    Args:
        model: The model.
        recipe: Optimizer, schedule and length of the training.
        loss: As Keras takes it.
        metrics: As Keras takes them.
        weighted_metrics: Metrics that heed the examples' weights.
        steps_per_epoch: Optimizer steps an epoch.
        jit_compile: Whether XLA compiles the step.

    Returns:
        The owner of the learning rate.

    Raises:
        UserError: There is nothing to prune, or no time for it.
    """
    _pruning(recipe, steps_per_epoch)  # what can't be pruned is refused before there is a run directory
    if recipe.pruning.sparsity:
        prunable(model, recipe.pruning.leave_out, biases=recipe.pruning.biases)
    rate = LearningRate(
        recipe.schedule,
        highest=recipe.optimizer.learning_rate,
        steps_per_epoch=steps_per_epoch,
        epochs=recipe.training.epochs,
    )
    model.compile(
        optimizer=build_optimizer(recipe.optimizer, rate, model.trainable_variables),
        loss=loss,
        metrics=list(metrics),
        weighted_metrics=list(weighted_metrics),
        steps_per_execution=min(STEPS_PER_EXECUTION, steps_per_epoch, recipe.pruning.frequency),
        jit_compile=False,
    )
    # Keras refuses XLA where operations must be deterministic, because on a GPU some are not under
    # XLA. There TensorFlow says so; on a CPU all are.
    model._jit_compile = jit_compile
    model.optimizer.build(model.trainable_variables)
    return rate


def fit(  # noqa: PLR0913 - what a training is made of
    model: keras.Model,
    recipe: Recipe,
    run: Run,
    batches: Batches,
    validation: tf.data.Dataset,
    rate: LearningRate,
    *,
    teacher: keras.Model | None = None,
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
        validation: What chooses the epoch.
        rate: The owner of the learning rate.
        teacher: A model to learn from besides the labels.
        before_history: Callbacks that add to the metrics of an epoch.
        after_history: Callbacks that come when these are written down.

    Raises:
        DivergedError: The loss became NaN or infinite; the run says so.
        KeyboardInterrupt: Ctrl-C; the best weights so far are saved and the run says so.
    """
    pruning, pruned_epoch = _pruning(recipe, batches.steps_per_epoch)
    keep_best = KeepBest(recipe.early_stopping, first_epoch=pruned_epoch)
    progress = ShowProgress(rate, recipe.training.epochs)
    history = History(
        run.history_path,
        columns={
            "learning_rate": lambda: current_rate(rate, model),
            "batch_size": lambda: recipe.training.batch_size,
            "sparsity": lambda: sparsity(model),
        },
    )
    callbacks = [DataOrder(batches.epoch), StopOnNaN(), *before_history, keep_best]
    if recipe.schedule.name == "plateau":
        callbacks.append(ReduceOnPlateau(recipe.schedule, rate, recipe.early_stopping.metric))
    if recipe.optimizer.moving_average:
        callbacks.append(ValidateMovingAverage())
    callbacks += [*pruning, *_training_loss(model, recipe, teacher), history, *after_history]
    checkpoint = Checkpoint(run.checkpoint, callbacks)
    board = keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False)
    epochs = recipe.training.epochs
    try:
        model.fit(
            batches.dataset,
            validation_data=validation,
            initial_epoch=epochs if checkpoint.stopped() else checkpoint.finished_epochs(),
            epochs=epochs,
            shuffle=False,  # the batches are shuffled already
            callbacks=[*callbacks, checkpoint, board, progress],
            verbose=0,
        )
    except KeyboardInterrupt:
        keep_best.put_best()
        save_model(model, run)
        run.set_aside("interrupted", f"by Ctrl-C in epoch {len(history.rows) + 1}")
        raise
    except DivergedError as error:
        run.set_aside("failed", str(error))
        raise
    finally:
        progress.close()
    seconds = sum(row["seconds"] for row in history.rows)
    return Outcome(len(history.rows), keep_best.best_epoch, round(seconds, 3))


def _training_loss(model: keras.Model, recipe: Recipe, teacher: keras.Model | None) -> list[TrainingLoss]:
    """Return the callback that adds to the loss, if anything is to be added."""
    terms: list[Term] = []
    if teacher is not None:
        from_logits = getattr(model.loss, "from_logits", False)
        terms.append(Teacher(recipe.distillation, teacher, from_logits=from_logits))
    if recipe.regularization != Regularization():
        terms.append(Penalty(recipe.regularization, model))
    return [TrainingLoss(terms)] if terms else []


def _pruning(recipe: Recipe, steps_per_epoch: int) -> tuple[list[Prune], int]:
    """Return the pruning callback, if there is pruning, and the first epoch with all of its sparsity."""
    if not recipe.pruning.sparsity:
        return [], 1
    sparsity = Sparsity(recipe.pruning, recipe.training.epochs * steps_per_epoch)
    return [Prune(recipe.pruning, sparsity)], max(1, math.ceil(sparsity.end / steps_per_epoch))


def load_teacher(settings: Distillation, outputs: Callable[[Run], Any], ours: Any) -> keras.Model | None:
    """Load the model to learn from, if there is one.

    Args:
        settings: Whose it is.
        outputs: Says what the outputs of a run's model stand for.
        ours: What those of the model that learns stand for.

    Raises:
        UserError: An unfinished run, or one whose outputs stand for something else.
    """
    if settings.teacher is None:
        return None
    run = Run(Path(settings.teacher))
    if run.metrics and outputs(run) != ours:
        raise UserError(
            f"distillation.teacher: the model of {run.path} has other outputs: {outputs(run)}. Needed: {ours}"
        )
    return keras.models.load_model(run.model_path)


def save_model(model: keras.Model, run: Run) -> None:
    """Save the model without its optimizer: whoever loads it needs nothing of this project."""
    beside = run.path / ".model.keras"  # Keras wants the ending
    try:
        bare_copy(model).save(beside)
        beside.replace(run.model_path)
    finally:
        beside.unlink(missing_ok=True)
