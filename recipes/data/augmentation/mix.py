"""Mix each image with another one of its batch, and their labels with them."""

from typing import Any

import tensorflow as tf

from recipes.config import Augmentation
from recipes.data.augmentation.rectangles import random_rectangles

Tensor = Any


def mix(images: Tensor, labels: Tensor, settings: Augmentation, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Mix whole images, or put a rectangle of the other one in; the other is the batch read backwards.

    Args:
        images: (batch, height, width, channels) float32.
        labels: (batch, classes) float32, rows summing to 1.
        settings: mix_up (Zhang et al. 2018, arXiv:1710.09412), cut_mix (Yun et al. 2019, arXiv:1905.04899).
        seed: (2,) int32.

    Returns:
        Images and labels of the same shapes.
    """
    if not (settings.mix_up or settings.cut_mix):
        return images, labels
    seeds = tf.random.experimental.stateless_split(seed, 4)
    batch = tf.shape(images)[0]
    parts = tf.zeros_like(images[..., :1])  # of the other image, by pixel
    cut = tf.random.stateless_uniform((batch,), seeds[0]) < _part_cut(settings)
    if settings.cut_mix:
        areas = 1 - random_weights(batch, settings.cut_mix, seeds[1])
        inside = random_rectangles(areas, tf.ones_like(areas), images.shape[1:3], seeds[2])
        parts = tf.cast(tf.logical_and(inside, _by_image(cut)), tf.float32)
    if settings.mix_up:
        weights = 1 - random_weights(batch, settings.mix_up, seeds[3])
        parts = tf.where(_by_image(cut), parts, _by_image(weights))
    of_label = tf.reduce_mean(parts, axis=(1, 2))  # (batch, 1)
    return (
        images * (1 - parts) + tf.reverse(images, [0]) * parts,
        labels * (1 - of_label) + tf.reverse(labels, [0]) * of_label,
    )


def random_weights(batch: Tensor, alpha: float, seed: Tensor) -> Tensor:
    """Draw (batch,) weights from Beta(alpha, alpha)."""
    gammas = tf.random.stateless_gamma((2, batch), seed, alpha)
    return gammas[0] / tf.maximum(gammas[0] + gammas[1], 1e-30)


def _part_cut(settings: Augmentation) -> float:
    if settings.mix_up and settings.cut_mix:
        return 0.5
    return 1.0 if settings.cut_mix else 0.0


def _by_image(values: Tensor) -> Tensor:
    """Return (batch,) as (batch, 1, 1, 1)."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]
