"""Checks inside the graph: a request that they refuse is answered with INVALID_ARGUMENT."""

from typing import Any

import tensorflow as tf

Tensor = Any


def guard_batch(batch: Tensor, max_rows: int) -> Tensor:
    """Refuse an empty batch, and one of more rows than `max_rows`.

    TF Serving has already allocated the tensor: a message of 48 bytes can stand for 64 MB, because a list of
    one value fills a tensor of any shape. The check saves the memory that the model would need.
    """
    rows = tf.shape(batch)[0]
    batch = guard(batch, rows > 0, "the batch is empty")
    return guard(batch, rows <= max_rows, f"a request may have at most {max_rows} rows. Received:", rows)


def guard_finite(values: Tensor) -> Tensor:
    """Refuse NaN and infinities."""
    return tf.debugging.check_numerics(values, "an input has a value that is not finite")


def guard(values: Tensor, holds: Tensor, message: str, *received: Tensor) -> Tensor:
    """Return values unchanged if all elements of a condition are true.

    Args:
        values: Any tensor.
        holds: bool, any shape.
        message: Message of the error.
        received: Tensors that the error shows.
    """
    check = tf.debugging.Assert(tf.reduce_all(holds), [message, *received], summarize=20)
    with tf.control_dependencies([check]):
        return tf.identity(values)
