"""What each step of a pass over the training data reads."""

from typing import Any

import tensorflow as tf

from recipes.schedules import BatchSizes


def batch_limits(sizes: BatchSizes, epoch: tf.Variable) -> tf.data.Dataset:
    """Return (step, (first, end)) of each batch, where examples count from the beginning of the pass.

    Args:
        sizes: Examples of each batch.
        epoch: The epoch that the pass is for, read now.
    """
    ends = tf.cumsum(tf.numpy_function(lambda now: sizes.of_epoch(int(now)), [epoch], tf.int64))
    ends = tf.ensure_shape(ends, (None,))
    return tf.data.Dataset.from_tensor_slices((tf.concat([[0], ends[:-1]], axis=0), ends)).enumerate()


def each_pass(sizes: BatchSizes, epoch: tf.Variable, read: Any) -> tf.data.Dataset:
    """Return the batches of a pass, read anew each time it is iterated.

    Args:
        sizes: Examples of each batch.
        epoch: Set before each pass.
        read: (step, size of the batch) → its tensors.
    """
    dataset = tf.data.Dataset.range(1).flat_map(lambda _: batch_limits(sizes, epoch))
    batches = dataset.map(lambda step, limits: read(step, limits[1] - limits[0]), num_parallel_calls=1)
    return counted(batches.prefetch(8), sizes)


def counted(dataset: tf.data.Dataset, sizes: BatchSizes) -> tf.data.Dataset:
    """Tell Keras how many batches there are, where it is the same number in each pass."""
    if sizes.settings.name != "fixed":
        return dataset
    return dataset.apply(tf.data.experimental.assert_cardinality(sizes.fewest_steps))
