"""Compile a model by its recipe: schedule, optimizer, precision, and how steps run."""

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from recipes.config import Recipe, Training, require
from recipes.data.batch_sizes import BatchSizes
from recipes.training import schedules
from recipes.training.callbacks.pruning import prunable
from recipes.training.optimizers import build_optimizer

STEPS_PER_EXECUTION = 32
"""Steps that run without returning to Python. Fewer are slower, more make Ctrl-C wait."""

WITH_END: dict[str, type[schedules.ScheduleToEnd]] = {
    "polynomial": schedules.Polynomial,
    "cosine": schedules.Cosine,
    "one-cycle": schedules.OneCycle,
    "wsd": schedules.WarmupStableDecay,
}


@contextlib.contextmanager
def building(training: Training, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Build models with a training's precision and on its replicas."""
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
) -> None:
    """Compile a model by its recipe.

    Args:
        model: The model.
        recipe: Optimizer, schedule and length of the training.
        compile_task: Calls `model.compile` with loss and metrics, and with the options that it is given.
        sizes: Examples of each step.
        xla_is_faster: Whether XLA makes such a model faster on a CPU, at a fixed batch size.

    Raises:
        UserError: There is nothing to prune, or no time for it.
    """
    if recipe.pruning.sparsity:
        _check_pruning(model, recipe, sizes)
    alone = model.distribute_strategy.num_replicas_in_sync == 1
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = not alone  # the statistics are those of the whole batch
    # Keras's loop over several steps can't take its batches from several replicas' iterators.
    most_steps = STEPS_PER_EXECUTION if alone else 1
    with model.distribute_strategy.scope():
        schedule = build_schedule(recipe, sizes)
        optimizer = build_optimizer(recipe.optimizer, schedule, model.trainable_variables)
        if recipe.training.precision == "mixed_float16":
            # Keras does it by the policy of the model, which a loaded model does not have.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        compile_task(
            model,
            optimizer=optimizer,
            steps_per_execution=min(most_steps, sizes.steps_per_epoch, recipe.pruning.frequency),
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
    # Keras ignores `jit_compile=True` with deterministic operations, because some are not deterministic under XLA
    # on a GPU; there TensorFlow raises an error. On a CPU those of our Transformers are. No public way sets it.
    model._jit_compile = xla_is_faster and recipe.batches.name == "fixed" and alone


def _check_pruning(model: keras.Model, recipe: Recipe, sizes: BatchSizes) -> None:
    """Refuse invalid pruning before the run directory is created."""
    total, begin = sizes.total_steps, recipe.pruning.begin
    end, settle = recipe.pruning.last_steps(total)
    message = f"pruning must end within the {total} steps of the training"
    require(settle <= total, message, begin=begin, end=end, settle=settle)
    prunable(model, recipe.pruning.leave_out, biases=recipe.pruning.biases)


def build_schedule(recipe: Recipe, sizes: BatchSizes) -> LearningRateSchedule:
    """Build the learning-rate schedule of a recipe, whose settings count time in epochs."""
    highest, name, own = recipe.optimizer.learning_rate, recipe.schedule.name, recipe.schedule.parameters()
    warmup = recipe.schedule.warmup * sizes.steps_per_epoch
    if name == "constant":
        return schedules.Constant(highest, warmup_steps=warmup)
    if name == "plateau":
        return schedules.Plateau(highest, warmup_steps=warmup)
    if name == "exponential":
        return schedules.Exponential(highest, decay_steps=sizes.steps_per_epoch, warmup_steps=warmup, **own)
    if name == "inverse-square-root":
        steps = sizes.steps_per_epoch / own["beta"]
        return schedules.InverseSquareRoot(highest, decay_steps=steps, warmup_steps=warmup)
    return WITH_END[name](highest, total_steps=sizes.total_steps, warmup_steps=warmup, **own)
