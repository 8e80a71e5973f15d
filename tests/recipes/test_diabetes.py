"""The regression recipe, trained for real: it takes seconds."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from recipes import diabetes
from recipes.catalog import CATALOG
from recipes.config import Pruning, RegressionData, RegressionModel, RunPruning
from recipes.data.numbers import load_numbers
from recipes.models.regression import build_regression
from recipes.pruned_run import prune
from recipes.run import Run
from tests.recipes.test_command_line import assert_refused, recipes
from tests.recipes.test_training import StopAt, assert_same_result


@pytest.fixture(scope="module")
def recipe():
    catalogs = CATALOG["diabetes-mlp"].recipe
    return dataclasses.replace(catalogs, training=dataclasses.replace(catalogs.training, epochs=40))


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory) -> Run:
    return diabetes.train("diabetes-mlp", recipe, tmp_path_factory.mktemp("diabetes") / "run")


def test_the_parts_share_no_row_and_leave_none_out():
    dataset = load_numbers(RegressionData())
    parts = (dataset.train, dataset.validation, dataset.test)
    assert [len(part) for part in parts] == [310, 66, 66]
    rows = np.concatenate([part.features for part in parts])
    assert len(np.unique(rows, axis=0)) == 442
    other = load_numbers(RegressionData(split_seed=1))
    assert dataset.fingerprint() != other.fingerprint()


def test_a_network_without_weights_tells_the_mean_in_the_datas_own_unit():
    features, targets = np.float32([[1, 5], [3, 9]]), np.float32([[100], [200]])
    model = build_regression(RegressionModel(dense=()), features, targets)
    assert model.count_params() == 3
    model.layers[-2].set_weights([np.zeros((2, 1)), np.zeros(1)])
    assert model.predict(features, verbose=0).ravel().tolist() == [150, 150]
    # Features are standardized: (3 - 2) / 1 and (9 - 7) / 2 are 1; the targets' deviation is 50.
    model.layers[-2].set_weights([np.ones((2, 1)), np.zeros(1)])
    assert model.predict(features, verbose=0).ravel() == pytest.approx([50, 250], rel=1e-4)


def test_it_explains_as_much_as_a_line_does(run):
    """Least squares on all ten features has an R² of about 0.5 on this data, the mean one of 0."""
    assert run.metrics["test_r2"] > 0.3
    assert run.metrics["validation_r2"] > 0.3
    assert run.metrics["test_mse"] == run.metrics["test_loss"]
    assert 0 < run.metrics["test_mae"] ** 2 < run.metrics["test_mse"]
    assert {"validation_mse", "validation_mae", "validation_r2"} <= set(run.history[0])
    assert (run.path / "report.html").stat().st_size > 20_000
    assert (run.plots / "predictions.png").exists()


def test_the_saved_model_scores_what_the_run_says(run):
    scores = diabetes.evaluate(run, RegressionData())
    assert scores["examples"] == 66
    for name in ("test_mse", "test_mae", "test_r2"):
        assert scores[name] == pytest.approx(run.metrics[name], rel=1e-4)


def test_a_stopped_run_goes_on_to_the_same_end(recipe, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        diabetes.train("diabetes-mlp", recipe, tmp_path / "run", callbacks=[StopAt(20, KeyboardInterrupt)])
    assert_same_result(diabetes.train("diabetes-mlp", recipe, tmp_path / "run", resume=True), run)


def test_it_is_pruned_in_training_and_afterwards(recipe, run, tmp_path):
    pruned = diabetes.train(
        "diabetes-mlp",
        dataclasses.replace(recipe, pruning=Pruning(sparsity=0.5, frequency=10)),
        tmp_path / "a",
    )
    assert pruned.metrics["nonzero_parameters"] <= 61 - 25
    smaller = prune(run, tmp_path / "b", RunPruning(tolerance=1e6, steps=1, epochs=1, fraction=0.4))
    assert smaller.metrics["parameters"] == 3 * 11 + 4
    assert keras.models.load_model(smaller.model_path).predict(np.zeros((2, 10)), verbose=0).shape == (2, 1)


def test_the_command_line_takes_it(tmp_path):
    done = recipes(
        "train", "diabetes-mlp", "--training.epochs", "2", "--run-dir", tmp_path / "run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "test r2" in done.stdout
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["parameters"] == 61
    assert_refused(
        recipes("train", "diabetes-mlp", "--data.source", "mnist", cwd=tmp_path),
        "data.source must be diabetes. Received: 'mnist'",
    )
