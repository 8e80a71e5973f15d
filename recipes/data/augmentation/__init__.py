"""Random changes to training images, drawn from a seed: the same seed gives the same images."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from recipes.config import Augmentation
from recipes.data.augmentation.affine import move
from recipes.data.augmentation.elastic import bend
from recipes.data.augmentation.erase import erase
from recipes.data.augmentation.mix import mix

Tensor = Any


def warning(settings: Augmentation, classes: Sequence[str]) -> str:
    """Return a line that says what an augmentation spoils, or "" if it spoils nothing that is known."""
    if settings.flip == "none" or set(classes) != set("0123456789"):
        return ""
    return f"WARNING: augmentation.flip {settings.flip}: a mirrored digit is another one, or none\n"


def augment(images: Tensor, labels: Tensor, settings: Augmentation, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Move, bend, blacken and mix each image by amounts of its own.

    Args:
        images: (batch, height, width, channels) float32.
        labels: (batch, classes) float32, rows summing to 1.
        settings: Ranges; each amount is drawn evenly.
        seed: (2,) int32.

    Returns:
        Images and labels of the same shapes.
    """
    seeds = tf.random.experimental.stateless_split(seed, 4)
    images = move(images, settings, seeds[0])
    images = bend(images, settings, seeds[1])
    images = erase(images, settings, seeds[2])
    return mix(images, labels, settings, seeds[3])
