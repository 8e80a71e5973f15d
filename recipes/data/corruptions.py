"""Random corruptions of training images: what drawings, photographs and scans have and a dataset may not have.

Images are float32 (batch, height, width, channels), 0 to 255. Each function changes its images by amounts drawn
uniformly from 0 to the largest, one for each image; a seed is a key of TensorFlow's stateless random operations, int32 (2,).
"""

import math
from collections.abc import Callable, Mapping

import tensorflow as tf

from recipes.config import Augmentation


def corrupt(images: tf.Tensor, settings: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Corrupt each image in one of the ways that are on, or leave it as it is, with equal probabilities.

    One way at a time: the network still sees images that are nearly clean, as those of the test part are.
    """
    used = [(corruption, getattr(settings, name)) for name, corruption in CORRUPTIONS.items()]
    used = [(corruption, largest) for corruption, largest in used if largest]
    if not used:
        return images
    batch, ways = tf.shape(images)[0], len(used) + 1
    seeds = tf.random.experimental.stateless_split(seed, ways)
    chosen = tf.random.stateless_uniform((batch,), seeds[0], maxval=ways, dtype=tf.int32)
    places = tf.dynamic_partition(tf.range(batch), chosen, ways)
    untouched, *parts = tf.dynamic_partition(images, chosen, ways)
    changed = [
        corruption(part, largest, seeds[number])
        for number, ((corruption, largest), part) in enumerate(zip(used, parts, strict=True), start=1)
    ]
    return tf.clip_by_value(tf.dynamic_stitch(places, [untouched, *changed]), 0.0, 255.0)


def change_thickness(images: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    """Make bright strokes thicker or thinner: average images with their dilation or erosion by a pixel on each side."""
    amounts = _amounts(images, seed, -largest, largest)
    dilated = tf.nn.max_pool2d(images, 3, 1, "SAME")
    eroded = -tf.nn.max_pool2d(-images, 3, 1, "SAME")
    return images + tf.abs(amounts) * (tf.where(amounts > 0, dilated, eroded) - images)


def blur(images: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    """Blur images by Gaussians, whose standard deviations in pixels differ along rows and columns: motion blurs too."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    height, width = images.shape[1:3]
    down = _gaussians(_amounts(images, seeds[0], 0, largest), height)
    across = _gaussians(_amounts(images, seeds[1], 0, largest), width)
    return tf.einsum("byi,bijc,bxj->byxc", down, images, across)


def _gaussians(deviations: tf.Tensor, size: int) -> tf.Tensor:
    """Return the weights of the pixels of a line in each blurred one, (batch, size, size), rows summing to 1."""
    pixels = tf.range(float(size))
    distance = pixels[:, tf.newaxis] - pixels
    weights = tf.exp(-0.5 * (distance / tf.maximum(deviations[..., 0], 0.1)) ** 2)
    return weights / tf.reduce_sum(weights, axis=2, keepdims=True)


def add_noise(images: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    """Add normal noise, whose standard deviation is a fraction of 255."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    noise = tf.random.stateless_normal(tf.shape(images), seeds[0])
    return images + 255 * _amounts(images, seeds[1], 0, largest) * noise


def add_impulses(images: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    """Make a fraction of the pixels black or white."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    drawn = tf.random.stateless_uniform(tf.shape(images), seeds[0])
    half = _amounts(images, seeds[1], 0, largest) / 2
    return tf.where(drawn < half, 0.0, tf.where(drawn > 1 - half, 255.0, images))


def add_light(images: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    """Light images from one side: add a plane from 0 to a fraction of 255, and reduce the contrast by that fraction."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    height, width = images.shape[1:3]
    y, x = tf.meshgrid(tf.linspace(-0.5, 0.5, height), tf.linspace(-0.5, 0.5, width), indexing="ij")
    angles = _amounts(images, seeds[0], 0, 2 * math.pi)
    plane = y[..., tf.newaxis] * tf.sin(angles) + x[..., tf.newaxis] * tf.cos(angles)
    amounts = _amounts(images, seeds[1], 0, largest)
    return images * (1 - amounts) + 255 * amounts * (0.5 + plane / math.sqrt(2))


def _amounts(images: tf.Tensor, seed: tf.Tensor, least: float, largest: float) -> tf.Tensor:
    """Draw an amount for each image, (batch, 1, 1, 1)."""
    return tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), seed, least, largest)


CORRUPTIONS: Mapping[str, Callable[[tf.Tensor, float, tf.Tensor], tf.Tensor]] = {
    "thickness": change_thickness,
    "blur": blur,
    "noise": add_noise,
    "impulses": add_impulses,
    "light": add_light,
}
"""The corruption of each setting."""
