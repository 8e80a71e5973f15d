"""Whole searches, as a user runs them."""

import csv
import functools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.runs.directory import Run
from recipes.tasks import task_of
from tests.processes import ROOT, Forked, gone, kill, start_command, wait_until
from tests.tuning.processes import (
    TINY,
    assert_complete,
    call,
    ended,
    resident_mib,
    trial_processes,
    trials,
)
from tuning import __main__ as commands


def test_a_search_writes_its_files_and_its_best_settings_train_to_the_same_value(tmp_path):
    from recipes.config import with_settings
    from recipes.runs.recipe_lookup import read_settings

    done = subprocess.run(  # a process that imports TensorFlow, whose messages are not for the user
        [sys.executable, "-m", "tuning", "search", "mnist-mlp", *TINY, "--trials", "3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    search = (tmp_path / "searches" / "mnist-mlp" / "latest").resolve()
    assert_complete(search, 3)
    assert (search / "report.html").stat().st_size > 50_000
    rows = list(csv.DictReader((search / "trials.csv").read_text().splitlines()))
    best = max(rows, key=lambda row: float(row["validation_accuracy"]))
    assert f"best validation_accuracy {float(best['validation_accuracy']):.6g}" in done.stdout
    for row in rows:
        (path,) = (search / "trials" / f"{int(row['trial']):04}").glob("seed-*")
        assert Run(path).metrics["validation_accuracy"] == pytest.approx(
            float(row["validation_accuracy"]), abs=1e-5
        )
    found = read_settings("mnist-mlp", search / "best.json")
    assert found.training.epochs == 20
    as_long = with_settings(found, {"training": {"epochs": 2}})
    again = task_of("mnist-mlp", as_long).train(tmp_path / "again")
    assert again.metrics["validation_accuracy"] == pytest.approx(float(best["validation_accuracy"]), abs=0.02)

    (search / "report.html").unlink()
    commands.report([str(search)])
    assert (search / "report.html").exists()


@pytest.fixture
def search(tmp_path, monkeypatch, capsys):
    """Give a function that searches in the directory `s`, and returns its exit status and its errors."""
    monkeypatch.chdir(tmp_path)
    return lambda *flags: call(capsys, commands.search, "mnist-mlp", "--search-dir", "s", *flags)


def test_a_trial_that_fails_says_why_and_the_search_continues(tmp_path, search):
    """A learning rate of 1e30 makes the loss NaN; the others train."""
    space = ("--space.optimizer.learning-rate", "0.001,1e30", "--space.training.batch-size", "64,128")
    assert search(*TINY, *space, "--algorithm", "grid") == (0, "")
    found = trials(tmp_path / "s")
    assert sorted(trial["status"] for trial in found) == ["failed", "failed", "finished", "finished"]
    for trial in found:
        failed = trial["values"]["optimizer.learning_rate"] == 1e30
        assert (trial["status"] == "failed") == failed
        assert ("The training loss became" in trial["reason"]) == failed


@pytest.mark.slow
def test_a_search_without_a_value_says_why_and_exits_with_2(search):
    status, errors = search(*TINY, "--space.optimizer.learning-rate", "1e30,1e31", "--trials", 1)
    assert status == 2
    assert "error: none of 1 trials has a value. The last reason: " in errors
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_search_whose_trials_are_all_refused_ends_with_the_reason(tmp_path, search):
    status, errors = search("--data.source", "nowhere/at/all", "--trials", 50)
    assert status == 2
    assert "error: all of 3 trials failed: data.source: there is no file or folder" in errors
    assert len(trials(tmp_path / "s")) == 3


def start(folder: Path, *flags: object) -> Forked:
    """Start a search in the directory `s` of a folder; its errors go to a file there."""
    where = ("--search-dir", "s")
    return start_command(
        "tuning", "search", "mnist-mlp", *where, *flags, cwd=folder, stderr=folder / "errors"
    )


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_search_that_is_killed_loses_no_trial_and_repeats_none(tmp_path, search, kills):
    moments = random.Random(kills)
    own = (*TINY, "--trials", kills + 2, "--algorithm", "random", "--no-early-ending", "--resume")
    for number in range(kills):
        process = start(tmp_path, *own)
        wait_until(lambda number=number: ended(tmp_path / "s") >= number)
        time.sleep(moments.uniform(0, 4))
        process.kill()
        process.join()
    before = {trial["number"]: trial for trial in trials(tmp_path / "s") if trial["status"] != "running"}
    assert search(*own) == (0, "")
    assert_complete(tmp_path / "s", kills + 2)
    after = {trial["number"]: trial for trial in trials(tmp_path / "s")}
    for number, trial in before.items():
        assert after[number] == trial  # not trained again


@pytest.mark.slow
def test_a_killed_trial_is_resumed_once(tmp_path):
    process = start(tmp_path, *TINY, "--training.epochs", 8, "--trials", 1)
    wait_until(lambda: list((tmp_path / "s").glob("trials/0000/seed-0/history.csv")))
    (trial,) = trial_processes(process.pid)
    kill(trial)
    assert process.wait(120) == 0, (tmp_path / "errors").read_text()
    assert_complete(tmp_path / "s", 1, epochs=(8,))


@pytest.mark.slow
def test_a_trial_that_is_killed_again_has_failed(tmp_path):
    process = start(tmp_path, *TINY, "--training.epochs", 400, "--trials", 1)
    for _ in range(2):
        wait_until(lambda: trial_processes(process.pid))
        (trial,) = trial_processes(process.pid)
        kill(trial)
        wait_until(functools.partial(gone, trial))
    assert process.wait(120) == 2
    assert "ended by SIGKILL, as when memory runs out, 2 times" in (tmp_path / "errors").read_text()
    assert trials(tmp_path / "s")[0]["status"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_search_prints_the_command_to_resume(tmp_path, number):
    process = start(tmp_path, *TINY, "--training.epochs", 400, "--trials", 2)
    wait_until(lambda: list((tmp_path / "s").glob("trials/0000/seed-0/history.csv")))
    process.send_signal(number)
    assert process.wait(60) == 130
    errors = (tmp_path / "errors").read_text()
    assert f"Resume: {sys.executable} -m tuning search mnist-mlp --resume --search-dir s\n" in errors
    assert trials(tmp_path / "s")[0]["status"] == "running"


def test_the_time_limit_ends_the_search_and_its_trials_count(tmp_path, search):
    assert search(*TINY, "--training.epochs", 40_000, "--trials", 9, "--seconds", 5) == (0, "")
    found = trials(tmp_path / "s")
    assert found[-1]["status"] == "stopped"
    assert "time was over" in found[-1]["reason"]
    assert found[-1]["saved_seconds"] == 0  # nothing was saved: there was no time


@pytest.mark.slow
def test_hyperband_continues_the_best_from_their_pause(tmp_path, search):
    assert search(*TINY, "--training.epochs", 3, "--algorithm", "hyperband", "--trials", 6) == (0, "")
    ends = {(trial["epochs"], trial["status"]) for trial in trials(tmp_path / "s")}
    assert ends == {(1, "stopped"), (3, "finished")}
    promoted = [trial for trial in trials(tmp_path / "s") if trial["follows"] is not None]
    assert promoted
    for trial in promoted:
        histories = [
            (tmp_path / "s" / "trials" / f"{number:04}" / "seed-0" / "history.csv").read_text().splitlines()
            for number in (trial["follows"], trial["number"])
        ]
        assert histories[1][: len(histories[0])] == histories[0]  # its first epochs, not trained again
        assert len(histories[1]) == 4


@pytest.mark.slow
def test_two_workers_and_two_seeds_per_trial(tmp_path, search):
    own = ("--trials", 4, "--workers", 2, "--executions", 2, "--no-early-ending")
    assert search(*TINY, *own) == (0, "")
    found = trials(tmp_path / "s")
    assert len(found) == 4
    begun = sorted((trial["started"], trial["ended"]) for trial in found)
    assert begun[1][0] < begun[0][1]  # the second began before the first had ended
    for trial in found:
        runs = [
            Run(path) for path in sorted((tmp_path / "s" / "trials" / f"{trial['number']:04}").glob("seed-*"))
        ]
        values = [each.metrics["validation_accuracy"] for each in runs]
        assert len(values) == 2
        assert trial["value"] == pytest.approx(sum(values) / 2, abs=1e-5)


@pytest.mark.slow
def test_thirty_trials_take_no_more_memory_than_five(tmp_path):
    own = ("--training.epochs", 1, "--trials", 30, "--algorithm", "random", "--no-early-ending")
    search: list[int] = []
    process = start(tmp_path, *TINY, *own)
    for number in range(30):
        wait_until(lambda number=number: ended(tmp_path / "s") > number or process.poll() is not None)
        if process.poll() is None:
            search.append(resident_mib(process.pid))
    assert process.wait() == 0
    of_trials = [trial["memory_mib"] for trial in trials(tmp_path / "s")]
    assert of_trials[29] < 1.1 * of_trials[4]
    assert search[-1] < 1.1 * search[4]
