"""Load the images of a recipe, and split them into a training, a validation and a test part."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from recipes.config import IMAGE_SHAPE, ImageData, UserError
from recipes.data.datasets import is_path, open_builder, read_split
from recipes.data.examples import Examples, ImageSource, check_examples, stratified_split
from recipes.data.image_files import read_path, resize

DEFAULT_DATASET = "mnist"
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


def load_images(settings: ImageData, trained_on: str | None = None) -> ImageDataset:
    """Load a source and split it; the same settings give the same parts.

    Args:
        settings: The source, and how it is split.
        trained_on: `data_source` of the images that a model to be scored was trained on. If this is another source,
            without test images, all of its images are the test part.

    Raises:
        UserError: A source that is not found or not valid.
    """
    source = open_source(settings.source)
    rest = test = source.train
    random = np.random.default_rng(settings.split_seed)  # for the test part, then for the validation part
    if source.read_test is None:
        rest, test = stratified_split(rest, settings.test_fraction, random, source.classes)
        if trained_on not in (None, source.data_source):
            test = source.train
    train, validation = stratified_split(rest, settings.validation_fraction, random, source.classes)
    return ImageDataset(source, train, validation, source.read_test or (lambda: test))


def open_source(name: str) -> ImageSource:
    """Open `auto`, `digits`, a TensorFlow dataset or a path."""
    if name == OFFLINE_DATASET:
        return _open_digits()
    if name == "auto":
        try:
            return _open_dataset(DEFAULT_DATASET)
        except UserError as error:
            return _open_digits(
                "This is NOT MNIST but scikit-learn's 1,797 small digits, whose results are not comparable with "
                f"MNIST's ({error})"
            )
    return read_path(Path(name)) if is_path(name) else _open_dataset(name)


def _open_digits(note: str = "") -> ImageSource:
    """Open the 8 x 8 digits that scikit-learn ships (UCI), resized to 28 x 28."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [resize(Image.fromarray(image)) for image in (digits.images * (255 / 16)).astype(np.uint8)]
    classes = tuple(str(name) for name in digits.target_names)
    examples = check_examples(np.stack(images), digits.target, len(classes), OFFLINE_DATASET)
    return ImageSource(OFFLINE_DATASET, OFFLINE_DATASET, classes, examples, note=note)


def _open_dataset(name: str) -> ImageSource:
    """Open a TensorFlow dataset of 28 x 28 grey images with class labels."""
    builder = open_builder(name)
    features, keys = builder.info.features, builder.info.supervised_keys
    if (
        not keys
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
        or "train" not in builder.info.splits
    ):
        raise UserError(f"data.source: {name} is not an image classification dataset")
    image, label = keys
    if tuple(features[image].shape) != IMAGE_SHAPE:
        raise UserError(
            f"data.source: images must have shape {IMAGE_SHAPE}. Received: {name} with {tuple(features[image].shape)}"
        )
    classes = tuple(features[label].names)

    def read(split: str) -> Examples:
        arrays = read_split(builder, split)
        return check_examples(arrays[image], arrays[label], len(classes), f"{name} ({split})")

    read_test = (lambda: read("test")) if "test" in builder.info.splits else None
    return ImageSource(name, name, classes, read("train"), read_test)
