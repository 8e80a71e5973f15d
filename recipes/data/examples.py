"""Labelled images in memory: checks and splits."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recipes.config import UserError
from recipes.data.streams import stream

Shape = tuple[int | None, int | None, int | None]
"""Height, width and channels that images must have; None for those of the data."""


@dataclass(frozen=True)
class Examples:
    """Images with their labels.

    Attributes:
        images: (n, height, width, channels), uint8 or float32, pixels 0 to 255.
        labels: (n,) int64, class numbers from 0.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: npt.NDArray[np.int64]) -> "Examples":
        return Examples(self.images[index], self.labels[index])

    def fingerprint(self) -> str:
        """Return a short hash of pixels and labels."""
        return fingerprint(self.images, self.labels)


def fingerprint(*arrays: npt.NDArray[Any]) -> str:
    """Return a short hash of arrays: a resumed run must have the data that it started with."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class ImageSource:
    """The images of a source before they are split.

    Attributes:
        name: Name of the dataset: "mnist", "digits", a file's or folder's name.
        data_source: The value of `--data.source` that loads it again: a name or an absolute path.
        classes: Name of each class, in the order of the labels.
        train: Examples for training and validation.
        read_test: Reads the source's own test examples; None if it has none.
        note: What a reader of the results must know, such as that these are not the images asked for.
    """

    name: str
    data_source: str
    classes: tuple[str, ...]
    train: Examples = field(repr=False)
    read_test: Callable[[], Examples] | None = None
    note: str = ""


def check_examples(
    images: npt.NDArray[Any], labels: npt.NDArray[Any], num_classes: int, shape: Shape, where: str
) -> Examples:
    """Check the arrays of a source and return them as Examples.

    Args:
        images: (n, height, width) or (n, height, width, channels); integers or floats, 0 to 255.
        labels: (n,) integers, 0 to num_classes - 1.
        num_classes: Number of classes.
        shape: The shape that images must have.
        where: File or part of a dataset, for error messages.

    Raises:
        UserError: Other arrays.
    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    check_shape(images.shape[1:], shape, where)
    _check_integers(labels, where)
    if len(images) != len(labels):
        raise UserError(
            f"{where}: as many labels as images are needed. Received: {len(images)} images, {len(labels)} labels"
        )
    if not len(images):
        raise UserError(f"{where}: there are no images")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"{where}: labels must be 0 to {num_classes - 1}. Received: {labels.min()} to {labels.max()}"
        )
    return Examples(check_pixels(images, where), labels.astype(np.int64))


def check_shape(received: Sequence[int | None], shape: Shape, where: str) -> None:
    """Refuse images of another shape, and of a size that varies.

    Raises:
        UserError: Another shape; the settings that accept it are named.
    """
    if len(received) != 3 or received[2] not in (1, 3):
        raise UserError(
            f"{where}: images must be (height, width) or (height, width, 1 or 3). Received: {tuple(received)}"
        )
    if None in received:
        raise UserError(
            f"{where}: images must have one size; write images of several sizes into a folder. Received: {tuple(received)}"
        )
    if any(wanted not in (None, value) for wanted, value in zip(shape, received, strict=True)):
        height, width, channels = received
        size = height if height == width else None
        raise UserError(
            f"{where}: images must have shape {shape}. Received: {tuple(received)}, which "
            f"--data.image-size {size} --data.channels {channels} accepts"
        )


def _check_integers(labels: npt.NDArray[Any], where: str) -> None:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{where}: labels must be one integer per image. Received: {labels.dtype} of shape {labels.shape}"
        )


def check_pixels(images: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Return images as uint8 or float32.

    Raises:
        UserError: Pixels that are not 0 to 255, or all at most 1, as normalised pixels are.
    """
    if not (np.issubdtype(images.dtype, np.integer) or np.issubdtype(images.dtype, np.floating)):
        raise UserError(f"{where}: pixels must be numbers from 0 to 255. Received: {images.dtype}")
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 255:
        raise UserError(f"{where}: pixels must be 0 to 255. Received: {images.min()} to {images.max()}")
    if images.max() <= 1:
        raise UserError(
            f"{where}: pixels must be raw, 0 to 255, the model normalises them: multiply them by 255. "
            f"Received: {images.min()} to {images.max()}"
        )
    return images if images.dtype == np.uint8 else images.astype(np.float32)


def classes_of_labels(labels: npt.NDArray[Any], where: str) -> tuple[str, ...]:
    """Return the names "0", "1", ... of the classes of bare labels.

    Raises:
        UserError: Labels that are not integers, have a gap, or have fewer than two classes.
    """
    _check_integers(labels, where)
    present = np.unique(labels)
    if len(present) < 2 or not np.array_equal(present, np.arange(len(present))):
        raise UserError(
            f"{where}: labels must be 0, 1, ... without a gap, and at least two classes. "
            f"Received: {', '.join(map(str, present[:12]))}{', ...' if len(present) > 12 else ''}"
        )
    return tuple(str(label) for label in present)


def with_few_labels(
    examples: Examples, labels_per_class: int | None, seed: int, classes: Sequence[str]
) -> Examples:
    """Return `labels_per_class` random examples of each class, in their order; None for all.

    Raises:
        UserError: A class with fewer examples.
    """
    if labels_per_class is None:
        return examples
    random = stream(seed, "labels")
    chosen = np.zeros(len(examples), bool)
    for label, name in enumerate(classes):
        members = np.flatnonzero(examples.labels == label)
        if len(members) < labels_per_class:
            raise UserError(
                f"data.labels_per_class: class {name!r} has {len(members)} training images. "
                f"Received: {labels_per_class}"
            )
        chosen[random.permutation(members)[:labels_per_class]] = True
    return examples[np.flatnonzero(chosen)]


def stratified_split(
    examples: Examples, fraction: float, random: np.random.Generator, classes: Sequence[str]
) -> tuple[Examples, Examples]:
    """Split off a random `fraction` of each class; see `stratified_part`.

    Returns:
        (the rest, the part split off), each in the order of the examples.
    """
    chosen = stratified_part(examples.labels, fraction, random, classes)
    return examples[np.flatnonzero(~chosen)], examples[np.flatnonzero(chosen)]


def stratified_part(
    labels: npt.NDArray[np.int64], fraction: float, random: np.random.Generator, classes: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Choose a random `fraction` of each class, at least one example.

    Args:
        labels: (n,) class numbers.
        fraction: In (0, 1).
        random: Source of the choice.
        classes: Names of the classes.

    Returns:
        (n,): whether each example is chosen.

    Raises:
        UserError: A class with one example.
    """
    chosen = np.zeros(len(labels), bool)
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        if len(members) == 1:
            raise UserError(f"class {name!r} has one example: at least 2 are needed to split off a part")
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        chosen[random.permutation(members)[: max(count, 0)]] = True
    return chosen
