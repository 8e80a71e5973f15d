"""Workers of a search, with trials that nobody trains."""

import threading
from dataclasses import replace

import pytest

from recipes.runs.lock import only_writer
from tests.processes import wait_until
from tests.tuning.conftest import plan_of
from tuning import processes
from tuning.oracles import build_oracle
from tuning.plan import Trial
from tuning.tuner import RecipeTuner


@pytest.fixture
def searching(search):
    """Give a search with its oracle."""

    def make(plan):
        directory = search(plan)
        return directory, build_oracle(plan, directory)

    return make


def worker(directory, oracle, name):
    tuner = RecipeTuner(oracle, directory, threads=1, stop=threading.Event(), tell=lambda *progress: None)
    tuner.tuner_id = name
    return tuner


def test_a_worker_that_is_stopped_for_longer_than_the_lease_keeps_its_trial(searching, monkeypatch):
    directory, oracle = searching(plan_of(algorithm="random", trials=1))
    others = []

    def train(order, tell, alive, stop):
        oracle.heard["stopped"] -= 36
        others.append(oracle.create_trial("other").status)
        return replace(order.trial, status="finished", value=0.5)

    monkeypatch.setattr(processes, "run", train)
    worker(directory, oracle, "stopped").search()
    assert others == ["IDLE"]
    assert oracle.end_order == ["0000"]
    assert oracle.trials["0000"].score == directory.read_trial(0).value == 0.5


def test_a_trial_that_was_given_to_two_is_trained_and_counted_once(searching, monkeypatch):
    """A worker was stopped before it held its trial, so another has it; then the first continues."""
    directory, oracle = searching(plan_of(algorithm="random", trials=1))
    monkeypatch.setattr(processes, "run", lambda *_: pytest.fail("it is trained again"))
    directory.trial_path(0).mkdir()
    late = worker(directory, oracle, "late")
    thread = threading.Thread(target=late.search, daemon=True)
    with only_writer(directory.trial_path(0)):
        thread.start()
        wait_until(lambda: oracle.ongoing_trials)
        oracle.heard["late"] -= 36
        with monkeypatch.context() as other:
            other.setattr(directory.__class__, "is_held", lambda *_: False)  # it was not, at that time
            taken = oracle.create_trial("other")
        assert taken.trial_id == "0000"
        values = taken.hyperparameters.values
        directory.write_trial(Trial(number=0, values=values, status="finished", value=0.7))
    oracle.update_trial("0000", {"validation_accuracy": 0.7})
    taken.status = "COMPLETED"
    oracle.end_trial(taken)
    thread.join(20)
    assert not thread.is_alive()
    assert oracle.end_order == ["0000"]
    assert oracle.trials["0000"].score == directory.read_trial(0).value == 0.7
