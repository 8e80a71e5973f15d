"""A description of a model's training images, and the layout of MNIST for other images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Background = Literal["dark", "light"]
Grey = npt.NDArray[Any]
"""(height, width), 0 to 255."""

LEAST_CONTRAST = 32
"""Smallest difference between the darkest and the brightest pixel of an image with a background."""
SAMPLE = 1000
"""Number of training images from which all are described."""
COMMON = 0.9
"""Part of the training images that must have a property that is recorded of all."""

SIDE, BOX, CENTER = 28, 20, 14
"""Size of MNIST's images, size of the box that the digits fill, and pixel of their centre of mass."""
INK = 25
"""Brightness above which a pixel belongs to the digit, so that noise of a JPEG does not enlarge the box."""


@dataclass(frozen=True)
class TrainingImages:
    """A description of a model's training images, as its `recipe.json` records it.

    Attributes:
        background: Their background; None if it varies or is unknown.
        mnist_layout: Whether they have the layout of `lay_out_as_mnist`.
        channels: 1 for grey, 3 for red, green and blue; these have no recorded background.
    """

    background: Background | None = None
    mnist_layout: bool = False
    channels: int = 1


def describe_training(images: npt.NDArray[Any]) -> TrainingImages:
    """Return the description of training images.

    Args:
        images: (n, height, width, channels), 0 to 255; n at least 1.
    """
    if images.shape[-1] == 3:
        return TrainingImages(channels=3)
    sample = images[:: max(1, len(images) // SAMPLE), ..., 0]
    backgrounds = [background_of(image) for image in sample]
    for background in ("dark", "light"):
        if backgrounds.count(background) >= COMMON * len(sample):
            break
    else:
        return TrainingImages()
    same = [
        found == "dark" and image.shape == (SIDE, SIDE) and np.abs(lay_out_as_mnist(image) - image).max() <= 1
        for image, found in zip(sample.astype(np.int64), backgrounds, strict=True)
    ]
    return TrainingImages(background, bool(np.mean(same) >= COMMON))


def recorded(version: Path) -> TrainingImages | None:
    """Return the description in an export's folder, or None if it has none."""
    try:
        recipe = json.loads((version / "assets.extra" / "recipe.json").read_text())
        return TrainingImages(**recipe["training_images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def background_of(image: Grey) -> Background | None:
    """Return the background of an image by the pixels at its border, or None if it is not clear."""
    darkest, brightest = float(image.min()), float(image.max())
    if brightest - darkest < LEAST_CONTRAST:
        return None
    place = (_border(image) - darkest) / (brightest - darkest)
    return "dark" if place < 1 / 3 else "light" if place > 2 / 3 else None


def _border(image: Grey) -> float:
    return float(np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])))


def lay_out_as_mnist(image: Grey) -> npt.NDArray[np.uint8]:
    """Place a bright digit on a dark background as MNIST's authors did, (28, 28).

    The digit is scaled to fit a box of 20 x 20 pixels, with anti-aliasing and the same proportions, and
    moved by whole pixels until its centre of mass is in the centre (LeCun et al.,
    http://yann.lecun.com/exdb/mnist/). The background becomes 0 and the brightest pixel 255, as in
    the bilevel images that MNIST was made from. An image of MNIST stays unchanged.
    """
    darkest = _border(image)
    ink = np.clip((image - darkest) * (255 / (image.max() - darkest)), 0, 255)
    bright = ink > INK
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    scale = max(bottom - top, right - left) / BOX  # pixels of the image per pixel of the result
    mass = ink[top:bottom, left:right]
    down = _area_weights(top, mass.sum(axis=1), scale, image.shape[0])
    across = _area_weights(left, mass.sum(axis=0), scale, image.shape[1])
    return np.round(down @ ink @ across.T).astype(np.uint8)


def _area_weights(first: int, mass: Grey, scale: float, size: int) -> Grey:
    """Return the weight of each pixel of an image in each pixel of the result, along one axis, (28, size).

    Args:
        first: Pixel where the digit starts.
        mass: The digit's ink by pixel, from `first` on.
        scale: Pixels of the image per pixel of the result.
        size: Pixels of the image.
    """
    center = (np.arange(len(mass)) + 0.5) @ mass / mass.sum() / scale  # from the start of the digit
    start = np.clip(np.ceil(CENTER - center), 0, SIDE - np.ceil(len(mass) / scale))
    edges = first + (np.arange(SIDE + 1) - start) * scale
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, np.newaxis], pixels + 1) - np.maximum(edges[:-1, np.newaxis], pixels)
    return np.clip(overlap, 0, None) / scale
