"""A user's own recipe, as examples/own_recipe.py shows it, on every path that the catalog's recipes have."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes import Parts, Training, UserError, own_recipe, train
from recipes.__main__ import evaluate as evaluate_command
from recipes.__main__ import train as train_command
from recipes.compression.prune_run import prune_run
from recipes.config import RunPruning
from recipes.own import OwnTask
from recipes.runs.directory import Run
from recipes.runs.recipe_lookup import find_recipe
from recipes.tasks import task_of_run
from serving.export import export

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_recipe.py"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder outside of the project with the example in it, and nothing else."""
    shutil.copy(EXAMPLE, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recipe(here):
    return dataclasses.replace(
        find_recipe("own_recipe.py").recipe, training=Training(epochs=6, batch_size=16)
    )


class DieAt(keras.callbacks.Callback):
    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise MemoryError


def without_seconds(run: Run) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def test_it_trains_and_leaves_a_run_like_any_other(recipe, here):
    run = train(recipe)
    assert run.path.parent == Path("runs/wine")
    assert (here / "runs" / "wine" / "latest").resolve() == run.path.resolve()
    assert run.metrics["test_accuracy"] > 0.8
    assert run.config["recipe"] == f"{here / 'own_recipe.py'}:recipe"
    assert run.config["model"] == {"units": 32}
    assert task_of_run(run).evaluate(strict=True)["test_accuracy"] == run.metrics["test_accuracy"]
    with pytest.raises(UserError, match="is a run already"):
        train(recipe, run.path)


def test_a_run_that_died_resumes_to_the_very_same_result(recipe):
    whole = train(recipe, Path("whole"))
    with pytest.raises(MemoryError):
        OwnTask("own_recipe.py", recipe).train(Path("died"), callbacks=[DieAt(3)])
    resumed = OwnTask("own_recipe.py", recipe).train(Path("died"), resume=True)
    assert without_seconds(whole) == without_seconds(resumed)
    models = [keras.models.load_model(run.model_path) for run in (whole, resumed)]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_datasets_of_tf_data_train_as_arrays_do(recipe):
    arrays = type(recipe).load_data()
    parts = {name: tf.data.Dataset.from_tensor_slices(getattr(arrays, name)) for name in vars(arrays)}
    streamed = own_recipe(
        "streamed", lambda: Parts(**parts), type(recipe).build, recipe.model, recipe.loss, ["accuracy"],
        optimizer=recipe.optimizer, training=recipe.training,
    )  # fmt: skip
    assert without_seconds(train(recipe, Path("a"))) == without_seconds(train(streamed, Path("b")))


def test_its_weights_are_pruned_and_it_is_served(recipe):
    run = train(recipe)
    settings = RunPruning(structure="weights", tolerance=100.0, epochs=1, steps=1, fraction=0.5)
    pruned = prune_run(task_of_run(run), Path("pruned"), settings)
    assert pruned.metrics["nonzero_parameters"] < 0.6 * run.metrics["nonzero_parameters"]
    done = export(pruned, Path("models"))
    assert done.path == Path("models/wine/1")
    assert max(done.differences.values()) <= 1e-5
    served = tf.saved_model.load(str(done.path)).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite|no finite"):
        served(inputs=tf.fill((2, 13), np.nan))


def test_the_command_line_takes_its_file_and_its_settings(here, capsys):
    train_command(["own_recipe.py", "--model.units", "8", "--training.epochs", "1", "--run-dir", "run"])
    assert json.loads((here / "run" / "config.json").read_text())["model"] == {"units": 8}
    capsys.readouterr()
    evaluate_command(["run"])
    assert json.loads(capsys.readouterr().out)["examples"] == 36


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no.py", "There is no recipe file"),
        ("own_recipe.py:recipy", "defines no recipe 'recipy'. Did you mean recipe?"),
        ("no_such_module:recipe", "There is no module 'no_such_module'"),
        ("wine", "There is no recipe 'wine'"),
    ],
)
def test_what_is_no_recipe_is_refused(here, place, said):
    with pytest.raises(UserError, match=said):
        find_recipe(place)


def small(activation, loss):
    data = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32), np.arange(40) % 3

    def build(settings):
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation)])

    model = find_recipe(str(EXAMPLE)).recipe.model
    training = Training(batch_size=8)
    return own_recipe("small", lambda: Parts(data, data, data), build, model, loss, training=training)


@pytest.mark.parametrize(
    ("activation", "loss", "said"),
    [
        (None, "sparse_categorical_crossentropy", "expects probabilities"),
        ("softmax", keras.losses.SparseCategoricalCrossentropy(from_logits=True), "expects logits"),
    ],
)
def test_outputs_that_do_not_fit_the_loss_are_refused(tmp_path, activation, loss, said):
    with pytest.raises(UserError, match=said):
        train(small(activation, loss), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (([1.0, 2.0], [0]), "the train part must be"),
        ((np.zeros((0, 4)), np.zeros(0)), "must have examples"),
        (tf.data.Dataset.from_generator(lambda: iter([]), tf.int32), "known number"),
    ],
)
def test_parts_that_are_no_data_are_refused(tmp_path, parts, said):
    recipe = small("softmax", "sparse_categorical_crossentropy")
    good = type(recipe).load_data().validation
    build = type(recipe).build
    broken = own_recipe("broken", lambda: Parts(parts, good, good), build, recipe.model, recipe.loss)
    with pytest.raises(UserError, match=said):
        train(broken, tmp_path / "run")


@pytest.mark.slow
def test_its_layer_sizes_are_searched_and_the_winner_is_trained(here):
    flags = [
        "--training.epochs",
        "3",
        "--trials",
        "3",
        "--search-dir",
        "search",
        "--space.model.units",
        "4,64",
    ]
    command = [sys.executable, "-m", "tuning", "search", "own_recipe.py", *flags]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1])}
    subprocess.run(command, cwd=here, env=environment, check=True, timeout=300)
    best = json.loads((here / "search" / "best.json").read_text())
    assert best["model"]["units"] in (4, 64)
    train_command(["own_recipe.py", "--settings", "search/best.json", "--run-dir", "winner"])
    assert Run(Path("winner")).config["model"] == best["model"]
