"""Examples in memory → batches of tensors."""

from typing import Any

import tensorflow as tf

from recipes.config import Augmentation, UserError
from recipes.data.augmentation import augment
from recipes.data.examples import Examples

EVALUATION_BATCH_SIZE = 500


class TrainingBatches:
    """Shuffled, augmented batches whose content depends on the seed and the epoch alone.

    That is what lets a killed run go on as if nothing had happened: there is no position in a
    random stream to be lost. Set `epoch` before each pass (the callback `DataOrder` does).

    Args:
        examples: The training part.
        batch_size: Examples a batch; the last, smaller batch of an epoch is left out.
        augmentation: Random changes to the images.
        seed: Seed of order and changes.

    Raises:
        UserError: A batch larger than the training part.

    Attributes:
        epoch: The epoch that the next pass over `dataset` is for, an int32 variable.
        dataset: float32 images (batch_size, height, width, channels), int64 labels (batch_size,).
    """

    def __init__(self, examples: Examples, *, batch_size: int, augmentation: Augmentation, seed: int) -> None:
        if batch_size > len(examples):
            raise UserError(
                f"training.batch_size must be at most the number of training examples, {len(examples)}. "
                f"Received: {batch_size}"
            )
        self.steps_per_epoch = len(examples) // batch_size
        self.epoch = tf.Variable(0, dtype=tf.int32, trainable=False)
        images, labels = tf.constant(examples.images), tf.constant(examples.labels)

        def shuffled_steps(_: Any) -> tf.data.Dataset:
            order = tf.random.experimental.stateless_shuffle(tf.range(len(examples)), seed=[seed, self.epoch])
            return (
                tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=True).enumerate()
            )

        def read(step: Any, index: Any) -> tuple[Any, Any]:
            step_seed = tf.random.experimental.stateless_fold_in([seed, self.epoch], step)
            batch = tf.cast(tf.gather(images, index), tf.float32)
            return augment(batch, augmentation, tf.cast(step_seed, tf.int32)), tf.gather(labels, index)

        dataset = tf.data.Dataset.range(1).flat_map(shuffled_steps)
        dataset = dataset.map(read, num_parallel_calls=2, deterministic=True).prefetch(4)
        self.dataset = dataset.apply(tf.data.experimental.assert_cardinality(self.steps_per_epoch))


def evaluation_batches(examples: Examples) -> tf.data.Dataset:
    """Return every example once, in order, in batches of float32 images and int64 labels."""
    dataset = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels))
    dataset = dataset.batch(EVALUATION_BATCH_SIZE)
    return dataset.map(lambda images, labels: (tf.cast(images, tf.float32), labels)).prefetch(2)
