"""Checks inside the graph: what they refuse reaches the caller as INVALID_ARGUMENT."""

from typing import Any

import tensorflow as tf

Tensor = Any


def guard_batch(batch: Tensor) -> Tensor:
    """Refuse a batch of nothing."""
    return guard(batch, tf.shape(batch)[0] > 0, "the batch is empty")


def guard_finite(values: Tensor) -> Tensor:
    """Refuse NaN and infinities."""
    return tf.debugging.check_numerics(values, "an input has a value that is no finite number")


def guard(values: Tensor, holds: Tensor, message: str, *received: Tensor) -> Tensor:
    """Pass values on where every element of a condition holds.

    Args:
        values: What is passed on.
        holds: bool, any shape.
        message: What must hold.
        received: Tensors that the error shows.
    """
    check = tf.debugging.Assert(tf.reduce_all(holds), [message, *received], summarize=20)
    with tf.control_dependencies([check]):
        return tf.identity(values)
