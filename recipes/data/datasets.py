"""TensorFlow Datasets without long waits.

`tfds.load` retries for more than 200 seconds if there is no network. So a prepared dataset is read from its folder, and
before a download the host must answer within a few seconds.
"""

import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from recipes.config import UserError, nearest
from recipes.data.sources import DATASET_NAME

HOST = "https://storage.googleapis.com/tfds-data/"
HOST_SECONDS = 3.0


def is_path(name: str) -> bool:
    """Tell whether `--data.source` names a path, not a dataset; of two with the same name, `./NAME` is the path."""
    if not DATASET_NAME.fullmatch(name):
        return True
    return Path(name).exists() and ("/" in name or not _is_known(name))


def _is_known(name: str) -> bool:
    """Tell whether a dataset is prepared, or one that TensorFlow Datasets can prepare."""
    return _prepared_folder(name) is not None or name.partition("/")[0] in _builders()


def _builders() -> list[str]:
    builders: list[str] = tfds.list_builders(with_community_datasets=False)
    return builders


def _prepared_folder(name: str) -> Path | None:
    """Return the folder of the newest prepared version of a dataset."""
    versions = [
        info.parent
        for info in _data_folder().glob(f"{name}/*/dataset_info.json")
        if all(part.isdigit() for part in info.parent.name.split("."))
    ]
    return max(versions, key=lambda path: [int(part) for part in path.name.split(".")], default=None)


def _data_folder() -> Path:
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")


def check_name(name: str) -> None:
    """Refuse an unknown dataset.

    Raises:
        UserError: No dataset of that name is prepared, and TensorFlow Datasets can prepare none.
    """
    if not _is_known(name):
        raise UserError(
            "data.source: there is no file or folder, and no TensorFlow dataset, of that name. "
            f"Received: {name!r}. {nearest(name, [*_builders(), 'auto', 'digits', 'pydoc'])}"
        )


def open_builder(name: str) -> tfds.core.DatasetBuilder:
    """Open a dataset by its name, after downloading it if it is not prepared.

    Raises:
        UserError: An unknown name, or a dataset that is not prepared and can't be downloaded.
    """
    check_name(name)
    folder = _prepared_folder(name)
    if folder is not None:
        return tfds.builder_from_directory(folder)
    if not host_answers():
        raise UserError(
            f"data.source: {name} is not prepared in {_data_folder()} and its host did not answer within "
            f"{HOST_SECONDS:g} seconds. Prepare it where there is a network, or choose a path or an offline "
            "sample (digits, pydoc)."
        )
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises what its downloaders, parsers and file systems raise
        raise UserError(f"data.source: {name} could not be downloaded: {error}") from error
    return builder


def host_answers() -> bool:
    """Tell whether the host of the datasets answers within HOST_SECONDS.

    The request runs in its own thread, because Python's look-up of a host name has no time limit.
    """
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(HOST, method="HEAD"), timeout=HOST_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # the host has answered
        except (OSError, ValueError):
            return
        answered.set()

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(HOST_SECONDS)


def read_split(builder: tfds.core.DatasetBuilder, split: str) -> dict[str, Any]:
    """Read a whole split into NumPy arrays (example by example it takes many times longer)."""
    arrays: dict[str, Any] = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
    return arrays
