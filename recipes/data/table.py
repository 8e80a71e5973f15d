"""Tables of numbers for regression."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recipes.config import RegressionData
from recipes.data.examples import fingerprint

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
class Table:
    """A table, split at random.

    Attributes:
        name: Name of the dataset.
        train, validation, test: Its parts.
    """

    name: str
    train: Rows = field(repr=False)
    validation: Rows = field(repr=False)
    test: Rows = field(repr=False)

    def fingerprint(self) -> str:
        """Return a short hash of the training part."""
        return fingerprint(self.train.features, self.train.targets)


def load_table(settings: RegressionData) -> Table:
    """Load scikit-learn's diabetes data in their own units, and split them."""
    from sklearn.datasets import load_diabetes

    table = load_diabetes(scaled=False)
    features = table.data.astype(np.float32)
    targets = table.target.astype(np.float32)[:, np.newaxis]
    order = np.random.default_rng(settings.split_seed).permutation(len(features))
    ends = np.cumsum(
        [round(part * len(order)) for part in (settings.test_fraction, settings.validation_fraction)]
    )
    test, validation, train = (Rows(features[part], targets[part]) for part in np.split(order, ends))
    return Table("diabetes", train, validation, test)
