"""Bend images: each pixel has a shift of its own, much like its neighbours'."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from recipes.config import Augmentation

Tensor = Any


def bend(images: Tensor, settings: Augmentation, seed: Tensor) -> Tensor:
    """Take each pixel's colour from a place nearby (Simard et al. 2003), bilinearly, 0 outside.

    Args:
        images: (batch, height, width, channels) float32.
        settings: How far, and how smoothly.
        seed: (2,) int32.

    Returns:
        (batch, height, width, channels) float32.
    """
    if not settings.elastic:
        return images
    height, width = images.shape[1:3]
    shifts = random_shifts(tf.shape(images)[0], (height, width), settings, seed)
    y, x = tf.meshgrid(tf.range(float(height)), tf.range(float(width)), indexing="ij")
    return sample(images, y + shifts[..., 0], x + shifts[..., 1])


def random_shifts(batch: Tensor, size: tuple[int, int], settings: Augmentation, seed: Tensor) -> Tensor:
    """Draw smooth shifts: normal noise, blurred, with a standard deviation of `elastic` pixels.

    Returns:
        (batch, height, width, 2) float32 pixels, down and right.
    """
    radius = math.ceil(3 * settings.elastic_smoothness)
    place = np.arange(-radius, radius + 1)
    blur = np.exp(-0.5 * (place / settings.elastic_smoothness) ** 2)
    blur /= np.sqrt(np.sum(blur**2))  # blurred noise of variance 1 has variance 1
    height, width = size
    noise = tf.random.stateless_normal((batch, height + 2 * radius, width + 2 * radius, 2), seed)
    kernel = tf.constant(np.repeat(blur[:, np.newaxis, np.newaxis, np.newaxis], 2, axis=2), tf.float32)
    strides = [1, 1, 1, 1]
    noise = tf.nn.depthwise_conv2d(noise, kernel, strides, "VALID")
    noise = tf.nn.depthwise_conv2d(noise, tf.transpose(kernel, [1, 0, 2, 3]), strides, "VALID")
    return settings.elastic * noise


def sample(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return the colours at places between pixels, bilinearly, 0 outside.

    Args:
        images: (batch, height, width, channels) float32.
        y: (batch, height, width) float32, pixels down from the upper left one.
        x: The same to the right.

    Returns:
        (batch, height, width, channels) float32.
    """
    # A black pixel all around: what is outside is read from there.
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    bottom, right = images.shape[1] + 1, images.shape[2] + 1
    y, x = tf.clip_by_value(y + 1, 0.0, float(bottom)), tf.clip_by_value(x + 1, 0.0, float(right))
    top, left = tf.floor(y), tf.floor(x)
    down, across = (y - top)[..., tf.newaxis], (x - left)[..., tf.newaxis]  # parts of a pixel
    top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)
    below, beside = tf.minimum(top + 1, bottom), tf.minimum(left + 1, right)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return tf.gather_nd(padded, tf.stack([row, column], axis=-1), batch_dims=1)

    upper = at(top, left) * (1 - across) + at(top, beside) * across
    lower = at(below, left) * (1 - across) + at(below, beside) * across
    return upper * (1 - down) + lower * down
