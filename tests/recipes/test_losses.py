"""Losses, against numbers by hand."""

import numpy as np
import pytest

from recipes.training.losses import build_loss

PROBABILITIES = np.float32([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
LABELS = np.float32([[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("cross-entropy", -(np.log(0.7) + np.log(0.3)) / 2),
        ("mean-squared-error", (0.09 + 0.04 + 0.01 + 0.01 + 0.49 + 0.36) / 6),
        # Margins log(0.7 / 0.2) = 1.25, which is enough, and log(0.3 / 0.6) = -0.69.
        ("hinge", (0 + 1 + np.log(2)) / 2),
    ],
)
def test_each_loss_is_its_formula(name, by_hand):
    assert float(build_loss(name)(LABELS, PROBABILITIES)) == pytest.approx(by_hand, rel=1e-5)
