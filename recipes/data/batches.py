"""Batches for training and evaluation.

A training batch depends on the seed, the epoch and the step alone: a resumed run trains on the same batches.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import Augmentation
from recipes.data.augmentation import augment
from recipes.data.batch_sizes import BatchSizes
from recipes.data.examples import Examples
from recipes.data.streams import draw_keys, stream

Array = npt.NDArray[Any]
Change = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Variable], tuple[tf.Tensor, tf.Tensor]]
"""(inputs, targets, key of the step's random operations, epoch) → the inputs and targets to train on."""

EVALUATION_BATCH_SIZE = 500


class TrainingBatches:
    """A dataset of the batches of an epoch; set `epoch` before each pass, as `recipes.training.fit` does.

    Args:
        sizes: Examples of each batch.
        build: Returns a dataset that reads the epoch from the given variable in each pass.

    Attributes:
        sizes: Examples of each batch.
        epoch: The epoch of the next pass, counted from 0, an int32 variable.
        dataset: The batches of that epoch.
    """

    def __init__(self, sizes: BatchSizes, build: Callable[[tf.Variable], tf.data.Dataset]) -> None:
        self.sizes = sizes
        self.epoch = tf.Variable(0, dtype=tf.int32, trainable=False)
        counted = tf.data.experimental.assert_cardinality(sizes.steps_per_epoch)
        self.dataset = prefetch(build(self.epoch), 4).apply(counted)


def fixed_size(sizes: BatchSizes) -> int | None:
    """Return the size of every batch; None if the sizes vary."""
    return sizes.batch_size if sizes.settings.name == "fixed" else None


def prefetch(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Prefetch batches, without TensorFlow's autotuning.

    There is nothing to tune here, and autotuning can double the time of an epoch: its thread sleeps for 10 ms, then
    twice as long each time, up to a minute, and the end of a pass waits for it if the thread is cancelled just after
    it checked for that (TensorFlow 2.21's CancellationManager; on one core almost always).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(count).with_options(options)


def steps_of_epoch(sizes: BatchSizes, epoch: tf.Variable) -> tf.data.Dataset:
    """Return (epoch, step) for each step of the epoch that the variable holds in a pass."""
    return tf.data.Dataset.range(sizes.steps_per_epoch).map(lambda step: (epoch.read_value(), step))


def map_numpy(
    dataset: tf.data.Dataset, function: Callable[..., Sequence[Array]], signature: Any
) -> tf.data.Dataset:
    """Map the elements of a dataset by a NumPy function, which returns the flat arrays of a (nested) signature."""
    specs = tf.nest.flatten(signature)

    def call(*element: tf.Tensor) -> Any:
        arrays = tf.numpy_function(function, element, [spec.dtype for spec in specs])
        arrays = [tf.ensure_shape(array, spec.shape) for array, spec in zip(arrays, specs, strict=True)]
        return tf.nest.pack_sequence_as(signature, arrays)

    return dataset.map(call, num_parallel_calls=1)


def shuffled_batches(
    inputs: Array,
    targets: Array,
    sizes: BatchSizes,
    seed: int,
    change: Change = lambda inputs, targets, key, epoch: (inputs, targets),
    use: str = "training",
) -> TrainingBatches:
    """Return batches in a new random order for each epoch: float32 inputs (batch, ...) and targets (batch, ...).

    Args:
        inputs: (n, ...).
        targets: (n, ...).
        sizes: Examples of each batch.
        seed: Seed of the order and of the random changes.
        change: Augments each batch; the default returns it unchanged.
        use: Name of the random streams: different uses of one seed draw different numbers.
    """

    @functools.lru_cache(maxsize=1)
    def draw(epoch: int) -> tuple[list[Array], npt.NDArray[np.int32]]:
        order = stream(seed, f"{use}: order", epoch).permutation(len(inputs))
        rows = np.split(order, np.cumsum(sizes.of_epoch(epoch)))[:-1]  # the last smaller batch is left out
        return rows, draw_keys(stream(seed, f"{use}: changes", epoch), len(rows))

    def read(epoch: int, step: int) -> tuple[Array, Array, Array]:
        rows, keys = draw(int(epoch))
        return inputs[rows[step]], targets[rows[step]], keys[step]

    def build(epoch: tf.Variable) -> tf.data.Dataset:
        batch = fixed_size(sizes)
        signature = [tf.TensorSpec((batch, *values.shape[1:]), values.dtype) for values in (inputs, targets)]
        key = tf.TensorSpec((2,), tf.int32)
        batches = map_numpy(steps_of_epoch(sizes, epoch), read, (*signature, key))
        return batches.map(
            lambda inputs, targets, key: change(tf.cast(inputs, tf.float32), targets, key, epoch),
            num_parallel_calls=2,
            deterministic=True,
        )

    return TrainingBatches(sizes, build)


def training_images(
    examples: Examples, num_classes: int, sizes: BatchSizes, augmentation: Augmentation, seed: int
) -> TrainingBatches:
    """Return batches of augmented images (batch, height, width, channels) and labels (batch, classes)."""
    end = augmentation.end(sizes.epochs)

    def change(
        images: tf.Tensor, labels: tf.Tensor, key: tf.Tensor, epoch: tf.Variable
    ) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.cond(epoch < end, lambda: augment(images, augmentation, key), lambda: images)
        return images, tf.one_hot(labels, num_classes)

    return shuffled_batches(examples.images, examples.labels, sizes, seed, change)


def evaluation_batches(arrays: Any, batch_size: int = EVALUATION_BATCH_SIZE) -> tf.data.Dataset:
    """Return all examples of (nested) arrays (n, ...) once, in order."""
    return prefetch(tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size), 2)


def evaluation_images(examples: Examples, num_classes: int) -> tf.data.Dataset:
    """Return all examples once, in order, as float32 images and one-hot labels."""
    return evaluation_batches((examples.images, examples.labels)).map(
        lambda images, labels: (tf.cast(images, tf.float32), tf.one_hot(labels, num_classes))
    )
