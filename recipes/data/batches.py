"""Examples in memory → batches of tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import Augmentation
from recipes.data.augmentation import augment
from recipes.data.batch_sizes import BatchSizes
from recipes.data.examples import Examples
from recipes.data.passes import batch_limits, counted, read_ahead
from recipes.data.streams import draw_keys, stream

Tensor = Any
Change = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(inputs, targets, key of the step, epoch) → what the model is trained on."""

EVALUATION_BATCH_SIZE = 500


class TrainingBatches:
    """Shuffled batches whose content depends on the seed and the epoch alone.

    That is what lets a killed run go on as if nothing had happened: there is no position in a
    random stream to be lost. Set `epoch` before each pass (`recipes.training.fit` does).

    Args:
        inputs: (n, ...).
        targets: (n, ...).
        sizes: Examples of each batch.
        seed: Seed of the order, and of the changes.
        change: Makes a batch what the model is trained on: augmentation, say.
        use: What the batches are for; two uses of one seed have streams of their own.

    Attributes:
        epoch: The epoch that the next pass over `dataset` is for, an int32 variable.
        dataset: What `change` returns, float32 inputs (batch, ...) and targets.
    """

    def __init__(
        self,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        sizes: BatchSizes,
        seed: int,
        change: Change,
        use: str = "training",
    ) -> None:
        self.sizes = sizes
        self.epoch = tf.Variable(0, dtype=tf.int32, trainable=False)
        fixed = sizes.batch_size if sizes.settings.name == "fixed" else None
        all_inputs, all_targets = tf.constant(inputs), tf.constant(targets)

        def draw(epoch: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
            order = stream(seed, f"{use}: order", epoch).permutation(len(inputs))
            return order, draw_keys(stream(seed, f"{use}: changes", epoch), len(sizes.of_epoch(int(epoch))))

        def shuffled(_: Any) -> tf.data.Dataset:
            order, keys = tf.numpy_function(draw, [self.epoch], (tf.int64, tf.int32))
            order, keys = tf.ensure_shape(order, (len(inputs),)), tf.ensure_shape(keys, (None, 2))
            limits = batch_limits(sizes, self.epoch)
            return limits.map(lambda step, limit: (keys[step], order[limit[0] : limit[1]]))

        def read(key: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            index = tf.ensure_shape(index, (fixed,))
            batch = tf.cast(tf.gather(all_inputs, index), tf.float32)
            return change(batch, tf.gather(all_targets, index), key, self.epoch)

        dataset = tf.data.Dataset.range(1).flat_map(shuffled)
        batches = dataset.map(read, num_parallel_calls=2, deterministic=True)
        self.dataset = counted(read_ahead(batches, 4), sizes)


def training_images(
    examples: Examples, num_classes: int, sizes: BatchSizes, augmentation: Augmentation, seed: int
) -> TrainingBatches:
    """Return batches of augmented images (batch, height, width, channels) and labels (batch, classes)."""
    end = augmentation.end(sizes.epochs)

    def change(images: Tensor, labels: Tensor, key: Tensor, epoch: Tensor) -> tuple[Tensor, Tensor]:
        labels = tf.one_hot(labels, num_classes)
        return tf.cond(
            epoch < end,
            lambda: augment(images, labels, augmentation, key),
            lambda: (images, labels),
        )

    return TrainingBatches(examples.images, examples.labels, sizes, seed, change)


def evaluation_images(examples: Examples, num_classes: int) -> tf.data.Dataset:
    """Return every example once, in order, in batches of float32 images and one-hot labels."""
    dataset = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels))
    batches = dataset.batch(EVALUATION_BATCH_SIZE).map(
        lambda images, labels: (tf.cast(images, tf.float32), tf.one_hot(labels, num_classes))
    )
    return read_ahead(batches, 2)
