"""Images for a recipe: which source, and its training, validation and test parts."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from recipes.config import IMAGE_SHAPE, ImageData, UserError
from recipes.data.datasets import is_known, open_builder, prepared_folder, reachable, read_split
from recipes.data.examples import Examples, ImageSource, check_examples, stratified_split
from recipes.data.image_files import read_path

DEFAULT_DATASET = "mnist"
OFFLINE_DATASET = "digits"


@dataclass(frozen=True)
class ImageDataset:
    """A source, split.

    Attributes:
        source: Where the examples come from.
        train: What the weights are fitted to.
        validation: What chooses epochs and settings.
        read_test: Gives the test examples; called once, when training is over.
    """

    source: ImageSource
    train: Examples = field(repr=False)
    validation: Examples = field(repr=False)
    read_test: Callable[[], Examples] = field(repr=False)


def load_images(settings: ImageData, trained_on: str | None = None) -> ImageDataset:
    """Load a source and split it; the same settings give the same parts.

    Args:
        settings: The source, and how it is split.
        trained_on: `origin` of the source that a model to be scored was trained on. Of another source without
            test images of its own all images are a test.

    Raises:
        UserError: A source that is not there or is not what its recipe can read.
    """
    source = open_source(settings.source)
    dataset = _split(source, settings)
    if source.read_test is None and trained_on not in (None, source.origin):
        return replace(dataset, read_test=lambda: source.train)
    return dataset


def _split(source: ImageSource, settings: ImageData) -> ImageDataset:
    rest, read_test = source.train, source.read_test
    random = np.random.default_rng(settings.split_seed)  # one stream for both splits, one after the other
    if read_test is None:
        rest, test = stratified_split(rest, settings.test_fraction, random, source.classes)
        read_test = lambda: test  # noqa: E731 - as short as it is
    train, validation = stratified_split(rest, settings.validation_fraction, random, source.classes)
    return ImageDataset(source, train, validation, read_test)


def open_source(name: str) -> ImageSource:
    """Open `auto`, `digits`, a TensorFlow Datasets name or a path.

    A folder here that is called like a dataset is meant by `./NAME`, the dataset by NAME.
    """
    if name == "auto":
        return _open_default()
    if name == OFFLINE_DATASET:
        return _open_digits()
    path = Path(name)
    if "/" in name or path.suffix == ".npz" or (path.exists() and not is_known(name)):
        return read_path(path)
    return _open_tfds(name)


def _open_default() -> ImageSource:
    """Open MNIST where it can be had, else the offline digits with a note that says so."""
    reason = "it is not prepared here and its host did not answer"
    if prepared_folder(DEFAULT_DATASET) is not None or reachable(DEFAULT_DATASET):
        try:
            return _open_tfds(DEFAULT_DATASET)
        except UserError as error:
            reason = str(error)
    note = (
        f"This is NOT MNIST ({reason}): scikit-learn's 1,797 small digits stand in for it. "
        "Results do not compare with MNIST's."
    )
    return _open_digits(note)


def _open_digits(note: str = "") -> ImageSource:
    """Open the 8 x 8 digits that scikit-learn ships (UCI), resized to 28 x 28."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    height, width, _ = IMAGE_SHAPE
    images = [
        np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        for image in (digits.images * (255 / 16)).astype(np.uint8)
    ]
    classes = tuple(str(name) for name in digits.target_names)
    examples = check_examples(np.stack(images), digits.target, len(classes), OFFLINE_DATASET)
    return ImageSource(OFFLINE_DATASET, OFFLINE_DATASET, classes, examples, note=note)


def _open_tfds(name: str) -> ImageSource:
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
    return ImageSource(builder.info.name, builder.info.name, classes, read("train"), read_test)
