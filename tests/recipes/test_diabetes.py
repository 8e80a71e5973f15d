"""The regression recipe, trained for real: it takes seconds."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from recipes.catalog import CATALOG
from recipes.compression.prune_run import prune_run
from recipes.config import (
    Distillation,
    Pruning,
    RunPruning,
    TableData,
    TableModel,
    UserError,
)
from recipes.data.table import load_table
from recipes.models.table import build_regression
from recipes.runs.directory import Run
from recipes.tasks import task_of, task_of_run
from recipes.training.losses import added_to_loss, distillation, squared_error
from tests.processes import assert_refused, run_command
from tests.recipes.test_training import StopAt, assert_same_result


@pytest.fixture(scope="module")
def recipe():
    catalogs = CATALOG["diabetes-mlp"].recipe
    return dataclasses.replace(catalogs, training=dataclasses.replace(catalogs.training, epochs=40))


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory) -> Run:
    return task_of("diabetes-mlp", recipe).train(tmp_path_factory.mktemp("diabetes") / "run")


def test_the_parts_share_no_row_and_leave_none_out():
    dataset = load_table(TableData())
    parts = (dataset.train, dataset.validation, dataset.test)
    assert [len(part) for part in parts] == [310, 66, 66]
    rows = np.concatenate([part.features for part in parts])
    assert len(np.unique(rows, axis=0)) == 442
    other = load_table(TableData(split_seed=1))
    assert dataset.fingerprint() != other.fingerprint()


def test_a_network_without_weights_tells_the_mean_in_the_datas_own_unit():
    features, targets = np.float32([[1, 5], [3, 9]]), np.float32([[100], [200]])
    model = build_regression(TableModel(dense=()), features, targets, [0, 0], [False, False])
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
    scores = task_of_run(run).evaluate()
    assert scores["examples"] == 66
    for name in ("test_mse", "test_mae", "test_r2"):
        assert scores[name] == pytest.approx(run.metrics[name], rel=1e-4)


def test_a_stopped_run_goes_on_to_the_same_end(recipe, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        task_of("diabetes-mlp", recipe).train(tmp_path / "run", callbacks=[StopAt(20, KeyboardInterrupt)])
    assert_same_result(task_of("diabetes-mlp", recipe).train(tmp_path / "run", resume=True), run)


def test_it_is_pruned_in_training_and_afterwards(recipe, run, tmp_path):
    pruned = task_of(
        "diabetes-mlp", dataclasses.replace(recipe, pruning=Pruning(sparsity=0.5, frequency=10))
    ).train(
        tmp_path / "a",
    )
    assert pruned.metrics["nonzero_parameters"] <= 61 - 25
    smaller = prune_run(
        task_of_run(run), tmp_path / "b", RunPruning(tolerance=1e6, steps=1, epochs=1, fraction=0.4)
    )
    assert smaller.metrics["parameters"] == 3 * 11 + 4
    assert keras.models.load_model(smaller.model_path).predict(np.zeros((2, 10)), verbose=0).shape == (2, 1)


@pytest.fixture(scope="module")
def sparse(recipe, tmp_path_factory) -> Run:
    """Half of the weights and biases are 0, chosen by step 300; a step of a pruning has fewer."""
    pruning = Pruning(sparsity=0.5, frequency=10, biases=True, settle=300)
    path = tmp_path_factory.mktemp("sparse") / "run"
    return task_of("diabetes-mlp", dataclasses.replace(recipe, pruning=pruning)).train(path)


def test_a_sparse_run_is_pruned_further_from_what_is_left_of_it(sparse, tmp_path):
    settings = RunPruning(structure="weights", tolerance=1e6, steps=2, epochs=3, fraction=0.25)
    run = prune_run(task_of_run(sparse), tmp_path / "run", settings)
    before, after = (keras.models.load_model(each.model_path).trainable_variables for each in (sparse, run))
    for old, new in zip(before, after, strict=True):
        assert not np.any(new.numpy()[old.numpy() == 0])
    # Of 61 half are left, 30: of these three quarters are left, and three quarters of those.
    assert sum(np.count_nonzero(old) for old in before) == 30
    assert sum(np.count_nonzero(new) for new in after) == round(30 * 0.75**2)


def test_a_sparse_run_stays_sparse_where_units_go(sparse, tmp_path):
    run = prune_run(
        task_of_run(sparse), tmp_path / "run", RunPruning(tolerance=1e6, steps=1, epochs=3, fraction=0.4)
    )
    assert run.metrics["parameters"] < sparse.metrics["parameters"]
    assert run.metrics["nonzero_parameters"] < sparse.metrics["nonzero_parameters"]


def test_a_prune_that_prunes_nothing_says_so(run, tmp_path, capsys):
    settings = RunPruning(structure="weights", tolerance=0.0, steps=1, epochs=1, fraction=0.99)
    new = prune_run(task_of_run(run), tmp_path / "new", settings)
    assert new.metrics["nonzero_parameters"] == run.metrics["nonzero_parameters"]
    assert new.metrics["steps_kept"] == 0
    said = (
        f"Nothing was pruned, the model is that of {run.path}: 0 of 1 steps are within the tolerance of 0.0"
    )
    assert said in capsys.readouterr().out
    assert said in (new.path / "report.html").read_text()


def test_a_regression_is_distilled_by_squared_errors():
    """Predictions 3 and 5, the teacher's 1 and 1, targets 0: (0.25 * (9 + 25) + 0.75 * (4 + 16)) / 2."""
    row = keras.Input((1,))
    networks = [keras.Model(row, keras.layers.Dense(1)(row)) for _ in range(2)]
    for network, (slope, offset) in zip(networks, ((2, 1), (0, 1)), strict=True):
        network.set_weights([np.full((1, 1), slope), np.array([offset])])
    student, teacher = networks
    student.compile(loss="mse")
    x, y = np.float32([[1], [2]]), np.zeros((2, 1), np.float32)
    with added_to_loss(student, [distillation(teacher, 0.75, squared_error)]):
        loss = float(student.compute_loss(x, y, student(x), training=True))
    assert loss == pytest.approx((0.25 * 34 + 0.75 * 20) / 2)


def test_a_student_learns_from_the_teacher_alone(recipe, run, tmp_path):
    taught = dataclasses.replace(recipe, distillation=Distillation(teacher=str(run.path), weight=1.0))
    assert task_of("diabetes-mlp", taught).train(tmp_path / "run").metrics["test_r2"] > 0.3


def test_a_temperature_is_for_classes(recipe, tmp_path):
    warm = dataclasses.replace(recipe, distillation=Distillation(temperature=4.0))
    with pytest.raises(UserError, match="distillation.temperature is for classifiers. Received: 4.0"):
        task_of("diabetes-mlp", warm).train(tmp_path / "run")


def test_the_command_line_takes_it(tmp_path):
    done = run_command(
        "recipes",
        "train",
        "diabetes-mlp",
        "--training.epochs",
        "2",
        "--run-dir",
        tmp_path / "run",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "test r2" in done.stdout
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["parameters"] == 61
    assert_refused(
        run_command("recipes", "train", "diabetes-mlp", "--data.source", "mnist", cwd=tmp_path),
        "no file or folder mnist",
        "diabetes",
    )
