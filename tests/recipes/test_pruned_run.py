"""Finished runs made smaller: pruned step by step, quantised, distilled."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from recipes.catalog import CATALOG
from recipes.compression import prune_run as pruned_run_module
from recipes.compression.prune_run import prune_run
from recipes.compression.quantize import quantize_run
from recipes.config import RunPruning, UserError, with_settings
from recipes.runs.directory import Run
from recipes.runs.files import write_json
from recipes.task import Task
from recipes.tasks import task_of, task_of_run
from recipes.training.losses import added_to_loss, distillation, softened_divergence
from serving.export import export
from tests.processes import assert_refused, run_command
from tests.recipes.test_training import StopAt


@pytest.fixture(scope="module")
def recipe():
    return with_settings(
        CATALOG["mnist-cnn"].recipe,
        {
            "data": {"source": "digits"},
            "model": {"convolutions": (8,), "kernel_size": 3, "dense": (32,)},
            "augmentation": {"rotate": 0.0, "scale": 0.0, "shift": 0.0},
            "training": {"epochs": 3, "batch_size": 64},
        },
    )


@pytest.fixture(scope="module")
def dense(recipe, tmp_path_factory):
    return task_of("mnist-cnn", recipe).train(tmp_path_factory.mktemp("dense") / "run")


def total_bytes(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_units_go_until_the_tolerance_is_reached_and_the_smallest_model_is_exported(dense, tmp_path):
    run = prune_run(
        task_of_run(dense), tmp_path / "run", RunPruning(tolerance=3.0, epochs=1, steps=3, fraction=0.4)
    )
    metrics, before = run.metrics, dense.metrics
    assert metrics["dense_validation_accuracy"] == before["validation_accuracy"]
    assert metrics["validation_accuracy"] >= before["validation_accuracy"] - 0.03
    assert metrics["parameters"] < 0.7 * before["parameters"]
    after = metrics["compression"]["after"]
    assert after["multiply_adds"] < 0.7 * metrics["compression"]["before"]["multiply_adds"]
    assert after["model_bytes"] < metrics["compression"]["before"]["model_bytes"]
    rows = (run.path / "trade_off.csv").read_text().splitlines()
    assert rows[0] == "step,kept,parameters,nonzero_parameters,multiply_adds,validation_accuracy"
    kept = [row.split(",") for row in rows[1:] if ",True," in row]
    assert int(kept[-1][2]) == metrics["parameters"]  # the last that was kept
    assert len(run.history) == metrics["epochs"] == len(kept) - 1  # an epoch a step
    assert task_of_run(run).evaluate()["test_accuracy"] == pytest.approx(metrics["test_accuracy"])
    assert total_bytes(export(run, tmp_path / "models").path) < total_bytes(
        export(dense, tmp_path / "models").path
    )
    assert "<h1>mnist-cnn on digits, pruned</h1>" in (run.path / "report.html").read_text()
    assert (run.path / "plots" / "trade_off.png").exists()


def test_a_run_made_from_one_on_the_offline_sample_keeps_its_warning(dense, tmp_path):
    """Its data are then asked for by name, so that they have no note of their own."""
    shutil.copytree(dense.path, tmp_path / "dense")
    note = "NOT MNIST"
    write_json(tmp_path / "dense/metrics.json", dense.metrics | {"note": note})
    run = quantize_run(task_of_run(Run(tmp_path / "dense")), tmp_path / "run")
    assert run.metrics["note"] == run.environment["data"]["note"] == note
    report = (run.path / "report.html").read_text()
    assert f'role="alert">{note}' in report
    assert "<h1>mnist-cnn on digits, quantised</h1>" in report


def run_recipe(run):
    from recipes.runs.recipe_lookup import recorded_recipe

    return recorded_recipe(run.config)


def test_after_a_step_too_far_half_as_much_goes_from_what_was_kept(dense, tmp_path):
    """A model without 99.9 % of its weights is far off, one without half of them is not."""
    settings = RunPruning(structure="weights", tolerance=20.0, epochs=1, steps=3, fraction=0.999)
    run = prune_run(task_of_run(dense), tmp_path / "run", settings)
    rows = list(csv.DictReader((run.path / "trade_off.csv").read_text().splitlines()))
    weights = sum(row["weights"] for row in run.metrics["sparsity_by_layer"])
    biases = int(rows[0]["parameters"]) - weights
    left, fraction, kept = 1.0, settings.fraction, []
    for row in rows[1:]:
        nonzero = left * (1 - fraction) * weights
        assert nonzero <= int(row["nonzero_parameters"]) <= nonzero + biases + 1
        kept.append(float(row["validation_accuracy"]) >= float(rows[0]["validation_accuracy"]) - 0.2)
        assert row["kept"] == str(kept[-1])
        left, fraction = (left * (1 - fraction), fraction) if kept[-1] else (left, fraction / 2)
    assert kept[:2] == [False, True]
    assert run.metrics["nonzero_parameters"] == int(
        [row for row in rows if row["kept"] == "True"][-1]["nonzero_parameters"]
    )


def test_single_weights_become_0(dense, tmp_path):
    settings = RunPruning(structure="weights", tolerance=5.0, epochs=1, steps=2, fraction=0.5)
    run = prune_run(task_of_run(dense), tmp_path / "run", settings)
    kept = (run.path / "trade_off.csv").read_text().count("True") - 1
    assert kept >= 1
    by_layer = run.metrics["sparsity_by_layer"]
    weights, nonzero = (sum(row[name] for row in by_layer) for name in ("weights", "nonzero"))
    assert nonzero == weights - round(weights * (1 - 0.5**kept))
    after, before = (run.metrics["compression"][name] for name in ("after", "before"))
    assert after["gzipped_bytes"] < 0.8 * before["gzipped_bytes"]
    assert after["multiply_adds"] == before["multiply_adds"]


def test_without_tolerance_for_anything_the_dense_model_stays(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(pruned_run_module, "_within", lambda *_: False)
    monkeypatch.setattr(pruned_run_module, "_check_reproduced", lambda *_: None)
    run = prune_run(task_of_run(dense), tmp_path / "run", RunPruning(epochs=1, steps=1))
    assert run.metrics["parameters"] == dense.metrics["parameters"]
    assert run.metrics["validation_accuracy"] == dense.metrics["validation_accuracy"]


def test_a_pruning_that_died_goes_on_with_its_step(dense, tmp_path, monkeypatch):
    settings = RunPruning(tolerance=100.0, epochs=2, steps=2, distill=True)
    whole = prune_run(task_of_run(dense), tmp_path / "whole", settings)
    train, calls = Task.train, []

    def dying(task, path, **keywords):
        calls.append(path.name)
        if calls == ["01", "02"]:
            keywords["callbacks"] = [StopAt(2, RuntimeError)]
        return train(task, path, **keywords)

    monkeypatch.setattr(Task, "train", dying)
    with pytest.raises(RuntimeError):
        prune_run(task_of_run(dense), tmp_path / "run", settings)
    with pytest.raises(UserError, match="Changed: steps was 2 and is 3"):
        prune_run(task_of_run(dense), tmp_path / "run", dataclasses.replace(settings, steps=3), resume=True)
    again = prune_run(task_of_run(dense), tmp_path / "run", settings, resume=True)
    assert calls == ["01", "02", "02"]
    for one, other in zip(
        keras.models.load_model(whole.model_path).get_weights(),
        keras.models.load_model(again.model_path).get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_int8_weights_make_the_file_smaller_and_cost_little(dense, tmp_path):
    run = quantize_run(task_of_run(dense), tmp_path / "run")
    metrics = run.metrics
    assert metrics["not_quantized"] == ["convolution_1"]
    assert metrics["validation_accuracy"] == pytest.approx(dense.metrics["validation_accuracy"], abs=0.01)
    assert (
        metrics["compression"]["after"]["model_bytes"] < 0.5 * metrics["compression"]["before"]["model_bytes"]
    )
    exported, full = export(run, tmp_path / "models").path, export(dense, tmp_path / "models").path
    assert total_bytes(exported) < 0.7 * total_bytes(full)
    with pytest.raises(UserError, match="int8 weights already"):
        prune_run(task_of_run(run), tmp_path / "other", RunPruning())
    assert not (tmp_path / "other").exists()


def test_the_loss_of_distillation_is_its_formula():
    """Logits (0, log 3) and (0, 0) at temperature 1: KL((1/4, 3/4) || (1/2, 1/2))."""
    image = keras.Input((1,))
    student = keras.Model(image, keras.layers.Dense(2, kernel_initializer="zeros")(image))
    teacher = keras.Model(image, keras.layers.Dense(2, kernel_initializer="zeros")(image))
    teacher.layers[-1].bias.assign([0.0, np.log(3.0)])
    student.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.ones((4, 1), np.float32), np.zeros(4, np.int32)
    divergence = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    for temperature, expected in ((1.0, divergence), (2.0, None)):
        softened = softened_divergence(temperature, from_logits=True)
        with added_to_loss(student, [distillation(teacher, 0.3, softened)]):
            loss = float(student.compute_loss(x, y, student(x), training=True))
            of_labels = float(student.compute_loss(x, y, student(x), training=False))
        if expected is None:
            p = np.sqrt(3) / (1 + np.sqrt(3))
            expected = 4 * (p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p)))
        assert loss == pytest.approx(0.7 * np.log(2) + 0.3 * expected, rel=1e-4)
        assert of_labels == pytest.approx(np.log(2))
        assert float(student.compute_loss(x, y, student(x), training=True)) == of_labels  # as before


def test_a_teacher_with_other_classes_is_refused(dense, recipe, stripes, tmp_path):
    other = with_settings(
        recipe,
        {
            "data": {"source": str(stripes)},
            "distillation": {"teacher": str(dense.path)},
            "training": {"batch_size": 8},
        },
    )
    with pytest.raises(UserError, match="has other outputs"):
        task_of("mnist-cnn", other).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tolerance", "-0.1"], ["tolerance must be at least 0. Received: tolerance=-0.1"]),
        (["--fraction", "1"], ["fraction must be in (0, 1)"]),
        (["--leave-out", "dens_1"], ["no prunable layer 'dens_1'. Did you mean dense_1?"]),
        (["--leave-out", "dense_1", "convolution_1"], ["no prunable layers left"]),
        (["--structure", "unit"], ["'unit'", "units"]),
        (["--resume"], ["--resume needs --run-dir"]),
    ],
)
def test_wrong_ways_to_prune_are_refused_and_leave_nothing(dense, tmp_path, flags, said):
    done = run_command(
        "recipes",
        "prune",
        dense.path,
        *([] if flags == ["--resume"] else ["--run-dir", tmp_path / "run"]),
        *flags,
        cwd=tmp_path,
    )
    assert_refused(done, *said)
    assert not list(tmp_path.iterdir())


def test_a_dense_model_that_misses_the_tolerance_itself_is_refused(dense, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dense.path, copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    write_json(copy / "metrics.json", {**metrics, "validation_accuracy": 1.5})
    with pytest.raises(UserError, match="the dense model itself exceeds it: its validation_accuracy was 1.5"):
        prune_run(task_of_run(Run(copy)), tmp_path / "run", RunPruning())
    (copy / "metrics.json").unlink()
    with pytest.raises(UserError, match="is not a finished run"):
        prune_run(task_of_run(Run(copy)), tmp_path / "run", RunPruning())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_language_model_without_some_heads_and_units_still_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("abcdefghijklmnopqrstuvwxyz" * 100)
    small = with_settings(
        CATALOG["lm-transformer"].recipe,
        {
            "data": {"source": str(tmp_path / "text.txt"), "block_size": 8},
            "model": {"width": 16, "heads": 4, "layers": 2, "feed_forward": 32},
            "training": {"epochs": 2, "steps_per_epoch": 40, "batch_size": 8},
        },
    )
    dense = task_of("lm-transformer", small).train(tmp_path / "dense")
    run = prune_run(
        task_of_run(dense), tmp_path / "run", RunPruning(tolerance=5.0, epochs=1, steps=1, fraction=0.25)
    )
    model = keras.models.load_model(run.model_path)
    assert sum(heads for heads, _ in model.sizes) == 6
    assert sum(hidden for _, hidden in model.sizes) == 48
    written = run_command(
        "recipes", "generate", run.path, "--prompt", "abc", "--max-new-tokens", "20", cwd=tmp_path
    )
    assert written.returncode == 0, written.stderr
    assert len(written.stdout.strip()) == 23
    assert run.model_path.stat().st_size < dense.model_path.stat().st_size
    assert export(run, tmp_path / "models").differences["generate"] == 0.0
    quantized = quantize_run(task_of_run(run), tmp_path / "int8")
    assert quantized.metrics["validation_loss"] == pytest.approx(run.metrics["validation_loss"], abs=0.1)


@pytest.mark.slow
def test_the_latest_run_is_pruned_and_stays_the_latest(dense, tmp_path):
    runs = tmp_path / "runs" / "mnist-cnn"
    shutil.copytree(dense.path, runs / "first")
    (runs / "latest").symlink_to("first")
    flags = ["--tolerance", "5", "--epochs", "1", "--steps", "2"]
    done = run_command("recipes", "prune", "runs/mnist-cnn/latest", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (runs / "latest").readlink() == Path("first")  # a pruned run does not take its name
    (new,) = (Run(path) for path in runs.iterdir() if path.name not in ("first", "latest"))
    assert new.metrics["pruned_from"] == new.environment["made_from"]["run"] == "runs/mnist-cnn/first"
    assert f"report: {Path('runs/mnist-cnn') / new.path.name / 'report.html'}" in done.stdout
    assert "validation_accuracy" in done.stdout
    quantized = run_command("recipes", "quantize", "runs/mnist-cnn/latest", cwd=tmp_path)
    assert quantized.returncode == 0, quantized.stderr
    assert "they stay float32: convolution_1" in quantized.stdout
