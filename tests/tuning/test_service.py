"""Chief and workers in processes of their own; each of them is killed or stopped."""

import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.processes import Forked, free_port, run_command, start_command, wait_until
from tests.tuning.conftest import plan_of
from tests.tuning.processes import TINY, assert_complete, ended, trial_processes, trials
from tuning.search import LEASE_SECONDS
from tuning.service import Chief, ChiefClient
from tuning.trial import Trial

LONG = ("--data.source", "digits", "--model.dense", "8", "--training.epochs", "60", "--no-early-ending")


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Forked]]:
    """Give a function that starts a command, whose output goes to a file `log`; kill it at the end of the test."""
    started: list[Forked] = []

    def start(*arguments: object) -> Forked:
        log = tmp_path / "log"
        started.append(start_command("tuning", *arguments, cwd=tmp_path, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


def chief(address, *flags):
    return ("chief", "mnist-mlp", "--search-dir", "s", "--address", address, *flags)


def worker(address):
    return ("worker", "--search-dir", "s", "--address", address, "--threads", 1)


def assert_ended(processes, log):
    """Check that the processes end well."""
    assert [process.wait(300) for process in processes] == [0] * len(processes), log.read_text()


@pytest.mark.slow
def test_two_workers_share_a_chiefs_trials(tmp_path, address, start):
    leader = start(*chief(address, *TINY, "--trials", 4))
    wait_until((tmp_path / "s" / "search.json").exists)
    assert_ended([leader, start(*worker(address)), start(*worker(address))], tmp_path / "log")
    assert "best validation_accuracy" in (tmp_path / "log").read_text()
    assert_complete(tmp_path / "s", 4)
    assert (tmp_path / "s" / "report.html").exists()


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_chief_lose_no_trial(tmp_path, address, start):
    flags = (*LONG, "--trials", 4)
    leader = start(*chief(address, *flags))
    wait_until((tmp_path / "s" / "search.json").exists)
    doomed, other = start(*worker(address)), start(*worker(address))
    wait_until(lambda: len(list((tmp_path / "s").glob("trials/*/seed-0/history.csv"))) == 2)
    doomed.kill()
    wait_until(lambda: ended(tmp_path / "s") >= 1)
    leader.kill()
    leader.join()
    assert_ended([other, start(*chief(address, *flags, "--resume"))], tmp_path / "log")
    assert_complete(tmp_path / "s", 4, epochs=(60,))


@pytest.mark.slow
def test_a_worker_that_is_stopped_for_longer_than_the_lease_keeps_its_trial(tmp_path, address, start):
    """Ctrl-Z stops the worker and the process of its trial."""
    leader = start(*chief(address, *LONG, "--trials", 2))
    wait_until((tmp_path / "s" / "search.json").exists)
    stopped, other = start(*worker(address)), start(*worker(address))
    wait_until(lambda: len(list((tmp_path / "s").glob("trials/*/seed-0/history.csv"))) == 2)
    group = [stopped.pid, *trial_processes(stopped.pid)]
    for pid in group:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 15)  # and the 10 s for which a trial waits for its run
    for pid in group:
        os.kill(pid, signal.SIGCONT)
    assert_ended([leader, stopped, other], tmp_path / "log")
    assert_complete(tmp_path / "s", 2, epochs=(60,))
    for log in (tmp_path / "s").glob("trials/*/log.txt"):
        assert "another process" not in log.read_text()


def test_a_missing_chief_is_an_error_after_the_timeout(tmp_path, address):
    flags = ("--search-dir", "s", "--address", address, "--chief-timeout", 2)
    done = run_command("tuning", "worker", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: No chief answers at {address} for 2 s\n"


def test_a_second_chief_on_the_port_is_refused(tmp_path, address, start):
    start(*chief(address, *TINY))

    def listens():
        host, port = address.split(":")
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex((host, int(port))) == 0

    wait_until(listens)
    flags = ("mnist-mlp", "--search-dir", "t", "--address", address, *TINY)
    done = run_command("tuning", "chief", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: --address {address}: Address already in use\n"
    assert trials(tmp_path / "t") == []


def test_a_client_asks_and_tells_the_same_as_in_the_chiefs_process(make_search, address):
    host, port = address.split(":")
    chief = Chief(make_search(plan_of(algorithm="random", trials=2), remote_workers=True), host, int(port))
    chief.server.start()
    client = ChiefClient(address, 20)
    try:
        first = client.ask("a")
        assert first == chief.search.directory.read_trial(0)
        assert client.ask("a").number == first.number  # the answer was lost
        client.heartbeat(first.number)
        second = client.ask("b")
        assert client.ask("c") == "wait"
        assert not chief.is_done(0)
        client.tell(replace(first, status="finished", value=0.1 + 0.2))
        client.tell(replace(first, status="finished", value=0.9))  # repeated
        client.tell(replace(second, status="finished", value=math.nan))
        assert client.ask("c") == "end"
        assert chief.is_done(0)
        assert not chief.is_done(5)
    finally:
        chief.server.stop(0).wait()
    values = [(trial.status, trial.value) for trial in chief.search.directory.trials()]
    assert values == [("finished", 0.1 + 0.2), ("failed", None)]


def test_a_client_waits_for_a_chief_that_is_started_again(make_search, address):
    host, port = address.split(":")
    plan = plan_of(algorithm="random", trials=2)
    first = Chief(make_search(plan, remote_workers=True), host, int(port))
    first.server.start()
    client = ChiefClient(address, 20)
    trial = client.ask("a")
    first.server.stop(0).wait()
    asked: list[Trial] = []
    waiting = threading.Thread(target=lambda: asked.append(client.ask("a")))
    waiting.start()
    time.sleep(0.5)
    second = Chief(make_search(plan, remote_workers=True), host, int(port))
    second.server.start()
    waiting.join(20)
    second.server.stop(0).wait()
    assert [each.number for each in asked] == [trial.number]
