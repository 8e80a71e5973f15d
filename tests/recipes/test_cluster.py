"""Several replicas and several processes train one model, as one would alone."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

from recipes.command_line import shell_command
from recipes.config import (
    BatchSchedule,
    ImageRecipe,
    Optimizer,
    Pretraining,
    Pruning,
    Training,
    UserError,
    from_dict,
)
from recipes.distribution.keras_fit_patch import patched_fit
from recipes.distribution.local_cluster import free_addresses
from recipes.distribution.strategy import check_divisible, join
from recipes.distribution.tf_config import Cluster, read_cluster
from recipes.runs.directory import Run
from recipes.tasks import task_of
from tests.processes import (
    NOWHERE,
    Forked,
    assert_refused,
    children,
    kill,
    run_command,
    start_command,
    wait_until,
)

TWO = {"worker": ["a:1", "b:1"]}


def config(cluster, job="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})}


@pytest.mark.parametrize(
    ("cluster", "job", "index", "is_chief"),
    [
        (TWO, "worker", 0, True),
        (TWO, "worker", 1, False),
        ({"chief": ["c:1"], **TWO}, "chief", 0, True),
        ({"chief": ["c:1"], **TWO}, "worker", 0, False),
    ],
)
def test_the_chief_is_the_first_worker_unless_there_is_one_by_name(cluster, job, index, is_chief):
    found = read_cluster(config(cluster, job, index))
    assert isinstance(found, Cluster)
    assert found.is_chief == is_chief
    assert found.size == sum(map(len, cluster.values()))


@pytest.mark.parametrize("text", ["", "{}", '{"cluster": {}}', json.dumps({"cluster": {"worker": ["a:1"]}})])
def test_one_process_is_no_cluster(text):
    assert read_cluster({"TF_CONFIG": text}) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"cluster": {"worker": "a:1"}}', "must be a list of HOST:PORT. Received: 'a:1'"),
        ('{"cluster": {"worker": ["a", "b:1"]}}', "must be a list of HOST:PORT"),
        ('{"cluster": {"worker": ["a:1", "b:99999"]}}', "must be a list of HOST:PORT"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}', "train with chief and worker. Received: ps"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "task must be a JSON object. Received: None"),
        (config(TWO, "chief")["TF_CONFIG"], "task type must be one of worker. Received: 'chief'"),
        (config(TWO, index=2)["TF_CONFIG"], "task index must be 0 to 1. Received: 2"),
        (config({"chief": ["c:1", "d:1"]}, "chief")["TF_CONFIG"], "one chief at most"),
    ],
)
def test_a_malformed_tf_config_is_named(text, said):
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        read_cluster({"TF_CONFIG": text})


def test_the_command_line_refuses_it_before_anything_slow(tmp_path):
    done = run_command(
        "recipes", "train", "mnist-mlp", "--run-dir", tmp_path / "run", TF_CONFIG="{", KERAS_BACKEND="none"
    )
    assert_refused(done, "error: TF_CONFIG is not JSON")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"training": Training(batch_size=9)}, "batch_size must be a multiple"),
        ({"batches": BatchSchedule(name="random")}, "batches must be fixed"),
        ({"optimizer": Optimizer(name="gradient-descent")}, "sgd with training.batch_size"),
        ({"optimizer": Optimizer(clip_norm=1.0)}, "clip its own part"),
        ({"pruning": Pruning(sparsity=0.5)}, "can't be pruned in training"),
        ({"pretraining": Pretraining(epochs=1)}, "no pre-training"),
    ],
)
def test_what_replicas_would_train_otherwise_is_refused(settings, said):
    recipe = ImageRecipe(**settings)
    check_divisible(recipe, 1)
    with pytest.raises(UserError, match=said):
        check_divisible(recipe, 2)


@pytest.mark.parametrize(
    ("settings", "taken", "said"),
    [
        ({}, 2, "2 of 3 GPUs train, GPU:2 left out: with 3 replicas, training.batch_size must be a multiple"),
        ({"training": Training(batch_size=96)}, 3, ""),
        ({"training": Training(batch_size=25)}, 1, "1 of 3 GPUs train, GPU:1, GPU:2 left out: "),
        ({"batches": BatchSchedule(name="random")}, 1, "GPU:1, GPU:2 left out: "),
        ({"training": Training(replicas=1)}, 1, ""),
    ],
)
def test_as_many_gpus_train_as_divide_the_batch(settings, taken, said, monkeypatch, capsys):
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in range(3)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", OnDevices)
    strategy = join("x", ImageRecipe(**settings))
    assert strategy.num_replicas_in_sync == taken
    if taken > 1:
        assert strategy.devices == [f"GPU:{number}" for number in range(taken)]
    out = capsys.readouterr().out
    assert said in out
    assert bool(said) == bool(out)


class OnDevices:
    """A strategy on devices that this machine does not have."""

    def __init__(self, devices):
        self.devices = devices
        self.num_replicas_in_sync = len(devices)


def test_a_keras_that_the_replicas_patch_is_not_for_is_refused(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.99.0")
    with pytest.raises(UserError, match=r"written for Keras 3.15.x.*Received: Keras 3.99.0"):
        join("x", ImageRecipe(training=Training(replicas=2)))


def test_keras_is_patched_for_a_fit_on_several_replicas_only():
    keras_own = trainer.reduce_per_replica
    strategy = OnDevices([])
    for replicas, patched in ((1, False), (2, True)):
        strategy.num_replicas_in_sync = replicas
        with patched_fit(strategy):
            assert (trainer.reduce_per_replica is not keras_own) == patched
        assert trainer.reduce_per_replica is keras_own


def test_more_replicas_than_divide_the_batch_are_refused_where_they_are_asked_for(monkeypatch):
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in range(3)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", OnDevices)
    with pytest.raises(UserError, match="with 3 replicas, training.batch_size must be a multiple"):
        join("x", ImageRecipe(training=Training(batch_size=128, replicas=3)))


def settings(**training):
    """Return settings with each part that is computed in another way on several replicas.

    Of few images: at about one ReLU or max-pooling in 10 million rounding decides where the gradient goes.
    """
    return {
        "data": {"source": "digits", "labels_per_class": 10},
        "model": {"convolutions": [4], "dense": [8], "batch_normalization": True, "members": 2},
        "augmentation": {"shift": 2},
        "regularization": {"l2": 0.001},
        "optimizer": {"name": "momentum", "learning_rate": 0.05, "moving_average": 0.5},
        "training": {"epochs": 1, "batch_size": 20, **training},
    }


def train(tree, path):
    task_of("x", from_dict(ImageRecipe, tree)).train(path, final=False)


def start(tree, path, cluster=None, index=0, stderr=NOWHERE):
    environment = config({"worker": cluster}, "worker", index) if cluster else {}
    process = Forked(train, tree, path, stderr=stderr, **environment)
    process.start()
    return process


def weights(path):
    return keras.models.load_model(path / "model.keras").get_weights()


def test_workers_and_replicas_end_with_the_weights_of_one_process(tmp_path):
    addresses = free_addresses(2)
    processes = {
        "chief": start(settings(), tmp_path / "chief", addresses, 0),
        "worker": start(settings(), tmp_path / "worker", addresses, 1),
        "replicas": start(settings(replicas=2), tmp_path / "replicas"),
        "alone": start(settings(), tmp_path / "alone"),
    }
    for name, process in processes.items():
        assert process.wait(240) == 0, name
    alone = weights(tmp_path / "alone")
    for name in ("chief", "worker", "replicas"):
        for ours, theirs in zip(weights(tmp_path / name), alone, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(), err_msg=name)
    for one, other in zip(weights(tmp_path / "chief"), weights(tmp_path / "worker"), strict=True):
        np.testing.assert_array_equal(one, other)
    losses = {name: Run(tmp_path / name).history[0]["loss"] for name in processes}
    assert losses == pytest.approx(dict.fromkeys(processes, losses["alone"]), rel=1e-4)
    rows = [
        json.dumps([{**row, "seconds": 0} for row in Run(tmp_path / name).history])
        for name in ("chief", "worker")
    ]
    assert rows[0] == rows[1]


def test_a_worker_with_other_settings_stops_all_of_them(tmp_path):
    addresses = free_addresses(2)
    # A file each: they speak at once, and in one they would write into each other's lines.
    chief_said, worker_said = tmp_path / "chief.log", tmp_path / "worker.log"
    chief = start(settings(), tmp_path / "chief", addresses, 0, chief_said)
    worker = start(settings(seed=1), tmp_path / "worker", addresses, 1, worker_said)
    assert (chief.wait(120), worker.wait(120)) == (1, 1)
    assert "UserError: A worker has other settings than the chief" in chief_said.read_text()
    assert "chief's settings. Changed: training.seed was 0 and is 1" in worker_said.read_text()
    assert not (tmp_path / "chief").exists()


@pytest.mark.slow
def test_a_killed_worker_costs_the_epoch_under_way(stripes, tmp_path):
    run, out, errors = tmp_path / "run", tmp_path / "out", tmp_path / "errors"
    flags = ("--data.source", stripes, "--training.epochs", 8, "--training.batch-size", 8, "--run-dir", run)
    process = start_command("recipes", "workers", 2, "mnist-mlp", *flags, stdout=out, stderr=errors)
    wait_until(lambda: has_rows(run, 2))
    kill(sorted(children(process.pid))[1])  # the first is the chief
    status, error = process.wait(), errors.read_text()
    assert status == 0, error
    assert error.count("A process died: restarting all 2 from the last checkpoint") == 1
    assert [row["epoch"] for row in Run(run).history] == list(range(1, 9))
    assert out.read_text().count("epoch 1/8") == 1  # what was done is not done again
    assert (run / "metrics.json").exists()
    assert not (run / "checkpoint").exists()


def test_a_process_that_lost_another_says_so_with_its_own_status(stripes, tmp_path):
    addresses = free_addresses(2)
    flags = ["--data.source", str(stripes), "--training.epochs", "500", "--training.batch-size", "8"]
    run, errors = tmp_path / "run", tmp_path / "errors"
    processes = [
        start_command(
            "recipes", "train", "mnist-mlp", *flags, "--run-dir", run, stderr=stderr,
            **config({"worker": addresses}, "worker", index),
        )
        for index, stderr in ((0, errors), (1, NOWHERE))
    ]  # fmt: skip
    wait_until(lambda: has_rows(run, 1))
    processes[1].kill()
    assert processes[0].wait(120) == 138
    error = errors.read_text()
    (said,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "another worker is gone, in epoch" in said
    again = shell_command("recipes", "train", "mnist-mlp", *flags, "--run-dir", run, "--resume")
    assert error.splitlines()[-2:] == [said, f"Resume, in each process: {again}"]
    assert (run / "checkpoint" / "state.npz").exists()


def has_rows(run: Path, count: int) -> bool:
    return (run / "history.csv").exists() and len(Run(run).history) >= count
