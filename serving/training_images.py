"""What the images that a model was trained on have in common, and images made like them."""

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
"""Difference of the darkest and the brightest pixel below which an image has no background."""
SAMPLE = 1000
"""Training images that are looked at to describe all of them."""
COMMON = 0.9
"""Part of the training images that must have something for it to be said of all."""

SIDE, BOX, CENTER = 28, 20, 14
"""MNIST's images, the box that its digits fill, and the pixel where their centre of mass is."""
INK = 25
"""Brightness above which a pixel is the digit's: the box does not grow by a JPEG's noise."""


@dataclass(frozen=True)
class TrainingImages:
    """What the images that a model was trained on have in common, as its `recipe.json` records it.

    Attributes:
        background: Whether their background is dark or light; None where that varies or is not known.
        mnist_layout: Whether all is where `lay_out_as_mnist` puts it.
    """

    background: Background | None = None
    mnist_layout: bool = False


def describe_training(images: npt.NDArray[Any]) -> TrainingImages:
    """Find out what training images have in common.

    Args:
        images: (n, height, width, channels), 0 to 255; n at least 1.
    """
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
    """Return what an export's folder records of the training images; None where it records nothing."""
    try:
        recipe = json.loads((version / "assets.extra" / "recipe.json").read_text())
        return TrainingImages(**recipe["training_images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def background_of(image: Grey) -> Background | None:
    """Tell an image's background from the pixels at its border; None where it is not clearly one."""
    darkest, brightest = float(image.min()), float(image.max())
    if brightest - darkest < LEAST_CONTRAST:
        return None
    place = (_border(image) - darkest) / (brightest - darkest)
    return "dark" if place < 1 / 3 else "light" if place > 2 / 3 else None


def _border(image: Grey) -> float:
    return float(np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])))


def lay_out_as_mnist(image: Grey) -> npt.NDArray[np.uint8]:
    """Place a bright digit on a dark background as MNIST's authors did, (28, 28).

    The digit is scaled, anti-aliased and without a change of its proportions, to fit a box of
    20 x 20 pixels, and moved by whole pixels until its centre of mass is in the centre (LeCun et al.,
    http://yann.lecun.com/exdb/mnist/). The background becomes 0 and the brightest pixel 255, as in
    the bilevel images that MNIST was made from. An image of MNIST comes back as it is.
    """
    darkest = _border(image)
    ink = np.clip((image - darkest) * (255 / (image.max() - darkest)), 0, 255)
    bright = ink > INK
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    scale = max(bottom - top, right - left) / BOX  # pixels of the image in a pixel of MNIST's
    mass = ink[top:bottom, left:right]
    down = _area_weights(top, mass.sum(axis=1), scale, image.shape[0])
    across = _area_weights(left, mass.sum(axis=0), scale, image.shape[1])
    return np.round(down @ ink @ across.T).astype(np.uint8)


def _area_weights(first: int, mass: Grey, scale: float, size: int) -> Grey:
    """Return the part that each pixel of an image has in each of MNIST's pixels, along one axis, (28, size).

    Args:
        first: Pixel where the digit begins.
        mass: The digit's ink by pixel, from there on.
        scale: Pixels of the image in a pixel of MNIST's.
        size: Pixels of the image.
    """
    center = (np.arange(len(mass)) + 0.5) @ mass / mass.sum() / scale  # from where the digit begins
    start = np.clip(np.ceil(CENTER - center), 0, SIDE - np.ceil(len(mass) / scale))
    edges = first + (np.arange(SIDE + 1) - start) * scale
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, np.newaxis], pixels + 1) - np.maximum(edges[:-1, np.newaxis], pixels)
    return np.clip(overlap, 0, None) / scale
