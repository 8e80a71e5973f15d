"""Load the images of a recipe, and split them into a training, a validation and a test part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from recipes.config import ImageData, UserError
from recipes.data.datasets import is_path, open_builder, read_split
from recipes.data.examples import Examples, ImageSource, Shape, check_examples, check_shape, stratified_split
from recipes.data.image_files import fit_shape, read_path

DEFAULT_DATASET, MNIST_SHAPE = "mnist", (28, 28, 1)
OFFLINE_DATASET = "digits"


@dataclass(frozen=True)
class ImageDataset:
    """A source, split.

    Attributes:
        source: The images before they were split.
        train: The training part.
        validation: The part that chooses epochs and settings.
        read_test: Reads the test part; called once, after training.
    """

    source: ImageSource
    train: Examples = field(repr=False)
    validation: Examples = field(repr=False)
    read_test: Callable[[], Examples] = field(repr=False)


def load_images(
    settings: ImageData, trained_on: str | None = None, shape: Shape | None = None
) -> ImageDataset:
    """Load a source and split it; the same settings give the same parts.

    Args:
        settings: The source, and how it is split.
        trained_on: `data_source` of the images that a model to be scored was trained on. If this is another source,
            without test images, all of its images are the test part.
        shape: Height, width and channels that this model takes; None for those of the settings.

    Raises:
        UserError: A source that is not found or not valid.
    """
    source = open_source(
        settings.source, shape or (settings.image_size, settings.image_size, settings.channels)
    )
    rest = test = source.train
    random = np.random.default_rng(settings.split_seed)  # for the test part, then for the validation part
    if source.read_test is None:
        rest, test = stratified_split(rest, settings.test_fraction, random, source.classes)
        if trained_on not in (None, source.data_source):
            test = source.train
    train, validation = stratified_split(rest, settings.validation_fraction, random, source.classes)
    return ImageDataset(source, train, validation, source.read_test or (lambda: test))


def image_shape(metrics: Mapping[str, Any]) -> Shape:
    """Return the height, width and channels of a run's images; older runs record none and had MNIST's."""
    height, width, channels = metrics.get("image_shape", MNIST_SHAPE)
    return height, width, channels


def describe_shape(shape: Shape) -> str:
    """Return " (32 x 32, colour)" for the terminal; "" for MNIST's shape."""
    height, width, channels = shape
    return "" if shape == MNIST_SHAPE else f" ({width} x {height}, {'colour' if channels == 3 else 'grey'})"


def open_source(name: str, shape: Shape) -> ImageSource:
    """Open `auto`, `digits`, a TensorFlow dataset or a path, whose images must have a shape."""
    if name == OFFLINE_DATASET:
        return _open_digits(shape)
    if name == "auto":
        try:
            builder = open_builder(DEFAULT_DATASET)
        except UserError as error:
            return _open_digits(
                shape,
                "This is NOT MNIST but scikit-learn's 1,797 small digits, whose results are not comparable with "
                f"MNIST's ({error})",
            )
        return _open_dataset(DEFAULT_DATASET, builder, shape)
    return read_path(Path(name), shape) if is_path(name) else _open_dataset(name, open_builder(name), shape)


def _open_digits(shape: Shape, note: str = "") -> ImageSource:
    """Open the 8 x 8 grey digits that scikit-learn ships (UCI), resized and converted."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).astype(np.uint8)  # (n, 8, 8)
    images = [fit_shape(Image.fromarray(image), shape) for image in pixels]
    classes = tuple(str(name) for name in digits.target_names)
    examples = check_examples(np.stack(images), digits.target, len(classes), shape, OFFLINE_DATASET)
    return ImageSource(OFFLINE_DATASET, OFFLINE_DATASET, classes, examples, note=note)


def _open_dataset(name: str, builder: tfds.core.DatasetBuilder, shape: Shape) -> ImageSource:
    """Open a TensorFlow dataset of images with class labels."""
    features, keys = builder.info.features, builder.info.supervised_keys
    if (
        not keys
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
        or "train" not in builder.info.splits
    ):
        raise UserError(f"data.source: {name} is not an image classification dataset")
    image, label = keys
    check_shape(features[image].shape, shape, f"data.source: {name}")
    classes = tuple(features[label].names)

    def read(split: str) -> Examples:
        arrays = read_split(builder, split)
        return check_examples(arrays[image], arrays[label], len(classes), shape, f"{name} ({split})")

    read_test = (lambda: read("test")) if "test" in builder.info.splits else None
    return ImageSource(name, name, classes, read("train"), read_test)
