"""Unfinished runs: resumed, finished early, replaced, and the commands that are printed about them."""

import contextlib
import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from recipes import __main__ as command
from recipes import mnist
from recipes.catalog import CATALOG
from recipes.config import Recipe, UserError, with_settings
from recipes.runs.directory import Run
from recipes.runs.lock import only_writer
from recipes.tasks import task_of
from recipes.training.callbacks.history import History
from serving.__main__ import export
from tests.recipes.test_training import StopAt, assert_same_result

TINY = {
    "mnist-mlp": {
        "data": {"source": "digits"},
        "model": {"dense": (8,)},
        "optimizer": {"moving_average": 0.9},
        "training": {"epochs": 4, "batch_size": 256},
    },
    "lm-transformer": {
        "data": {"block_size": 8},
        "model": {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8},
        "training": {"epochs": 4, "steps_per_epoch": 4, "batch_size": 4},
    },
    "seq2seq-reverse": {
        "data": {"longest": 4, "held_out": 8},
        "model": {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8},
        "training": {"epochs": 4, "steps_per_epoch": 4, "batch_size": 4},
    },
    "diabetes-mlp": {"training": {"epochs": 4}},
}
TRAIN = ["diabetes-mlp", "--training.epochs", "4"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Work in a new directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def tiny(name: str, tmp_path: Path) -> Recipe:
    recipe = with_settings(CATALOG[name].recipe, {**TINY[name], "schedule": {"warmup": 0.0}})
    if name != "lm-transformer":
        return recipe
    (tmp_path / "text.txt").write_text("abcdefghij" * 60)
    return with_settings(recipe, {"data": {"source": str(tmp_path / "text.txt")}})


def interrupt(name: str, recipe: Recipe, path: Path, *, epoch: int = 3, by=KeyboardInterrupt) -> Run:
    with pytest.raises(by):
        task_of(name, recipe).train(path, callbacks=[StopAt(epoch, by)])
    return Run(path)


@contextlib.contextmanager
def ctrl_c(monkeypatch, epoch: int = 3):
    """Interrupt the training inside in an epoch."""
    original = History.on_epoch_begin

    def begin(history, number, logs=None):
        if number + 1 == epoch:
            raise KeyboardInterrupt
        original(history, number, logs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012 - one call is inside
        patch.setattr(History, "on_epoch_begin", begin)
        yield


def hints(said: str) -> list[list[str]]:
    """Return the arguments of the printed commands."""
    return [shlex.split(line.partition(": ")[2])[3:] for line in said.splitlines() if " -m recipes " in line]


@pytest.mark.parametrize(
    ("name", "by"),
    [
        *(
            pytest.param(name, KeyboardInterrupt, marks=pytest.mark.slow if name == "seq2seq-reverse" else [])
            for name in TINY
        ),
        ("mnist-mlp", MemoryError),
    ],  # like a kill, this saves no model
)
def test_finish_keeps_the_best_epoch_so_far(name, by, tmp_path):
    recipe = tiny(name, tmp_path)
    run = interrupt(name, recipe, Path("runs") / name / "run", by=by)
    kept = keras.models.load_model(run.model_path).get_weights() if by is KeyboardInterrupt else None
    command.finish([str(run.path)])
    metrics, history = run.metrics, run.history
    assert metrics["status"] == "stopped early by hand"
    assert metrics["epochs"] == len(history) == 2
    metric, column = recipe.early_stopping.metric, [row[recipe.early_stopping.metric] for row in history]
    best = max(column) if metric.endswith("accuracy") else min(column)
    assert column[metrics["best_epoch"] - 1] == best == pytest.approx(metrics[metric], rel=1e-3)
    assert any(figure.startswith("test_") for figure in metrics)
    assert (run.path / "report.html").exists()
    assert not run.checkpoint.parent.exists()
    assert not (run.path / "status.json").exists()
    for ours, theirs in zip(
        keras.models.load_model(run.model_path).get_weights(), kept or (), strict=bool(kept)
    ):
        np.testing.assert_array_equal(ours, theirs)
    command.evaluate([f"runs/{name}/latest"])  # it is a finished run now


def test_finish_keeps_the_last_epoch_if_none_may_be_the_best(tmp_path):
    """The kept weights are the validated ones: the moving averages."""
    recipe = tiny("mnist-mlp", tmp_path)
    late = with_settings(recipe, {"early_stopping": {"start_fraction": 0.75}})
    run = interrupt("mnist-mlp", late, Path("run"))
    command.finish(["run"])
    assert run.metrics["best_epoch"] == run.metrics["epochs"] == 2
    assert run.metrics["validation_loss"] == pytest.approx(run.history[1]["validation_loss"], rel=1e-4)


def test_finish_says_why_a_run_cannot_be_finished(tmp_path, capsys):
    recipe = tiny("diabetes-mlp", tmp_path)
    early = interrupt("diabetes-mlp", recipe, Path("early"), epoch=1)
    with pytest.raises(UserError, match=r"early has no completed epoch. Resume: .*--resume --run-dir early$"):
        command.finish(["early"])
    run = interrupt("diabetes-mlp", recipe, Path("run"))
    before = run.history_path.read_bytes()
    with only_writer(run.path), pytest.raises(UserError, match="run is being written by another process"):
        command.finish(["run"])
    shutil.copytree("run", "pruned/steps/01")
    shutil.copy("early/config.json", "pruned/config.json")
    with pytest.raises(UserError, match="It is a part of .*/pruned, which is resumed instead"):
        command.finish(["pruned/steps/01"])
    shutil.copy("early/environment.json", "pruned/environment.json")
    environment = json.loads(Path("pruned/environment.json").read_text())
    environment["made_from"] = {"run": "run", "structure": "units"}
    Path("pruned/environment.json").write_text(json.dumps(environment))
    with pytest.raises(UserError, match="prune run --resume --run-dir pruned"):
        command.finish(["pruned"])
    with pytest.raises(UserError, match="nowhere is not a run directory"):
        command.finish(["nowhere"])
    assert (run.history_path.read_bytes(), run.finished, early.finished) == (before, False, False)
    command.finish(["run"])
    with pytest.raises(UserError, match="run is finished already: run/report.html"):
        command.finish(["run"])


def test_an_interrupted_command_prints_commands_that_work(tmp_path, monkeypatch, capfd):
    command.train([*TRAIN, "--run-dir", "whole"])
    latest = Path("runs/diabetes-mlp/latest")
    for _ in range(2):
        with ctrl_c(monkeypatch):
            command.train(TRAIN)
        resume, finish = hints(capfd.readouterr().err)
        assert (resume[:2], finish[0]) == (["train", "diabetes-mlp"], "finish")
        if not latest.is_symlink():
            command.train(resume[1:])
            resumed = Run(latest.resolve())
        else:
            command.finish(finish[1:])
            assert Run(latest.resolve()).metrics["status"] == "stopped early by hand"
    assert_same_result(Run(Path("whole")), resumed)


def test_resume_without_a_directory_takes_the_newest_unfinished_run(tmp_path, monkeypatch):
    folder = Path("runs/diabetes-mlp")
    with ctrl_c(monkeypatch):
        command.train([*TRAIN, "--run-dir", str(folder / "interrupted")])
    command.train([*TRAIN, "--run-dir", str(folder / "finished")])
    (folder / "claimed").mkdir()  # by a process that was killed
    command.train(["diabetes-mlp", "--resume"])
    assert Run(folder / "interrupted").metrics["epochs"] == 4
    assert (folder / "latest").readlink() == Path("interrupted")


@pytest.mark.parametrize("path", ["no/such/run", "empty"])
def test_a_run_that_did_not_begin_is_not_resumed(path, capsys):
    Path("empty").mkdir()
    with pytest.raises(UserError, match=f"no run has begun in {path}. Without --resume one begins there"):
        command.train([*TRAIN, "--run-dir", path, "--resume"])
    assert [entry.name for entry in Path().iterdir()] == ["empty"]


def test_a_run_in_training_is_not_overwritten(tmp_path):
    recipe = tiny("diabetes-mlp", tmp_path)
    run = interrupt("diabetes-mlp", recipe, Path("run"))
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with only_writer(run.path), pytest.raises(UserError, match="run is being written by another process"):
        command.train([*TRAIN, "--run-dir", "run", "--overwrite"])
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_linked_run_is_overwritten_but_not_latest(tmp_path):
    command.train([*TRAIN, "--run-dir", "run"])
    Path("link").symlink_to("run")
    command.train(["diabetes-mlp", "--training.epochs", "2", "--run-dir", "link", "--overwrite"])
    assert Path("link").is_symlink()
    assert Run(Path("run")).metrics["epochs"] == 2
    with pytest.raises(UserError, match="latest is the link to the newest finished run"):
        command.train([*TRAIN, "--run-dir", "runs/diabetes-mlp/latest"])


def test_an_old_run_whose_defaults_are_null_is_resumed_and_scored(tmp_path):
    recipe = tiny("diabetes-mlp", tmp_path)
    whole = task_of("diabetes-mlp", recipe).train(Path("whole"))
    run = interrupt("diabetes-mlp", recipe, Path("run"))
    config = run.config
    nulls = dataclasses.asdict(recipe)
    assert config["optimizer"] != nulls["optimizer"]
    for group in ("optimizer", "schedule", "batches"):
        config[group] = nulls[group]
    del config["regularization"]["l1"]  # a setting that did not exist yet
    (run.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="Changed: optimizer.beta_1 was 0.9 and is 0.8$"):
        command.train(["diabetes-mlp", "--resume", "--run-dir", "run", "--optimizer.beta-1", "0.8"])
    command.train(["diabetes-mlp", "--resume", "--run-dir", "run"])
    assert_same_result(whole, run)
    command.evaluate(["run"])


def test_a_run_records_the_values_that_were_used(tmp_path):
    recipe = with_settings(
        tiny("diabetes-mlp", tmp_path),
        {
            "optimizer": {"name": "adam"},
            "schedule": {"name": "wsd"},
            "batches": {"name": "random"},
            "pruning": {"sparsity": 0.5},
            "training": {"batch_size": 31},  # ten steps per epoch
        },
    )
    config = task_of("diabetes-mlp", recipe).train(Path("run")).config
    assert (config["optimizer"]["beta_1"], config["optimizer"]["beta_2"]) == (0.9, 0.999)
    assert (config["schedule"]["decay_fraction"], config["schedule"]["final_fraction"]) == (0.2, 0.0)
    assert config["batches"]["largest"] == 512
    assert 0 < config["pruning"]["end"] < config["pruning"]["settle"] < 40
    assert config["early_stopping"]["patience"] is None  # never stops early
    assert config["optimizer"]["momentum"] is None  # adam has none
    # Flags can choose another optimizer and schedule than those of the file.
    other = [
        "--optimizer.name",
        "sgd",
        "--optimizer.learning-rate",
        "1e-5",
        "--schedule.name",
        "cosine",
        "--batches.name",
        "fixed",
    ]
    flags = [*other, "--pruning.sparsity", "0", "--run-dir", "other"]
    command.train(["diabetes-mlp", "--settings", "run/config.json", *flags])
    assert Run(Path("other")).config["optimizer"]["beta_1"] is None


def test_changed_data_is_refused_by_evaluate(stripes, capsys):
    flags = ["--data.source", str(stripes), "--training.epochs", "1", "--training.batch-size", "8"]
    command.train(["mnist-mlp", *flags, "--run-dir", "run"])
    capsys.readouterr()
    command.evaluate(["run"])
    same = capsys.readouterr()
    assert json.loads(same.out)["note"] == same.err == ""
    for number in range(20):
        shutil.copy(stripes / "lying" / f"{number:02}.png", stripes / "lying" / f"more-{number:02}.png")
    with pytest.raises(UserError) as refused:
        command.evaluate(["run"])
    said, anyway = str(refused.value).splitlines()
    assert "run was trained on other data than" in said
    assert "fingerprint was" in said
    assert "train_examples was 44 and is 58" in said
    [[_, *arguments]] = hints(anyway)
    assert arguments == ["run", "--data.source", str(stripes)]
    command.evaluate(arguments)
    scored = capsys.readouterr()
    assert "train_examples was 44 and is 58" in scored.err
    assert "What is scored here may have been trained on" in scored.err
    assert json.loads(scored.out)["note"] in scored.err


def test_a_score_on_another_source_has_a_note(tmp_path, capsys):
    path = task_of("mnist-mlp", tiny("mnist-mlp", tmp_path)).train(Path("run")).path
    digits = mnist.load_images(CATALOG["mnist-mlp"].recipe.data.__class__(source="digits"))
    arrays = {"x_train": digits.train.images, "y_train": digits.train.labels}
    test = {"x_test": digits.validation.images, "y_test": digits.validation.labels}
    np.savez("mine.npz", **arrays, **test)
    capsys.readouterr()
    command.evaluate([str(path), "--data.source", "mine.npz"])
    scored = capsys.readouterr()
    assert json.loads(scored.out)["note"].endswith(
        "mine.npz is not the data that run was trained on: that was digits"
    )
    assert scored.err.startswith("WARNING: ")


def test_a_damaged_model_is_refused_in_a_line(tmp_path):
    run = task_of("mnist-mlp", tiny("mnist-mlp", tmp_path)).train(Path("run"))
    whole = run.model_path.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "empty": b"",
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes(64) + whole[middle + 64 :],
    }
    for content in damaged.values():
        run.model_path.write_bytes(content)
        for use in (command.evaluate, command.prune, export):
            with pytest.raises(UserError, match=r"run/model.keras is missing or damaged: .+") as refused:
                use(["run"])
            assert "\n" not in str(refused.value)
    assert not list(Path().glob("runs/mnist-mlp/*"))
    assert not Path("models").exists()


def test_a_run_of_an_unknown_recipe_is_refused(tmp_path):
    run = task_of("diabetes-mlp", tiny("diabetes-mlp", tmp_path)).train(Path("run"))
    for name in ("config", "metrics"):
        path = run.path / f"{name}.json"
        path.write_text(path.read_text().replace('"diabetes-mlp"', '"diabetes-mpl"'))
    for refused in (command.evaluate, command.prune, command.quantize, command.finish):
        with pytest.raises(UserError, match="There is no recipe 'diabetes-mpl'. Did you mean diabetes-mlp?"):
            refused(["run"])
    assert not Path("runs").exists()


def test_a_teacher_of_another_task_is_refused_in_a_line(tmp_path):
    task_of("diabetes-mlp", tiny("diabetes-mlp", tmp_path)).train(Path("teacher"))
    for name in ("mnist-mlp", "lm-transformer", "seq2seq-reverse"):
        recipe = with_settings(tiny(name, tmp_path), {"distillation": {"teacher": "teacher"}})
        with pytest.raises(UserError, match="teacher is a run of diabetes-mlp, which is another task"):
            task_of(name, recipe).train(Path("run"))
    assert not Path("run").exists()


def test_an_interrupted_pruning_prints_a_command_that_works(tmp_path, monkeypatch, capfd):
    task_of("diabetes-mlp", tiny("diabetes-mlp", tmp_path)).train(Path("dense"))
    flags = ["--tolerance", "1e6", "--steps", "1", "--epochs", "3", "--fraction", "0.4"]
    with ctrl_c(monkeypatch):
        command.prune(["dense", *flags])
    (resume,) = hints(capfd.readouterr().err)
    path = Path(resume[-1])
    with pytest.raises(
        UserError, match="not a run of its own training. Resume: .* prune dense --resume --run-dir"
    ):
        command.train(["diabetes-mlp", "--resume", "--run-dir", str(path)])
    with pytest.raises(UserError, match="there is no run in runs/diabetes-mlp"):
        command.train(["diabetes-mlp", "--resume"])
    assert resume[0] == "prune"
    command.prune(resume[1:])
    assert Run(path).metrics["parameters"] == 3 * 11 + 4
    assert not (path.parent / "latest").is_symlink()
    with pytest.raises(UserError, match="is a run already: --resume continues it$"):
        command.prune(["dense", "--run-dir", str(path)])
