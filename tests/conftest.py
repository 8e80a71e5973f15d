"""What all tests share: a quiet TensorFlow, tiny data, and the mark for real MNIST."""

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a fork loses its threads
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


@pytest.fixture(scope="session")
def shared_stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make class folders that a tiny model learns at once: lying and standing stripes, 30 each. For reading only."""
    random = np.random.default_rng(0)
    stripes = tmp_path_factory.mktemp("shared") / "stripes"
    for name, lying in (("lying", True), ("standing", False)):
        folder = stripes / name
        folder.mkdir(parents=True)
        for number in range(30):
            lines = np.repeat(random.integers(0, 256, 28, np.uint8)[:, np.newaxis], 28, axis=1)
            Image.fromarray(lines if lying else lines.T).save(folder / f"{number:02}.png")
    return stripes


@pytest.fixture
def stripes(shared_stripes: Path, tmp_path: Path) -> Path:
    """The stripes in folders that a test may change."""
    return Path(shutil.copytree(shared_stripes, tmp_path / "stripes"))


@pytest.fixture(autouse=True, scope="session")
def no_process_is_left() -> Iterator[None]:
    """Kill what failed tests have left: Python would wait for it at its exit."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
