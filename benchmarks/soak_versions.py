"""The versions of the soak: published whole, copied in two parts, and deleted while they load."""

import random
import shutil
import time
from collections import Counter
from pathlib import Path

from serving.client import Client

KEPT = 3
"""Versions of a model that stay on disk, as a retention of old versions leaves them."""
AVAILABLE_SECONDS = 90.0
"""Longest time from the publication of a version until it serves."""


class Versions:
    """Publishes copies of the first version of two models, in turn.

    Args:
        folder: Folder of the models that are served.
        source: Folder of their exports.
        address: host:port of the server's gRPC.
    """

    def __init__(self, folder: Path, source: Path, address: str) -> None:
        self._folder = folder
        self._sources = {model: first_version(source / model) for model in ("mnist", "lm")}
        self._client = Client(address, timeout=60)
        self._number = 1
        self._published: Counter[str] = Counter()

    @staticmethod
    def copy_first(source: Path, target: Path) -> None:
        """Copy the first version of an export as version 1."""
        shutil.copytree(first_version(source), target / "1")

    def publish_next(self) -> None:
        """Publish a version and wait until it serves, or until its deletion has had no effect on the others.

        Raises:
            TimeoutError: It does not serve in time.
        """
        self._number += 1
        model = ("mnist", "lm")[self._number // 2 % 2]
        how = ("whole", "in two parts", "whole", "deleted while it loads")[self._number % 4]
        version = self._folder / model / str(self._number)
        if how == "in two parts":
            self._copy_in_two_parts(self._sources[model], version)
        else:
            beside = version.with_name(f".new-{self._number}")
            shutil.copytree(self._sources[model], beside)
            beside.rename(version)
        if how == "deleted while it loads":
            time.sleep(random.uniform(0.0, 2.0))
            shutil.rmtree(version)
        else:
            self._wait_until_available(model)
        self._published[how] += 1
        on_disk = sorted(int(path.name) for path in version.parent.iterdir() if path.name.isdigit())
        for number in on_disk[:-KEPT]:
            shutil.rmtree(version.parent / str(number))

    def _copy_in_two_parts(self, source: Path, version: Path) -> None:
        """Copy the half of a SavedModel, let the server try to load it, then copy all of it."""
        graph = (source / "saved_model.pb").read_bytes()
        version.mkdir()
        (version / "saved_model.pb").write_bytes(graph[: len(graph) // 2])
        time.sleep(3)
        shutil.copytree(source, version, dirs_exist_ok=True)

    def _wait_until_available(self, model: str) -> None:
        until = time.monotonic() + AVAILABLE_SECONDS
        while time.monotonic() < until:
            versions = self._client.status(model)
            if self._number in versions and versions[self._number].state == "AVAILABLE":
                return
            time.sleep(0.2)
        raise TimeoutError(f"version {self._number} of {model} does not serve: {versions}")

    def summary(self) -> str:
        """Return how many versions were published in which way."""
        return "Versions: " + ", ".join(f"{number} {how}" for how, number in self._published.items()) + "."


def first_version(model: Path) -> Path:
    """Return the folder of the lowest version of a model."""
    return min((path for path in model.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
