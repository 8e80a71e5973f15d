"""Blacken a part of each image."""

import math
from typing import Any

import tensorflow as tf

from recipes.config import Augmentation
from recipes.data.augmentation.rectangles import random_rectangles

Tensor = Any
ASPECT = 3.3
"""Largest height / width of a rectangle, and width / height, as in the paper."""


def erase(images: Tensor, settings: Augmentation, seed: Tensor) -> Tensor:
    """Blacken a rectangle in each image (Zhong et al. 2017, arXiv:1708.04896).

    Args:
        images: (batch, height, width, channels) float32.
        settings: How much at most.
        seed: (2,) int32.

    Returns:
        (batch, height, width, channels) float32.
    """
    if not settings.erase:
        return images
    seeds = tf.random.experimental.stateless_split(seed, 2)
    draws = tf.random.stateless_uniform((2, tf.shape(images)[0]), seeds[0])
    aspects = tf.exp((2 * draws[1] - 1) * math.log(ASPECT))
    inside = random_rectangles(settings.erase * draws[0], aspects, images.shape[1:3], seeds[1])
    return tf.where(inside, 0.0, images)
