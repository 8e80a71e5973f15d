"""Turn, scale, shear, shift, crop and mirror images: all of it one affine map."""

import math
from typing import Any

import tensorflow as tf

from recipes.config import Augmentation

Tensor = Any
AMOUNTS = ("rotate", "scale", "shift", "crop", "shear")


def move(images: Tensor, settings: Augmentation, seed: Tensor) -> Tensor:
    """Map each image by a random affine map of its own, bilinearly, filling with 0.

    Args:
        images: (batch, height, width, channels) float32.
        settings: Ranges.
        seed: (2,) int32.

    Returns:
        (batch, height, width, channels) float32.
    """
    if settings.flip == "none" and not any(getattr(settings, name) for name in AMOUNTS):
        return images
    height, width = images.shape[1:3]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=random_transforms(tf.shape(images)[0], (height, width), settings, seed),
        output_shape=(height, width),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


def random_transforms(batch: Tensor, size: tuple[int, int], settings: Augmentation, seed: Tensor) -> Tensor:
    """Draw affine maps about the centre of an image, from output pixels to input pixels.

    Args:
        batch: Number of maps.
        size: (height, width).
        settings: Ranges.
        seed: (2,) int32.

    Returns:
        (batch, 8) float32 rows (a, b, c, d, e, f, 0, 0): output (x, y) takes the colour of input
        (a x + b y + c, d x + e y + f).
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    draws = tf.random.stateless_uniform((6, batch), seeds[0], -1.0, 1.0)
    angle = draws[0] * math.radians(settings.rotate)
    x_scale, y_scale = 1 + draws[1] * settings.scale, 1 + draws[2] * settings.scale
    shear = tf.tan(draws[3] * math.radians(settings.shear))
    x_shift, y_shift = draws[4] * settings.shift, draws[5] * settings.shift
    cos, sin = tf.cos(angle), tf.sin(angle)
    a, b = cos / x_scale, (shear * cos - sin) / x_scale
    d, e = sin / y_scale, (shear * sin + cos) / y_scale
    more = tf.random.stateless_uniform((6, batch), seeds[1])
    # Of the image only a window is looked at, anywhere in it, and some of the windows from behind.
    x_left, y_left = 1 - more[0] * settings.crop, 1 - more[1] * settings.crop
    # Between the centres of the outermost pixels: past them the bilinear map reads what fills the outside.
    x_shift += (more[2] - 0.5) * (1 - x_left) * (size[1] - 1)
    y_shift += (more[3] - 0.5) * (1 - y_left) * (size[0] - 1)
    a, b, d, e = a * x_left, b * x_left, d * y_left, e * y_left
    if settings.flip in ("horizontal", "both"):
        mirror = tf.where(more[4] < 0.5, -1.0, 1.0)
        a, d = a * mirror, d * mirror
    if settings.flip in ("vertical", "both"):
        mirror = tf.where(more[5] < 0.5, -1.0, 1.0)
        b, e = b * mirror, e * mirror
    x_center, y_center = (size[1] - 1) / 2, (size[0] - 1) / 2
    c = x_center - a * x_center - b * y_center + x_shift
    f = y_center - d * x_center - e * y_center + y_shift
    return tf.stack([a, b, c, d, e, f, tf.zeros_like(a), tf.zeros_like(a)], axis=1)
