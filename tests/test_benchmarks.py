"""What the benchmarks record, and the ranges of the short ones."""

import csv
import json
import math

import pytest

from benchmarks import commands, quick
from recipes.catalog import CATALOG


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """Train without training: a run with the accuracy 0.9 + seed / 100; return the rows of the results."""

    def command(*arguments):
        _, _, recipe, _, run, _, seed, *_ = arguments
        run.mkdir()
        metrics = {
            "recipe": recipe,
            "parameters": 100,
            "train_seconds": 2.5,
            "test_accuracy": 0.9 + seed / 100,
        }
        metrics |= {"test_by_class": [], "validation_loss": 0.25}
        (run / "metrics.json").write_text(json.dumps(metrics))
        environment = {"cores": 2, "platform": "Linux", "packages": {"keras": "3.15"}, "git_revision": "abc"}
        (run / "environment.json").write_text(json.dumps(environment))

    monkeypatch.setattr(commands, "command", command)
    results = tmp_path / "results.csv"

    def train(name, seed, *flags):
        commands.train("mnist-cnn", tmp_path / name, *flags, seed=seed, results=results)
        return list(csv.DictReader(results.read_text().splitlines()))

    return train


def test_each_training_has_a_row_for_each_metric_and_another_one_replaces_it(recorded):
    rows = recorded("a", 1, "--data.source", "mnist")
    assert [(row["metric"], row["value"]) for row in rows] == [
        ("parameters", "100"),
        ("test_accuracy", "0.91"),
        ("validation_loss", "0.25"),
    ]
    where = {"seconds": "2.5", "machine": "2 cores, Linux", "versions": "keras-3.15", "git_revision": "abc"}
    key = {"recipe": "mnist-cnn", "flags": "--data.source mnist", "seed": "1"}
    assert key.items() | where.items() <= rows[0].items()
    assert len(recorded("b", 2, "--data.source", "mnist")) == 6
    assert len(recorded("c", 1)) == 9
    assert len(recorded("d", 1, "--data.source", "mnist")) == 9


@pytest.mark.parametrize(("value", "passed"), [(0.5, True), (0.7, True), (0.71, False), (math.nan, False)])
def test_a_figure_must_be_in_its_range(value, passed):
    assert quick.Check("what", "figure", value, 0.5, 0.7).passed is passed


@pytest.mark.parametrize("name", CATALOG)
def test_every_recipe_has_a_short_training(name):
    flags, figure, low, high = quick.short_training(name, CATALOG[name].recipe)
    assert low < high
    assert figure.startswith("test_")
    assert len(flags) % 2 == 0
