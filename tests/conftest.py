"""What all tests share: a quiet TensorFlow, tiny data, and the mark for real MNIST."""

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs real MNIST where it is not prepared."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if folder and list(Path(folder).glob("mnist/*/dataset_info.json")):
        return
    skip = pytest.mark.skip(reason="MNIST is not prepared in TFDS_DATA_DIR")
    for item in items:
        if "real_mnist" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """Make class folders that a tiny model learns at once: lying and standing stripes, 30 each."""
    random = np.random.default_rng(0)
    for name, lying in (("lying", True), ("standing", False)):
        folder = tmp_path / "stripes" / name
        folder.mkdir(parents=True)
        for number in range(30):
            lines = np.repeat(random.integers(0, 256, 28, np.uint8)[:, np.newaxis], 28, axis=1)
            Image.fromarray(lines if lying else lines.T).save(folder / f"{number:02}.png")
    return tmp_path / "stripes"
