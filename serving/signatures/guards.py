"""Checks inside the graph: what they refuse reaches the caller as INVALID_ARGUMENT."""

from typing import Any

import tensorflow as tf

Tensor = Any


def guard_batch(batch: Tensor, max_rows: int) -> Tensor:
    """Refuse a batch of nothing, and one of more rows than `max_rows`.

    TF Serving has allocated the tensor by then: a message of 48 bytes can stand for 64 MB, for a list of
    one value fills a tensor of any shape. The memory that the model would need for it is spared.
    """
    rows = tf.shape(batch)[0]
    batch = guard(batch, rows > 0, "the batch is empty")
    return guard(batch, rows <= max_rows, f"a request may have at most {max_rows} rows. Received:", rows)


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
