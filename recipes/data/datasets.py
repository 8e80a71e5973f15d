"""TensorFlow Datasets without its waits.

`tfds.load` retries for more than 200 seconds when there is no network. So a prepared dataset is
read straight from its folder, and for others the host they come from is asked first, for a few
seconds at most.
"""

import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from recipes.config import UserError, nearest

PROBE_SECONDS = 3.0
PROBE_URLS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
}
OTHER_PROBE_URL = "https://storage.googleapis.com/tfds-data/"


def prepared_folder(name: str) -> Path | None:
    """Return the folder of the newest prepared version of a dataset, without the network."""
    versions = [
        info.parent
        for folder in _data_folders()
        for info in folder.glob(f"{name}/*/dataset_info.json")
        if all(part.isdigit() for part in info.parent.name.split("."))
    ]
    return max(versions, key=lambda path: [int(part) for part in path.name.split(".")], default=None)


def _data_folders() -> list[Path]:
    chosen = os.environ.get("TFDS_DATA_DIR")
    return [Path(chosen)] if chosen else [Path.home() / "tensorflow_datasets"]


def reachable(name: str, seconds: float = PROBE_SECONDS) -> bool:
    """Tell whether the host of a dataset answers within some seconds.

    The question runs in a thread of its own: looking up a host's name has no time limit in Python.
    """
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(PROBE_URLS.get(name, OTHER_PROBE_URL), method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # an answer all the same
        except (OSError, ValueError):
            return
        answered.set()

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(seconds)


def is_known(name: str) -> bool:
    """Tell whether a name is that of a prepared dataset, or of one that TensorFlow Datasets can prepare."""
    return prepared_folder(name) is not None or name in tfds.list_builders(with_community_datasets=False)


def open_builder(name: str) -> tfds.core.DatasetBuilder:
    """Open a dataset by name, downloading it if need be.

    Raises:
        UserError: An unknown name, or a dataset that is neither prepared nor within reach.
    """
    if not is_known(name):
        possible = [*tfds.list_builders(with_community_datasets=False), "auto", "digits"]
        raise UserError(
            f"data.source: there is no file or folder, and no TensorFlow dataset, of that name. "
            f"Received: {name!r}. {nearest(name, possible)}"
        )
    folder = prepared_folder(name)
    if folder is not None:
        return tfds.builder_from_directory(folder)
    if not reachable(name):
        raise UserError(
            f"data.source: {name} is not prepared in {_data_folders()[0]} and its host did not answer "
            f"within {PROBE_SECONDS:g} seconds. Prepare it where there is a network, or choose digits or a path."
        )
    builder = tfds.builder(name)
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises what its downloaders, parsers and file systems raise
        raise UserError(f"data.source: {name} could not be downloaded: {error}") from error
    return builder


def read_split(builder: tfds.core.DatasetBuilder, split: str) -> dict[str, Any]:
    """Read a whole split into NumPy arrays (example by example it takes many times longer)."""
    arrays: dict[str, Any] = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
    return arrays
