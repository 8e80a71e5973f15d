"""Random transformations of training images: the same seed gives the same images.

Images are float32 (batch, height, width, channels). A seed is a key of TensorFlow's stateless random operations, int32
(2,); each operation has its own. Pixels outside of an image are 0, and values between pixels are interpolated
bilinearly.
"""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from recipes.config import Augmentation
from recipes.data.corruptions import corrupt

AFFINE = ("rotate", "scale", "shift", "crop", "shear")


def warning(settings: Augmentation, classes: Sequence[str]) -> str:
    """Return a warning if images of digits are flipped, else ""."""
    if settings.flip == "none" or set(classes) != set("0123456789"):
        return ""
    return f"WARNING: augmentation.flip {settings.flip}: a flipped digit is another digit or none\n"


def augment(images: tf.Tensor, settings: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Transform each image at random; each amount is drawn uniformly from its range in the settings."""
    seeds = tf.random.experimental.stateless_split(seed, 4)
    moved = elastic(affine(images, settings, seeds[0]), settings, seeds[1])
    return corrupt(moved, settings, seeds[2])


def affine(images: tf.Tensor, settings: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Rotate, scale, shear, shift, crop and flip each image, in one affine map."""
    if settings.flip == "none" and not any(getattr(settings, name) for name in AFFINE):
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


def random_transforms(
    batch: int, size: tuple[int, int], settings: Augmentation, seed: tf.Tensor
) -> tf.Tensor:
    """Draw affine maps around the centre of an image, from output pixels to input pixels.

    Args:
        batch: Number of maps.
        size: (height, width).
        settings: Ranges.
        seed: (2,) int32.

    Returns:
        (batch, 8) float32 rows (a, b, c, d, e, f, 0, 0): output (x, y) is input (a x + b y + c, d x + e y + f).
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
    more = tf.random.stateless_uniform((6, batch), seeds[1])  # for crops and flips
    x_left, y_left = 1 - more[0] * settings.crop, 1 - more[1] * settings.crop
    # Between the centres of the outermost pixels: beyond them bilinear interpolation reads the fill value.
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


def elastic(images: tf.Tensor, settings: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Displace each pixel at random, smoothly over its neighbours (Simard et al. 2003)."""
    if not settings.elastic:
        return images
    height, width = images.shape[1:3]
    shifts = random_shifts(tf.shape(images)[0], (height, width), settings, seed)
    y, x = tf.meshgrid(tf.range(float(height)), tf.range(float(width)), indexing="ij")
    return interpolate(images, y + shifts[..., 0], x + shifts[..., 1])


def random_shifts(batch: int, size: tuple[int, int], settings: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Draw smooth displacements: blurred normal noise with a standard deviation of `elastic` pixels.

    Returns:
        (batch, height, width, 2) float32 pixels, downwards and to the right.
    """
    radius = math.ceil(3 * settings.elastic_smoothness)
    distance = np.arange(-radius, radius + 1)
    blur = np.exp(-0.5 * (distance / settings.elastic_smoothness) ** 2)
    blur /= np.sqrt(np.sum(blur**2))  # so that noise of variance 1 keeps it
    height, width = size
    noise = tf.random.stateless_normal((batch, height + 2 * radius, width + 2 * radius, 2), seed)
    kernel = tf.constant(np.repeat(blur[:, np.newaxis, np.newaxis, np.newaxis], 2, axis=2), tf.float32)
    strides = [1, 1, 1, 1]
    noise = tf.nn.depthwise_conv2d(noise, kernel, strides, "VALID")
    noise = tf.nn.depthwise_conv2d(noise, tf.transpose(kernel, [1, 0, 2, 3]), strides, "VALID")
    return settings.elastic * noise


def interpolate(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Interpolate images at coordinates (batch, height, width) float32, in pixels down and right from the first one."""
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])  # read by coordinates outside of the image
    bottom, right = images.shape[1] + 1, images.shape[2] + 1
    y, x = tf.clip_by_value(y + 1, 0.0, float(bottom)), tf.clip_by_value(x + 1, 0.0, float(right))
    top, left = tf.floor(y), tf.floor(x)
    y_fraction, x_fraction = (y - top)[..., tf.newaxis], (x - left)[..., tf.newaxis]
    top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)
    below, beside = tf.minimum(top + 1, bottom), tf.minimum(left + 1, right)

    def at(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.gather_nd(padded, tf.stack([row, column], axis=-1), batch_dims=1)

    upper = at(top, left) * (1 - x_fraction) + at(top, beside) * x_fraction
    lower = at(below, left) * (1 - x_fraction) + at(below, beside) * x_fraction
    return upper * (1 - y_fraction) + lower * y_fraction
