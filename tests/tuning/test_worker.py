"""Workers, with trials that nobody trains."""

import threading
from dataclasses import replace

import pytest

from recipes.runs.lock import only_writer
from tests.processes import wait_until
from tests.tuning.conftest import finish, plan_of
from tuning import worker as worker_module
from tuning.search import LEASE_SECONDS
from tuning.worker import work


@pytest.fixture
def search(make_search):
    """Give a search of one trial with remote workers."""
    return make_search(plan_of(algorithm="random", trials=1), remote_workers=True)


def expire_leases(search):
    """Let all workers be silent for longer than the lease."""
    search.opened -= LEASE_SECONDS + 1
    for trial in search.directory.trials():
        search.directory.write_trial(trial.trained_until(trial.last_seen - LEASE_SECONDS - 1))


def run_worker(search, name, stop=None):
    work(search, search.directory, name, threads=1, stop=stop or threading.Event())


def test_a_worker_that_is_stopped_for_longer_than_the_lease_keeps_its_trial(search, monkeypatch):
    others = []

    def train(search, directory, trial, *, threads, stop):
        expire_leases(search)
        others.append(search.ask("other"))
        return replace(trial, status="finished", value=0.5)

    monkeypatch.setattr(worker_module, "train_in_process", train)
    run_worker(search, "stopped")
    assert others == ["wait"]
    (trial,) = search.directory.trials()
    assert (trial.status, trial.value, trial.worker) == ("finished", 0.5, "stopped")


def test_a_trial_that_was_given_to_two_is_trained_and_counted_once(search, monkeypatch):
    """A worker is stopped before it holds its trial, so another one has it; then the first continues."""
    monkeypatch.setattr(
        worker_module, "train_in_process", lambda *_, **__: pytest.fail("it is trained again")
    )
    search.directory.trial_path(0).mkdir()
    late = threading.Thread(target=run_worker, args=(search, "late"), daemon=True)
    with only_writer(search.directory.trial_path(0)):
        late.start()
        wait_until(lambda: search.directory.trials())
        expire_leases(search)
        with monkeypatch.context() as patch:
            patch.setattr(type(search.directory), "is_held", lambda *_: False)  # it was not, at that time
            taken = search.ask("other")
        assert (taken.number, taken.worker) == (0, "other")
        finish(search, taken, 0.7)
    late.join(20)
    assert not late.is_alive()
    (trial,) = search.directory.trials()
    assert (trial.value, trial.worker) == (0.7, "other")


def test_a_worker_that_is_ended_leaves_its_trial_running(search, monkeypatch):
    stop = threading.Event()

    def train(search, directory, trial, *, threads, stop):
        stop.set()

    monkeypatch.setattr(worker_module, "train_in_process", train)
    run_worker(search, "ended", stop)
    (trial,) = search.directory.trials()
    assert trial.status == "running"
    assert not search.directory.is_held(0)
