"""The commands: output, errors and exit statuses."""

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys

import pytest

import recipes.__main__ as main
import serving.__main__ as serving
import tuning.__main__ as tuning
from recipes import command_line
from recipes.catalog import CATALOG
from recipes.config import UserError, flatten, to_dict
from recipes.runs.directory import Run
from recipes.runs.flags import FIRST, unframe
from tests.processes import ROOT, assert_refused, run_command, start_command, wait_until


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian", "mnist-cnn"], ["no command 'trian'", "train?"]),
        (["train", "mnist-cn"], ["no recipe 'mnist-cn'", "mnist-cnn?"]),
        (["train"], ["needs the name of a recipe"]),
        (["train", "mnist-cnn", "--training.epoch", "3"], ["--training.epoch, 3", "--training.epochs?"]),
        (["train", "mnist-cnn", "--training.epochs", "many"], ["--training.epochs", "'many'"]),
        (["train", "mnist-cnn", "--training.epochs", "0"], ["at least 1. Received: epochs=0"]),
        (["train", "mnist-cnn", "--training.batch-size", "0"], ["Received: batch_size=0"]),
        (["train", "mnist-cnn", "--schedule.name", "cosin"], ["'cosin'", "cosine"]),
        (["train", "mnist-cnn", "--resume", "--overwrite"], ["choose one"]),
        (["train", "mnist-cnn", "--resume"], ["there is no run in runs/mnist-cnn"]),
        (["train", "mnist-cnn", "--training.replicas", "0"], ["at least 1 or None. Received: replicas=0"]),
        (["workers", "two", "mnist-cnn"], ["at least 1. Received: two"]),
        (["workers", "2", "mnist-cn"], ["no recipe 'mnist-cn'", "mnist-cnn?"]),
        (["workers", "2", "mnist-cnn", "--training.epochs", "0"], ["at least 1. Received: epochs=0"]),
        (["train", "mnist-cnn", "--model.kernel-size", "40"], ["must be 1 to 28. Received: kernel_size=40"]),
        (["train", "mnist-cnn", "--data.source", "empty"], ["sub-folder for each of at least two classes"]),
        (["train", "lm-transformer", "--data.source", "empty"], ["there is no text in", "empty"]),
        (["train", "table-mlp", "--data.source", "own.csv", "--data.target", "prize"], ["own.csv", "price?"]),
        (["evaluate", "nowhere"], ["nowhere is not a run directory"]),
        (["list", "all"], ["Received: all"]),
    ],
)
def test_wrong_input_is_refused_before_tensorflow_is_imported(tmp_path, arguments, said):
    """With such a backend the import is refused, with other words."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "own.csv").write_text("rooms,price\n3,100\n")
    assert_refused(run_command("recipes", *arguments, cwd=tmp_path, KERAS_BACKEND="none"), *said)
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "own.csv"}


def refusal(capsys, command, *arguments: str) -> str:
    """Run a command in this process and return its error, which must be a line."""
    assert command_line.run({"command": command}, "", ["command", *arguments]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (main.train, ["mnist-mlp", "--training.seed"]),
        (main.train, ["lm-lstm", "--training.seed"]),
        (main.train, ["mnist-mlp", "--data.split-seed"]),
        (main.train, ["diabetes-mlp", "--data.split-seed"]),
        (main.augment, ["mnist-cnn", "--training.seed"]),
        (main.generate, ["runs/lm-lstm/latest", "--seed"]),
        (serving.generate, ["--seed"]),
        (tuning.search, ["mnist-mlp", "--seed"]),
        (tuning.search, ["mnist-mlp", "--executions", "2", "--training.seed"]),
        (tuning.chief, ["mnist-mlp", "--search-dir", "s", "--seed"]),
    ],
)
def test_a_seed_out_of_range_is_refused_in_a_line(tmp_path, monkeypatch, capsys, command, arguments):
    monkeypatch.chdir(tmp_path)
    for seed in (2**32, -1):
        said = refusal(capsys, command, *arguments, str(seed))
        assert "must be 0 to 4294967295" in said
        assert f"seed={seed}" in said
    assert not list(tmp_path.iterdir())


def test_the_seed_of_the_last_execution_must_be_in_range_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--executions", "3", "--training.seed", str(2**32 - 2)]
    assert "4294967294" in refusal(capsys, tuning.search, "mnist-mlp", *flags)


@pytest.mark.parametrize("command", [main.generate, serving.generate])
def test_a_prompt_that_is_not_utf_8_is_refused_in_a_line(monkeypatch, capsys, command):
    run = ["runs/lm-lstm/latest"] if command is main.generate else []
    argument = os.fsdecode(b"abc\xffdef")  # as Python decodes the argument of a shell
    said = refusal(capsys, command, *run, "--prompt", "good", "--prompt", argument)
    assert "--prompt is not UTF-8. Received: byte 0xff at 3" in said
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abcd\xe2\x82"), encoding="utf-8"))
    assert "--prompt is not UTF-8. Received: byte 0xe2 at 4" in refusal(
        capsys, command, *run, "--prompt", "-"
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["list"], 0),
        (["train", "mnist-cnn", "--help"], 0),
        (["train", "--help"], 0),
        (["train", "mnist-cnn", "--training.epochs", "0"], 2),
    ],
)
def test_help_list_and_errors_do_not_import_tensorflow(arguments, status):
    """In a process that has not imported it for other commands."""
    code = (
        "import runpy, sys, atexit; "
        "atexit.register(lambda: print('HEAVY', [m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])); "
        f"sys.argv = ['recipes', *{arguments!r}]; runpy.run_module('recipes', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert "HEAVY []" in done.stdout
    assert "mnist-cnn" in done.stdout or arguments == ["--help"] or status


def settings_of(name: str) -> set[str]:
    return {setting for setting, _ in flatten(to_dict(CATALOG[name].recipe))}


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"^[│ ]+(--[\w.-]+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (main.train, ["mnist-cnn"]),
        (main.train, ["lm-transformer"]),
        (main.workers, ["2", "lm-lstm"]),
        (main.augment, ["mnist-cnn"]),
        (tuning.search, ["mnist-cnn"]),
        (tuning.search, ["lm-transformer"]),
    ],
)
def test_the_help_fits_on_three_screens_and_help_all_has_every_flag(monkeypatch, capsys, command, arguments):
    monkeypatch.setenv("COLUMNS", "100")
    said = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit, match="0"):
            command([*arguments, flag])
        said[flag] = capsys.readouterr().out
    lines = said["--help"].splitlines()
    assert len(lines) <= 72
    assert lines[-1].endswith("--help-all")
    assert {"--data.source", "--training.epochs"} < flags_in(said["--help"]) < flags_in(said["--help-all"])
    every = {f"--{setting.replace('_', '-')}" for setting in settings_of(arguments[-1])}
    assert every < flags_in(said["--help-all"])
    assert int(lines[-1].split()[0]) == len(every - flags_in(said["--help"]))


def test_every_setting_of_the_short_help_exists():
    assert set(FIRST) <= {setting for name in CATALOG for setting in settings_of(name)}


def test_wrong_data_is_refused_and_leaves_nothing(tmp_path):
    run = tmp_path / "run"
    for source, said in [
        ("nowhere/at/all", "no file or folder"),
        (ROOT / "recipes" / "report", "at least two classes"),
        ("fashion_mnst", "fashion_mnist?"),
    ]:
        done = run_command(
            "recipes", "train", "mnist-cnn", "--run-dir", run, "--data.source", source, cwd=tmp_path
        )
        assert_refused(done, said)
        assert not run.exists()


def test_train_then_evaluate_then_resume_then_overwrite(tmp_path, stripes):
    train = [
        "train",
        "mnist-mlp",
        "--data.source",
        stripes,
        "--training.epochs",
        3,
        "--training.batch-size",
        8,
    ]
    done = subprocess.run(  # a process that imports TensorFlow, whose messages are not for the user
        [sys.executable, "-m", "recipes", *map(str, train)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "epoch 3/3" in done.stdout
    run = tmp_path / "runs" / "mnist-mlp" / "latest"
    assert run.is_symlink()
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"test accuracy {metrics['test_accuracy']:.4f}" in done.stdout

    done = run_command("recipes", "evaluate", run, cwd=tmp_path)
    assert json.loads(done.stdout)["test_accuracy"] == metrics["test_accuracy"]
    assert_refused(
        run_command("recipes", "evaluate", run, "--data.source", "digits", cwd=tmp_path), "lying, standing"
    )

    again = run_command("recipes", *train, "--resume", cwd=tmp_path)
    assert again.returncode == 0
    assert "finished already" in again.stdout
    assert_refused(
        run_command("recipes", *train, "--run-dir", run, cwd=tmp_path), "is a run already", "--overwrite"
    )
    for other in (stripes, stripes / "lying" / "00.png"):
        done = run_command("recipes", *train, "--run-dir", other, "--overwrite", cwd=tmp_path)
        assert_refused(done, f"{other} exists and is not a run directory")
    assert (
        run_command("recipes", *train, "--run-dir", run.resolve(), "--overwrite", cwd=tmp_path).returncode
        == 0
    )


@pytest.mark.slow
def test_simultaneous_trainings_have_separate_runs(tmp_path):
    train = ("train", "diabetes-mlp", "--training.epochs", 2, "--training.seed")
    processes = [start_command("recipes", *train, seed, cwd=tmp_path) for seed in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    found = [Run(path) for path in (tmp_path / "runs" / "diabetes-mlp").iterdir() if not path.is_symlink()]
    assert sorted((run.config["training"]["seed"], run.metrics["seed"]) for run in found) == [
        (seed, seed) for seed in range(4)
    ]
    assert len({run.metrics["test_mse"] for run in found}) == 4


def test_ctrl_c_exits_with_130_and_prints_how_to_resume(tmp_path):
    run, errors = tmp_path / "run", tmp_path / "errors"
    flags = ("--run-dir", run, "--data.source", "digits", "--training.epochs", 100_000)
    process = start_command("recipes", "train", "mnist-mlp", *flags, stderr=errors)
    wait_until(lambda: (run / "checkpoint" / "state.npz").exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = errors.read_text()
    assert f" -m recipes train mnist-mlp --resume --run-dir {run}\n" in said
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"
    assert (run / "model.keras").exists()
    assert not (run / "metrics.json").exists()
    assert_refused(run_command("recipes", "evaluate", run, cwd=tmp_path), "not a finished run")
    [finish] = [line.partition(": ")[2] for line in said.splitlines() if " -m recipes finish " in line]
    done = subprocess.run(finish, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "metrics.json").read_text())["status"] == "stopped early by hand"


def test_a_full_disk_is_reported_in_a_line(tmp_path):
    run, errors = tmp_path / "run", tmp_path / "errors"
    flags = ("--run-dir", run, "--data.source", "digits")
    process = start_command("recipes", "train", "mnist-mlp", *flags, stderr=errors)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))  # its files stay smaller
    assert process.wait() == 2
    assert errors.read_text() == "error: File too large\n"
    assert not list((run / "checkpoint").iterdir())


def test_a_framed_error_becomes_a_line():
    frame = "╭─ Oh ─╮\n│ first  │\n│ second │\n│ ────── │\n│ advice │\n╰────────╯\n"
    assert unframe(frame) == "first second"
    plain = " Oh     \n ------ \n  first \n  second\n  ------\n  advice\n"
    assert unframe(plain) == "first second"


def test_another_keras_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(UserError, match="KERAS_BACKEND=torch"), command_line.quiet_tensorflow():
        pass


def test_many_models_in_one_process_get_no_warning_of_retracing(caplog):
    with command_line.quiet_tensorflow():
        import tensorflow as tf

    for _ in range(7):  # one source code, each traced once, as the training loops of seven models
        tf.function(lambda x: x + 1)(tf.constant(1.0))
    assert "retracing" not in caplog.text
