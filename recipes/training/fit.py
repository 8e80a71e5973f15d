"""The one way to train: compile, fit, resume."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import keras
import tensorflow as tf

from recipes.config import DivergedError, Recipe, RegressionRecipe, Training, require
from recipes.data.batch_sizes import BatchSizes
from recipes.distribution.strategy import divided, lost_worker, share_checkpoint
from recipes.models.parameters import sparsity
from recipes.models.saved import copy_without_optimizer
from recipes.runs.directory import Run
from recipes.training.callbacks.data_order import DataOrder
from recipes.training.callbacks.diverged import StopOnNaN
from recipes.training.callbacks.early_stopping import KeepBest
from recipes.training.callbacks.end_of_epoch import EndOfEpoch
from recipes.training.callbacks.history import History
from recipes.training.callbacks.moving_average import MovingAverage
from recipes.training.callbacks.plateau import ReduceOnPlateau
from recipes.training.callbacks.progress import ShowProgress, current_rate
from recipes.training.callbacks.pruning import Prune, prunable
from recipes.training.callbacks.resume import Checkpoint
from recipes.training.callbacks.training_loss import (
    Penalty,
    RegressionTeacher,
    Teacher,
    Term,
    TrainingLoss,
)
from recipes.training.optimizers import build_optimizer
from recipes.training.schedules import LearningRate, Sparsity

STEPS_PER_EXECUTION = 32
"""Steps that run without coming back to Python. Fewer are slower, more make Ctrl-C wait."""
BY_HAND = "stopped early by hand"
"""What metrics.json says of a run that `finish` ended."""


class Batches(Protocol):
    """Training data: `dataset` gives the passes, whose content depends on the seed and on `epoch` alone."""

    sizes: BatchSizes
    epoch: tf.Variable
    dataset: tf.data.Dataset


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        epochs: Epochs trained.
        best_epoch: The epoch whose weights the model holds, counted from 1.
        train_seconds: Wall time of all epochs with their validation, over all resumes.
        status: What ended it before its time; "" at its end or by early stopping.
    """

    epochs: int
    best_epoch: int
    train_seconds: float
    status: str = ""


def fix_seed(seed: int) -> None:
    """Make everything that follows a function of the seed, on this machine."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def batch_sizes(recipe: Recipe, examples: int) -> BatchSizes:
    """Return how many examples each step of a recipe takes.

    Args:
        recipe: Its settings. Gradient descent takes all examples at once.
        examples: Examples an epoch.

    Raises:
        UserError: A batch larger than an epoch.
    """
    size = examples if recipe.optimizer.name == "gradient-descent" else recipe.training.batch_size
    require(
        size <= examples,
        f"training.batch_size must be at most the number of training examples, {examples}",
        batch_size=size,
    )
    epochs, seed = recipe.training.epochs, recipe.training.seed
    return BatchSizes(recipe.batches, size, examples=examples, epochs=epochs, seed=seed)


@contextlib.contextmanager
def building(training: Training, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Make layers that are built inside compute in a training's precision, on each of its replicas."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(training.precision)
    try:
        with strategy.scope():
            yield
    finally:
        keras.config.set_dtype_policy(before)


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    compile_task: Callable[..., None],
    *,
    sizes: BatchSizes,
    xla_is_faster: bool,
) -> LearningRate:
    """Compile a model by its recipe.

    Args:
        model: The model.
        recipe: Optimizer, schedule and length of the training.
        compile_task: Calls `model.compile` with loss and metrics, and with the options that it is given.
        sizes: Examples of each step.
        xla_is_faster: Whether XLA makes such a model faster on a CPU.

    Returns:
        The owner of the learning rate.

    Raises:
        UserError: There is nothing to prune, or no time for it; a model that XLA can't compile.
    """
    xla = xla_is_faster and recipe.batches.name == "fixed"
    _pruning(recipe, sizes)  # what can't be pruned is refused before there is a run directory
    if recipe.pruning.sparsity:
        prunable(model, recipe.pruning.leave_out, biases=recipe.pruning.biases)
    rate = LearningRate(
        recipe.schedule,
        highest=recipe.optimizer.learning_rate,
        times=sizes.times,
    )
    alone = model.distribute_strategy.num_replicas_in_sync == 1
    _normalize_whole_batches(model, synchronized=not alone)
    # Keras's loop over several steps can't take its batches from several replicas' iterators.
    most_steps = STEPS_PER_EXECUTION if alone else 1
    with model.distribute_strategy.scope():
        optimizer = build_optimizer(recipe.optimizer, rate, model.trainable_variables)
        if recipe.training.precision == "mixed_float16":
            # Keras does it by the policy of the model, which one that was loaded does not have.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        compile_task(
            model,
            optimizer=optimizer,
            steps_per_execution=min(most_steps, sizes.fewest_steps, recipe.pruning.frequency),
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
    # Keras refuses XLA where operations must be deterministic, because on a GPU some are not under
    # XLA. There TensorFlow says so; on a CPU all are, but for what `_compiled_by_xla` refuses.
    model._jit_compile = xla and alone
    return rate


def _normalize_whole_batches(model: keras.Model, *, synchronized: bool) -> None:
    """Let batch normalisation see a whole batch, where it is divided among replicas."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized


def fit(  # noqa: PLR0913 - what a training is made of
    model: keras.Model,
    recipe: Recipe,
    run: Run,
    batches: Batches,
    validation: tf.data.Dataset,
    rate: LearningRate,
    *,
    finish: bool = False,
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
        finish: Train no further than the checkpoint, which has an epoch at least.
        teacher: A model to learn from besides the labels.
        before_history: Callbacks that add to the metrics of an epoch.
        after_history: Callbacks that come when these are written down.

    Raises:
        DivergedError: The loss became NaN or infinite; the run says so.
        LostWorkerError: Another worker is gone; the checkpoint is there to go on from.
        KeyboardInterrupt: Ctrl-C; the best weights so far are saved and the run says so.
    """
    pruning, pruned_epoch = _pruning(recipe, batches.sizes)
    epochs = recipe.training.epochs
    first_epoch = max(recipe.early_stopping.first_epoch(epochs), pruned_epoch)
    decay = recipe.optimizer.moving_average
    average = MovingAverage(decay) if decay else None
    keep_best = KeepBest(recipe.early_stopping, first_epoch=first_epoch, average=average)
    progress = ShowProgress(rate, epochs)
    history = History(
        run.history_path,
        columns={
            "learning_rate": lambda: current_rate(rate, model),
            "batch_size": lambda: batches.sizes.mean(int(batches.epoch)),
            "sparsity": lambda: sparsity(model),
            f"best_{recipe.early_stopping.metric}": lambda: keep_best.best,
        },
    )
    callbacks = [DataOrder(batches.epoch), StopOnNaN(), *before_history, keep_best]
    if recipe.batches.name != "fixed":
        callbacks.insert(0, EndOfEpoch(batches.sizes))
    if recipe.schedule.name == "plateau":
        callbacks.append(ReduceOnPlateau(recipe.schedule, rate, recipe.early_stopping.metric))
    if average:
        callbacks.append(average)
    callbacks += [*pruning, *_training_loss(model, recipe, teacher), history, *after_history]
    strategy = model.distribute_strategy
    share_checkpoint(strategy, run.checkpoint)
    checkpoint = Checkpoint(run.checkpoint, callbacks)
    board = keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False)
    try:
        model.fit(
            divided(strategy, batches.dataset),
            validation_data=divided(strategy, validation),
            initial_epoch=epochs if finish or checkpoint.stopped() else checkpoint.finished_epochs(),
            epochs=epochs,
            shuffle=False,  # the batches are shuffled already
            callbacks=[*callbacks, checkpoint, board, progress],
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
    finally:
        progress.close()
    done, seconds = len(history.rows), round(sum(row["seconds"] for row in history.rows), 3)
    if not finish:
        return Outcome(done, keep_best.best_epoch, seconds)
    if (
        average and not keep_best.best_epoch
    ):  # it ended before an epoch that may be the best: the last one is kept
        model.set_weights(average.weights())
    return Outcome(done, keep_best.best_epoch or done, seconds, BY_HAND)


def _training_loss(model: keras.Model, recipe: Recipe, teacher: keras.Model | None) -> list[TrainingLoss]:
    """Return the callback that adds to the loss, if anything is to be added."""
    terms: list[Term] = []
    from_logits = getattr(model.loss, "from_logits", False)
    if teacher is not None:
        terms.append(
            RegressionTeacher(recipe.distillation, teacher)
            if isinstance(recipe, RegressionRecipe)
            else Teacher(recipe.distillation, teacher, from_logits=from_logits)
        )
    if recipe.regularization.l1 or recipe.regularization.l2:
        terms.append(Penalty(recipe.regularization, model))
    replicas = model.distribute_strategy.num_replicas_in_sync
    return [TrainingLoss(terms, replicas=replicas)] if terms else []


def _pruning(recipe: Recipe, sizes: BatchSizes) -> tuple[list[Prune], int]:
    """Return the pruning callback, if there is pruning, and the first epoch with all of its sparsity."""
    if not recipe.pruning.sparsity:
        return [], 1
    sparsity = Sparsity(recipe.pruning, sizes.total_steps)
    return [Prune(recipe.pruning, sparsity)], max(1, math.ceil(sizes.times[sparsity.end]))


def save_model(model: keras.Model, run: Run) -> None:
    """Save the model without its optimizer: whoever loads it needs nothing of this project."""
    beside = run.path / ".model.keras"  # Keras wants the ending
    try:
        copy_without_optimizer(model).save(beside)
        beside.replace(run.model_path)
    finally:
        beside.unlink(missing_ok=True)
