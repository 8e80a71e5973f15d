"""Tables of numbers for a regression."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import RegressionData
from recipes.data.examples import fingerprint
from recipes.data.passes import read_ahead

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        features: (n, features).
        targets: (n, 1).
    """

    features: Floats
    targets: Floats

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class RegressionDataset:
    """A table, split.

    Attributes:
        name: What to call it.
        feature_names: Names of the columns.
        train, validation, test: Its parts.
    """

    name: str
    feature_names: tuple[str, ...]
    train: Rows = field(repr=False)
    validation: Rows = field(repr=False)
    test: Rows = field(repr=False)

    def fingerprint(self) -> str:
        """Return a short hash of the training part."""
        return fingerprint(self.train.features, self.train.targets)


def load_numbers(settings: RegressionData) -> RegressionDataset:
    """Load scikit-learn's diabetes data in their own units, and split it."""
    from sklearn.datasets import load_diabetes

    table = load_diabetes(scaled=False)
    features = table.data.astype(np.float32)
    targets = table.target.astype(np.float32)[:, np.newaxis]
    order = np.random.default_rng(settings.split_seed).permutation(len(features))
    ends = np.cumsum(
        [round(part * len(order)) for part in (settings.test_fraction, settings.validation_fraction)]
    )
    test, validation, train = (Rows(features[part], targets[part]) for part in np.split(order, ends))
    return RegressionDataset("diabetes", tuple(table.feature_names), train, validation, test)


def evaluation_rows(rows: Rows) -> tf.data.Dataset:
    """Return all rows as one batch of (features, targets)."""
    dataset = tf.data.Dataset.from_tensor_slices((rows.features, rows.targets))
    return read_ahead(dataset.batch(len(rows)), 1)


def keep(features: Any, targets: Any, seed: Any, epoch: Any) -> tuple[Any, Any]:
    """Change nothing: numbers have no augmentation."""
    return features, targets
