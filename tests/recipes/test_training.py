"""Training for real, small: tiny data, tiny models, the one training path."""

import dataclasses
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from recipes import mnist
from recipes import task as task_module
from recipes.catalog import CATALOG
from recipes.config import (
    Augmentation,
    DivergedError,
    EarlyStopping,
    ImageData,
    ImageModel,
    ImageRecipe,
    Optimizer,
    Schedule,
    Training,
    UserError,
    with_settings,
)
from recipes.runs.directory import Run
from recipes.tasks import task_of, task_of_run
from tests.processes import Forked, start_command, wait_until


@pytest.fixture(scope="module")
def recipe(shared_stripes) -> ImageRecipe:
    """Everything that has a memory or a random stream, in one small recipe."""
    return ImageRecipe(
        data=ImageData(source=str(shared_stripes)),
        augmentation=Augmentation(shift=2),
        model=ImageModel(convolutions=(4,), dense=(8,), batch_normalization=True, dropout=0.2),
        optimizer=Optimizer(name="adamw", learning_rate=0.01, moving_average=0.5),
        schedule=Schedule(name="plateau", patience=1, warmup=1.0),
        early_stopping=EarlyStopping(metric="validation_loss"),
        training=Training(epochs=4, batch_size=8),
    )


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory) -> Run:
    """A run of the recipe that was not interrupted."""
    return task_of("mnist-cnn", recipe).train(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def learnt(recipe, tmp_path_factory) -> Run:
    """A run that learns it all: its rate is not lowered."""
    steady = dataclasses.replace(recipe, schedule=Schedule())
    return task_of("mnist-cnn", steady).train(tmp_path_factory.mktemp("learnt") / "run")


def without_seconds(run: Run) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def assert_same_result(one: Run, other: Run) -> None:
    assert without_seconds(one) == without_seconds(other)
    weights, other_weights = (keras.models.load_model(run.model_path).get_weights() for run in (one, other))
    for weight, other_weight in zip(weights, other_weights, strict=True):
        np.testing.assert_array_equal(weight, other_weight)
    drop = ("train_seconds", "compression")  # measured times
    assert {k: v for k, v in one.metrics.items() if k not in drop} == {
        k: v for k, v in other.metrics.items() if k not in drop
    }


class StopAt(keras.callbacks.Callback):
    """Raise in the middle of an epoch, as a crash or Ctrl-C would."""

    def __init__(self, epoch: int, error: type[BaseException]) -> None:
        super().__init__()
        self.epoch, self.error, self.now = epoch, error, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch:
            raise self.error


def test_a_run_learns_and_leaves_what_the_contract_names(recipe, learnt):
    run, metrics = learnt, learnt.metrics
    assert metrics["test_accuracy"] == 1.0
    assert metrics["validation_f1"] == 1.0
    assert metrics["data_source"] == recipe.data.source
    assert metrics["parameters"] == metrics["nonzero_parameters"] + np.sum(
        [np.sum(weight == 0) for weight in keras.models.load_model(run.model_path).get_weights()]
    )
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "environment.json",
        "history.csv",
        "metrics.json",
        "model.keras",
        "plots",
        "report.html",
        "tensorboard",
    ]
    assert sorted(path.name for path in run.plots.iterdir()) == [
        "confusion_matrix.png",
        "learning_curves.png",
        "mistakes.png",
    ]
    assert list(run.history[0]) == [
        "epoch",
        "accuracy",
        "loss",
        "validation_accuracy",
        "validation_loss",
        "learning_rate",
        "batch_size",
        "sparsity",
        "best_validation_loss",
        "seconds",
    ]
    assert list((run.path / "tensorboard" / "validation").glob("events.*"))


class BegunError(Exception):
    """What a test raises where training begins."""


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("mnist-mlp", "digits"),
        ("mnist-pretrained", "digits"),
        ("lm-transformer", "pydoc"),
        ("seq2seq-reverse", "reversal"),
        ("diabetes-mlp", "diabetes"),
    ],
)
def test_no_pass_waits_for_a_thread_that_tunes_it(name, source, tmp_path, monkeypatch):
    """TensorFlow's tuning of a pipeline can make a pass take twice as long: see read_ahead."""
    passes = []

    def fit(model, batches, *, validation_data, **settings):
        passes.extend([batches, validation_data])
        raise BegunError

    monkeypatch.setattr(keras.Model, "fit", fit)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = with_settings(CATALOG[name].recipe, {"data": {"source": source}})
    with pytest.raises(BegunError):
        task_of(name, recipe).train(tmp_path / "run")
    assert [dataset.options().autotune.enabled for dataset in passes] == [False, False]


def test_the_saved_model_needs_nothing_of_this_project(whole, tmp_path):
    code = (
        f"import keras, sys; model = keras.models.load_model({str(whole.model_path)!r}); "
        "assert not any(name.startswith('recipes') for name in sys.modules); print(model.output_shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == "(None, 2)"


def test_one_seed_gives_one_result_and_another_seed_another(recipe, whole, tmp_path):
    same = task_of("mnist-cnn", recipe).train(tmp_path / "same")
    other_recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, seed=1))
    other = task_of("mnist-cnn", other_recipe).train(tmp_path / "other", final=False)
    assert_same_result(whole, same)
    assert without_seconds(whole) != without_seconds(other)


@pytest.mark.parametrize(
    "epoch", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]
)
def test_a_run_that_died_resumes_to_the_very_same_result(recipe, whole, tmp_path, epoch):
    with pytest.raises(MemoryError):
        task_of("mnist-cnn", recipe).train(tmp_path / "died", callbacks=[StopAt(epoch, MemoryError)])
    assert not Run(tmp_path / "died").finished
    resumed = task_of("mnist-cnn", recipe).train(tmp_path / "died", resume=True)
    assert_same_result(whole, resumed)
    assert not resumed.checkpoint.parent.exists()


def test_a_run_that_stopped_early_and_died_then_does_not_train_on(recipe, tmp_path, monkeypatch):
    settings = EarlyStopping(
        metric="validation_loss", patience=1, min_delta=100
    )  # nothing is that much better
    recipe = dataclasses.replace(recipe, early_stopping=settings)
    whole = task_of("mnist-cnn", recipe).train(tmp_path / "whole")
    assert (whole.metrics["epochs"], whole.metrics["best_epoch"]) == (2, 1)

    def die(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(task_module, "save_model", die)
        with pytest.raises(MemoryError):
            task_of("mnist-cnn", recipe).train(tmp_path / "died")
    assert_same_result(whole, task_of("mnist-cnn", recipe).train(tmp_path / "died", resume=True))


def test_ctrl_c_keeps_the_best_weights_and_the_run_can_be_resumed(recipe, whole, tmp_path):
    path = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        task_of("mnist-cnn", recipe).train(path, callbacks=[StopAt(3, KeyboardInterrupt)])
    run = Run(path)
    assert not run.finished
    assert run._read("status.json") == {"status": "interrupted", "reason": "by Ctrl-C in epoch 3"}
    losses = [row["validation_loss"] for row in run.history]
    assert len(losses) == 2
    task = task_of("mnist-cnn", recipe)
    task.load()
    scores = task.score(keras.models.load_model(run.model_path), "validation")
    assert scores.metrics["validation_loss"] == pytest.approx(min(losses), abs=1e-4)
    assert_same_result(whole, task_of("mnist-cnn", recipe).train(path, resume=True))
    assert not (path / "status.json").exists()


def test_a_resume_refuses_other_settings_and_other_data(recipe, stripes, tmp_path):
    recipe = dataclasses.replace(recipe, data=ImageData(source=str(stripes)))
    with pytest.raises(MemoryError):
        task_of("mnist-cnn", recipe).train(tmp_path / "run", callbacks=[StopAt(2, MemoryError)])
    longer = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=9))
    with pytest.raises(UserError, match="Changed: training.epochs was 4 and is 9$"):
        task_of("mnist-cnn", longer).train(tmp_path / "run", resume=True)
    (stripes / "lying" / "00.png").unlink()
    with pytest.raises(
        UserError, match="continues with the data the run began with. Changed: fingerprint was"
    ):
        task_of("mnist-cnn", recipe).train(tmp_path / "run", resume=True)


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(recipe, tmp_path):
    wild = Optimizer(name="sgd", learning_rate=1e30)
    recipe = dataclasses.replace(recipe, optimizer=wild, schedule=Schedule(), augmentation=Augmentation())
    with pytest.raises(DivergedError, match="in epoch 1, by step 5 of 5"):
        task_of("mnist-mlp", recipe).train(tmp_path / "run")
    assert Run(tmp_path / "run")._read("status.json")["status"] == "failed"


def test_a_batch_larger_than_the_data_leaves_no_run_behind(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, training=Training(batch_size=1000))
    with pytest.raises(
        UserError, match="at most the number of training examples, 44. Received: batch_size=1000"
    ):
        task_of("mnist-cnn", recipe).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_scored_on_any_source_with_its_classes(learnt):
    again = task_of_run(learnt).evaluate()
    assert {k: again[k] for k in again if k.startswith("test_")} == pytest.approx(
        {k: learnt.metrics[k] for k in again if k.startswith("test_")}, abs=1e-5
    )
    with pytest.raises(UserError, match="knows the classes lying, standing. Received: 0, 1, 2"):
        task_of_run(learnt, "digits").evaluate()


def train_process(path: Path, epochs: int) -> Forked:
    resume = ["--resume"] if (path / "config.json").exists() else []
    settings = ("--data.source", "digits", "--training.epochs", epochs, "--training.batch-size", 32)
    average = ("--optimizer.moving-average", 0.9)
    where = ("--run-dir", path, *resume)
    return start_command(
        "recipes", "train", "mnist-cnn", *where, *settings, *average, stdout=path.with_suffix(".log")
    )


def kill_and_resume(path: Path, kills: int, epochs: int, seed: int) -> Run:
    """Train in processes of their own, killing each at a random moment after its model is built."""
    moments, log = random.Random(seed), path.with_suffix(".log")
    for number in range(kills):
        process = train_process(path, epochs)
        wait_until(lambda number=number: log.exists() and log.read_text().count(" parameters; ") > number)
        time.sleep(moments.uniform(0, 5))
        process.kill()
        process.wait()
    assert train_process(path, epochs).wait() == 0
    return Run(path)


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_changes_nothing(tmp_path, kills):
    epochs = 5 * kills  # some are left at the last kill
    whole = train_process(tmp_path / "whole", epochs)
    resumed = kill_and_resume(tmp_path / "killed", kills, epochs, seed=int(os.environ.get("KILL_SEED", "0")))
    assert whole.wait() == 0
    assert_same_result(Run(tmp_path / "whole"), resumed)


def test_epochs_at_high_rates_are_not_the_best(recipe, tmp_path):
    late = dataclasses.replace(recipe, early_stopping=EarlyStopping(start_fraction=0.75))
    assert task_of("x", late).train(tmp_path / "run", final=False).metrics["best_epoch"] == 4


@pytest.mark.slow
@pytest.mark.real_mnist
@pytest.mark.parametrize(("name", "accuracy"), [("mnist-mlp", 0.98), ("mnist-cnn", 0.994)])
def test_recipes_reach_their_accuracy_on_real_mnist(tmp_path, name, accuracy):
    recipe = CATALOG[name].recipe
    recipe = dataclasses.replace(recipe, data=ImageData(source="mnist"))
    assert task_of(name, recipe).train(tmp_path / "run").metrics["test_accuracy"] >= accuracy


def test_a_run_that_is_not_final_never_reads_the_test_part(recipe, tmp_path, monkeypatch):
    def refuse():
        raise RuntimeError("the test part was read")

    load = mnist.load_images
    monkeypatch.setattr(
        mnist,
        "load_images",
        lambda *data, **trained: dataclasses.replace(load(*data, **trained), read_test=refuse),
    )
    short = dataclasses.replace(recipe, training=Training(epochs=2, batch_size=8))
    run = task_of("mnist-cnn", short).train(tmp_path / "run", final=False)
    assert run.metrics["validation_accuracy"] > 0
    assert not any(name.startswith("test_") for name in run.metrics)
    assert not (run.path / "report.html").exists()
    with pytest.raises(RuntimeError, match="was read"):
        task_of("mnist-cnn", short).train(tmp_path / "other")
