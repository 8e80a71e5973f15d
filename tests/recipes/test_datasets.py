import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from recipes.catalog import CATALOG
from recipes.config import UserError
from recipes.data import datasets, images
from recipes.data.sources import check_source

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nothing_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def silent_network(monkeypatch):
    """Make every request wait forever."""
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: threading.Event().wait())


def test_the_host_has_a_time_limit(silent_network, monkeypatch):
    monkeypatch.setattr(datasets, "HOST_SECONDS", 0.2)
    started = time.monotonic()
    assert not datasets.host_answers()
    assert time.monotonic() - started < 2


def test_auto_falls_back_to_the_digits_with_a_note(nothing_prepared, silent_network, monkeypatch):
    monkeypatch.setattr(datasets, "HOST_SECONDS", 0.1)
    source = images.open_source("auto", images.MNIST_SHAPE)
    assert source.name == source.data_source == "digits"
    assert "NOT MNIST" in source.note


def test_a_dataset_asked_for_by_name_is_never_another_one(nothing_prepared, monkeypatch):
    monkeypatch.setattr(datasets, "host_answers", lambda: False)
    with pytest.raises(
        UserError, match="fashion_mnist is not prepared in .*tfds and its host did not answer"
    ):
        images.open_source("fashion_mnist", images.MNIST_SHAPE)


def test_an_unknown_dataset_is_refused_with_the_nearest_name(nothing_prepared):
    with pytest.raises(UserError, match="Received: 'fashion_mnst'. Did you mean fashion_mnist?"):
        images.open_source("fashion_mnst", images.MNIST_SHAPE)


def test_the_newest_prepared_version_is_taken(nothing_prepared, tmp_path):
    for version in ("3.0.1", "3.0.10", "3.0.2", "incomplete.3.1.0"):
        folder = tmp_path / "tfds" / "mnist" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text(json.dumps({}))
    assert datasets._prepared_folder("mnist").name == "3.0.10"


def test_the_name_of_a_dataset_is_the_dataset_not_a_folder_of_that_name(
    nothing_prepared, stripes, monkeypatch
):
    monkeypatch.chdir(stripes.parent)
    (stripes.parent / "kmnist").symlink_to(stripes)
    monkeypatch.setattr(datasets, "host_answers", lambda: False)
    with pytest.raises(UserError, match="kmnist is not prepared"):
        images.open_source("kmnist", images.MNIST_SHAPE)
    assert (
        images.open_source("./kmnist", images.MNIST_SHAPE).classes
        == images.open_source("stripes", images.MNIST_SHAPE).classes
        == ("lying", "standing")
    )


def test_a_dataset_name_may_have_a_config(nothing_prepared, stripes, monkeypatch):
    monkeypatch.chdir(stripes.parent)
    monkeypatch.setattr(datasets, "host_answers", lambda: False)
    with pytest.raises(UserError, match="emnist/letters is not prepared"):
        images.open_source("emnist/letters", images.MNIST_SHAPE)
    (stripes.parent / "emnist").mkdir()
    (stripes.parent / "emnist" / "letters").symlink_to(stripes)
    assert images.open_source("emnist/letters", images.MNIST_SHAPE).classes == ("lying", "standing")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("mnist-cnn", "nowhere/x", "no file or folder, and no TensorFlow dataset"),
        ("mnist-cnn", "minst", "Did you mean mnist"),
        ("mnist-cnn", "./empty", "at least two classes"),
        ("mnist-cnn", "./letters.txt", "must be an .npz"),
        ("lm-lstm", "./no.txt", "no file or folder no.txt"),
        ("table-mlp", "mnist", "no file or folder mnist; diabetes is the offline sample"),
    ],
)
def test_a_wrong_source_is_refused_without_tensorflow(tmp_path, name, source, message):
    """In another process, which has not imported TensorFlow."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "letters.txt").write_text("abc")
    code = (
        "import sys; from recipes.__main__ import COMMANDS, HELP, command_line; "
        f"status = command_line.run(COMMANDS, HELP, ['train', {name!r}, '--data.source', {source!r}]); "
        "assert 'tensorflow' not in sys.modules; sys.exit(status)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", CATALOG)
def test_the_source_of_every_recipe_passes_the_first_check(name):
    check_source(CATALOG[name].recipe)
