"""A chief and workers in processes of their own, and what the death of each does."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from types import SimpleNamespace

import grpc
import pytest

from tests.processes import kill, wait_until
from tests.tuning.processes import TINY, assert_whole, ended, run, start, trial_processes, trials
from tuning.distributed import PatientOracle
from tuning.oracles.durable import LEASE_SECONDS

LONG = ("--data.source", "digits", "--model.dense", "8", "--training.epochs", "60", "--no-early-ending")


@pytest.fixture
def address() -> str:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Give a list for processes, which are killed at the test's end."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def chief(address, *flags, cwd):
    return start("chief", "mnist-mlp", "--search-dir", "s", "--address", address, *flags, cwd=cwd)


def worker(address, cwd):
    return start("worker", "--search-dir", "s", "--address", address, "--threads", 1, cwd=cwd)


@pytest.mark.slow
def test_two_workers_share_a_chiefs_trials(tmp_path, address, processes):
    leader = chief(address, *TINY, "--trials", 4, cwd=tmp_path)
    wait_until((tmp_path / "s" / "oracle.json").exists)
    processes += [leader, worker(address, tmp_path), worker(address, tmp_path)]
    for process in processes:
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        if process is leader:
            assert "best validation_accuracy" in output
    assert_whole(tmp_path / "s", 4)
    assert (tmp_path / "s" / "report.html").exists()


@pytest.mark.slow
def test_a_killed_worker_gives_its_trial_back_and_a_killed_chief_goes_on(tmp_path, address, processes):
    flags = (*LONG, "--trials", 4)
    leader = chief(address, *flags, cwd=tmp_path)
    wait_until((tmp_path / "s" / "oracle.json").exists)
    doomed, other = worker(address, tmp_path), worker(address, tmp_path)
    processes += [leader, doomed, other]
    wait_until(lambda: len(list((tmp_path / "s").glob("trials/*/seed-0/history.csv"))) == 2)
    kill(doomed.pid)
    wait_until(lambda: ended(tmp_path / "s") >= 1)
    kill(leader.pid)
    leader.communicate()
    again = chief(address, *flags, "--resume", cwd=tmp_path)
    processes.append(again)
    for process in (other, again):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert_whole(tmp_path / "s", 4, epochs=(60,))


@pytest.mark.slow
def test_a_worker_that_is_stopped_for_longer_than_the_lease_keeps_its_trial(tmp_path, address, processes):
    """As Ctrl-Z stops it: it and the process of its trial."""
    leader = chief(address, *LONG, "--trials", 2, cwd=tmp_path)
    wait_until((tmp_path / "s" / "oracle.json").exists)
    stopped, other = worker(address, tmp_path), worker(address, tmp_path)
    processes += [leader, stopped, other]
    wait_until(lambda: len(list((tmp_path / "s").glob("trials/*/seed-0/history.csv"))) == 2)
    group = [stopped.pid, *trial_processes(stopped.pid)]
    for pid in group:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 15)  # and the 10 s for which a trial waits for its run
    for pid in group:
        os.kill(pid, signal.SIGCONT)
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    assert_whole(tmp_path / "s", 2, epochs=(60,))
    for log in (tmp_path / "s").glob("trials/*/log.txt"):
        assert "another process" not in log.read_text()


def test_a_chief_that_is_not_there_is_said_after_the_time_limit(tmp_path, address):
    done = run("worker", "--search-dir", "s", "--address", address, "--chief-timeout", 2, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: No chief answers at {address} for 2 s\n"


def test_a_second_chief_on_the_port_is_refused(tmp_path, address, processes):
    processes.append(chief(address, *TINY, cwd=tmp_path))

    def listens():
        host, port = address.split(":")
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex((host, int(port))) == 0

    wait_until(listens)
    done = run("chief", "mnist-mlp", "--search-dir", "t", "--address", address, *TINY, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: --address {address}: Address already in use\n"
    assert trials(tmp_path / "t") == []


def test_what_a_dying_chief_did_not_answer_is_asked_again():
    class Died(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

    class Client:
        objective = "validation_accuracy"
        asked = 0

        def get_trial(self, trial_id):
            self.asked += 1
            if self.asked == 1:
                raise Died
            return trial_id

    reached = []
    oracle = PatientOracle(Client(), SimpleNamespace(reach=lambda: reached.append(1)))
    assert oracle.get_trial("0001") == "0001"
    assert oracle.objective == "validation_accuracy"
    assert len(reached) == 2
