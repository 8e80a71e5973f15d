"""SIGKILL at random moments, without training: no trial is lost or counted twice."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recipes.runs.lock import only_writer
from tests.processes import Forked
from tests.tuning.conftest import bowl, plan_of, search_to_the_end
from tuning import worker as worker_module
from tuning.directory import SearchDirectory
from tuning.search import Search
from tuning.service import Chief, ChiefClient

KILLS = 20


def search_in_process(path: Path) -> None:
    """Search to the end, in a process that the test kills."""
    with only_writer(path):
        search_to_the_end(Search(SearchDirectory(path)))


def serve_in_process(path: Path, port: int) -> None:
    """Answer workers as a chief, in a process that the test kills."""
    with only_writer(path):
        chief = Chief(Search(SearchDirectory(path), remote_workers=True), "127.0.0.1", port)
        chief.server.start()
        chief.server.wait_for_termination()


@contextlib.contextmanager
def started(function, *arguments) -> Iterator[Forked]:
    process = Forked(function, *arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def lasting_port() -> int:
    """Return a free port that no other process is given: one below those that the system gives away."""
    while True:
        port = random.randint(10_000, 30_000)
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def assert_unchanged(directory: SearchDirectory, ended: dict[int, object]) -> dict[int, object]:
    """Check the numbers, and that no trial that had ended has changed; return all that have ended."""
    trials = directory.trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    for number, trial in ended.items():
        assert trials[number] == trial
    return {trial.number: trial for trial in trials if trial.status != "running"}


def assert_each_once(directory: SearchDirectory, count: int) -> None:
    trials = directory.trials()
    assert [(trial.number, trial.status) for trial in trials] == [(n, "finished") for n in range(count)]
    assert all(trial.value == bowl(trial.values) for trial in trials)
    assert len({tuple(trial.values.values()) for trial in trials}) == count


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_a_search_that_is_killed_at_random_moments(make_directory, algorithm):
    moments = random.Random(0)
    count = 60 if algorithm == "random" else 25
    directory = make_directory(plan_of(algorithm=algorithm, trials=count))
    ended: dict[int, object] = {}
    for _ in range(KILLS):
        before = len(directory.trials())
        with started(search_in_process, directory.path):
            deadline = time.monotonic() + 60
            while len(directory.trials()) <= before and len(ended) < count and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.02))
        ended = assert_unchanged(directory, ended)
    search_to_the_end(Search(directory))
    assert_unchanged(directory, ended)
    assert_each_once(directory, count)


def test_a_chief_that_is_killed_at_random_moments_while_its_workers_ask_and_tell(make_directory, monkeypatch):
    def train(search, directory, trial, *, threads, stop):
        time.sleep(0.01)
        return replace(trial, status="finished", value=bowl(trial.values))

    monkeypatch.setattr(worker_module, "train_in_process", train)
    moments = random.Random(0)
    directory = make_directory(plan_of(algorithm="random", trials=60))
    port, stop = lasting_port(), threading.Event()

    def work(name):
        worker_module.work(ChiefClient(f"127.0.0.1:{port}", 60), directory, name, threads=1, stop=stop)

    workers = [threading.Thread(target=work, args=(name,), daemon=True) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    ended: dict[int, object] = {}
    try:
        for _ in range(KILLS):
            before = len(directory.trials())
            with started(serve_in_process, directory.path, port) as chief:
                while len(directory.trials()) <= before and len(ended) < 60:
                    assert chief.is_alive()
                    time.sleep(0.005)
                time.sleep(moments.uniform(0, 0.05))
            ended = assert_unchanged(directory, ended)
        with started(serve_in_process, directory.path, port):
            for worker in workers:
                worker.join(120)
                assert not worker.is_alive()
    finally:
        stop.set()
    assert_unchanged(directory, ended)
    assert_each_once(directory, 60)
