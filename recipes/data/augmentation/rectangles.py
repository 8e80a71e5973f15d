"""Random rectangles in an image."""

from typing import Any

import tensorflow as tf

Tensor = Any


def random_rectangles(areas: Tensor, aspects: Tensor, size: tuple[int, int], seed: Tensor) -> Tensor:
    """Put a rectangle into each image, evenly over all places where it is inside.

    Args:
        areas: (batch,) parts of the image's area.
        aspects: (batch,) height / width, as parts of the image's; sides longer than it are cut.
        size: (height, width) of the images.
        seed: (2,) int32.

    Returns:
        (batch, height, width, 1) bool: which pixels are inside.
    """
    height, width = size
    places = tf.random.stateless_uniform((2, tf.shape(areas)[0]), seed)
    rows = tf.round(height * tf.minimum(tf.sqrt(areas * aspects), 1.0))
    columns = tf.round(width * tf.minimum(tf.sqrt(areas / aspects), 1.0))
    top = tf.floor(places[0] * (height - rows + 1))
    left = tf.floor(places[1] * (width - columns + 1))
    inside_rows = _between(tf.range(float(height)), top, rows)[:, :, tf.newaxis]
    inside_columns = _between(tf.range(float(width)), left, columns)[:, tf.newaxis, :]
    return tf.logical_and(inside_rows, inside_columns)[..., tf.newaxis]


def _between(pixels: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """Return (batch, pixels): whether each pixel is one of `count` from the first on."""
    first, end = first[:, tf.newaxis], (first + count)[:, tf.newaxis]
    return tf.logical_and(pixels >= first, pixels < end)
