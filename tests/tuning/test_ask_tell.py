"""Ask and tell: which worker is given which trial, and that the trials' files alone decide it."""

import json
import math
import threading
import time
from dataclasses import asdict, replace

import pytest

from recipes.config import UserError
from recipes.runs.lock import only_writer
from tests.tuning.conftest import fail, finish, plan_of, search_to_the_end
from tuning import search as search_module
from tuning.search import LEASE_SECONDS
from tuning.trial import Trial, seconds_used


@pytest.fixture
def clock(monkeypatch):
    """Give the time of the search, which the test sets."""
    now = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def statuses(search):
    return [trial.status for trial in search.directory.trials()]


def test_a_trials_file_is_complete_when_it_is_given(make_search):
    search = make_search(plan_of(algorithm="random", trials=2))
    trial = search.ask("a")
    assert search.directory.read_trial(0) == trial
    assert (trial.status, trial.worker, trial.value, trial.ended) == ("running", "a", None, None)
    finish(search, trial, 0.5)
    ended = search.directory.read_trial(0)
    assert (ended.status, ended.worker, ended.value) == ("finished", "a", 0.5)
    assert ended.ended >= ended.started


def test_a_killed_search_continues_with_the_running_trial_and_loses_and_repeats_none(make_search):
    plan = plan_of(algorithm="random", trials=6)
    first = make_search(plan)
    done = first.ask("a")
    finish(first, done, 0.5)
    running = first.ask("a")
    second = make_search(plan)
    again = second.ask("b")
    assert (again.number, again.values) == (running.number, running.values)
    finish(second, again, 0.6)
    assert [trial.number for trial in search_to_the_end(second)] == [2, 3, 4, 5]
    assert statuses(second) == ["finished"] * 6
    assert second.directory.read_trial(0).value == 0.5


def test_a_kill_between_the_folder_and_the_file_of_a_trial_leaves_no_gap(make_search):
    search = make_search(plan_of(algorithm="random", trials=2))
    search.directory.trial_path(0).mkdir()
    assert [trial.number for trial in search_to_the_end(search)] == [0, 1]


def test_a_worker_whose_answer_was_lost_is_given_the_same_trial(make_search):
    search = make_search(plan_of(algorithm="random", trials=5), remote_workers=True)
    lost = search.ask("a")
    again = search.ask("a")
    assert (again.number, again.values) == (lost.number, lost.values)
    assert len(search.directory.trials()) == 1


def test_many_threads_that_ask_and_tell_get_each_trial_once(make_search):
    search = make_search(plan_of(algorithm="random", trials=40))
    asked: list[int] = []

    def run(name):
        while (trial := search.ask(name)) != "end":
            if trial == "wait":
                time.sleep(0.001)
                continue
            asked.append(trial.number)
            finish(search, trial, 0.5)

    threads = [threading.Thread(target=run, args=(f"worker-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asked) == list(range(40))
    assert statuses(search) == ["finished"] * 40


def test_a_silent_worker_loses_its_trial_and_its_late_end_is_ignored(make_search, clock):
    search = make_search(plan_of(algorithm="random", trials=2), remote_workers=True)
    lost, other = search.ask("lost"), search.ask("other")
    assert search.ask("third") == "wait"  # one of the workers may still die
    clock[0] += LEASE_SECONDS + 1
    search.heartbeat(other.number)
    taken = search.ask("third")
    assert (taken.number, taken.worker) == (lost.number, "third")
    finish(search, taken, 0.7)
    finish(search, lost, 0.1)  # it was only slow
    assert search.directory.read_trial(lost.number).value == 0.7
    assert search.ask("third") == "wait"
    finish(search, other, 0.5)
    assert search.ask("third") == "end"


def test_a_heartbeat_keeps_a_trial(make_search, clock):
    search = make_search(plan_of(algorithm="random", trials=1), remote_workers=True)
    trial = search.ask("a")
    for _ in range(10):
        clock[0] += LEASE_SECONDS - 1
        search.heartbeat(trial.number)
        assert search.ask("b") == "wait"
    clock[0] += LEASE_SECONDS + 1
    assert search.ask("b").number == trial.number


def test_workers_that_outlive_a_chief_keep_their_trials(make_search, clock):
    """A new chief gives them a whole lease, however long it took to start it."""
    plan = plan_of(algorithm="random", trials=2)
    trial = make_search(plan, remote_workers=True).ask("a")
    clock[0] += 10 * LEASE_SECONDS
    again = make_search(plan, remote_workers=True)
    assert again.ask("b").number != trial.number
    finish(again, trial, 0.5)
    assert again.directory.read_trial(trial.number).value == 0.5


def test_a_stopped_worker_keeps_its_trial_while_its_process_lives(make_search, clock):
    """Ctrl-Z or a suspended laptop stops it for longer than the lease."""
    search = make_search(plan_of(algorithm="random", trials=2), remote_workers=True)
    stopped, dead = search.ask("stopped"), search.ask("dead")
    with only_writer(search.directory.trial_path(stopped.number)):
        clock[0] += LEASE_SECONDS + 1
        assert search.ask("other").number == dead.number
        assert search.ask("third") == "wait"
    assert search.ask("third").number == stopped.number


def test_an_unknown_trial_is_refused_and_the_lock_is_free(make_search):
    search = make_search(plan_of())
    trial = search.ask("a")
    for call in (lambda: search.tell(replace(trial, number=99)), lambda: search.heartbeat(99)):
        with pytest.raises(KeyError, match="no trial 99"):
            call()
    finish(search, trial, 0.5)


def test_a_fault_in_a_sampler_leaves_the_search_usable(make_search, monkeypatch):
    search = make_search(plan_of(algorithm="random"))

    def fault(*arguments):
        raise FloatingPointError("a singular matrix")

    with monkeypatch.context() as patch:
        patch.setattr(search_module, "propose", fault)
        with pytest.raises(FloatingPointError, match="a singular matrix"):
            search.ask("a")
    assert search.ask("b").number == 0


def test_time_is_counted_over_all_sessions_and_not_between_them(make_search, clock):
    plan = plan_of(algorithm="random", trials=50, seconds=100.0)
    first = make_search(plan)
    trial = first.ask("a")
    clock[0] += 60
    finish(first, trial, 0.5)
    clock[0] += 1000
    second = make_search(plan)
    trial = second.ask("a")
    assert second.directory.deadline(trial) == clock[0] + 40
    clock[0] += 41
    finish(second, trial, 0.5)
    assert second.ask("a") == "end"


def test_parallel_trials_use_their_time_once(make_search, clock):
    search = make_search(plan_of(algorithm="random", trials=4, seconds=100.0))
    running = [search.ask("a"), search.ask("b")]
    clock[0] += 30
    for trial in running:
        finish(search, trial, 0.5)
    assert seconds_used(search.directory.trials()) == 30


def test_a_kill_loses_seconds_of_the_used_time_and_not_all_of_a_trial(make_search, clock):
    """Killed after 3,060 s of 3,600 in the middle of a trial: 540 are left, not 3,600."""
    plan = plan_of(algorithm="random", trials=5, seconds=3600.0)
    killed = make_search(plan)
    trial = killed.ask("a")
    for _ in range(60):
        clock[0] += 51
        killed.heartbeat(trial.number)
    clock[0] += 5000
    again = make_search(plan)
    resumed = again.ask("a")
    assert resumed.number == trial.number
    assert again.directory.deadline(resumed) == pytest.approx(clock[0] + 540)


def write_old_trial(directory, number, **fields):
    """Write a trial's file as the version with oracle.json did."""
    new = ("worker", "sessions", "epoch_limit", "follows")
    tree = asdict(Trial(number=number, values={"training.batch_size": 64, **fields.pop("values")}, **fields))
    directory.trial_path(number).mkdir()
    file = directory.trial_path(number) / "trial.json"
    file.write_text(json.dumps({name: value for name, value in tree.items() if name not in new}))


@pytest.mark.parametrize("remote_workers", [False, True])
def test_a_search_of_an_earlier_version_resumes_from_its_trials_files(make_directory, remote_workers):
    """Its oracle.json is ignored, also if it is damaged; a value that is not finite was called finished."""
    plan = plan_of(algorithm="bayesian", trials=8)
    directory = make_directory(plan)
    (directory.path / "oracle.json").write_text("{")
    ends = [("finished", 0.5), ("finished", math.inf), ("failed", None), ("stopped", None), ("running", None)]
    for number, (status, value) in enumerate(ends):
        ended = None if status == "running" else 1010.0 + 10 * number
        values = {"optimizer.learning_rate": 0.001 * (number + 1)}
        write_old_trial(
            directory,
            number,
            status=status,
            value=value,
            values=values,
            started=1000.0 + 10 * number,
            ended=ended,
        )
    assert seconds_used(directory.trials()) == 40
    search = search_module.Search(directory, remote_workers=remote_workers)
    if remote_workers:
        search.opened -= LEASE_SECONDS + 1
    assert search.ask("a").number == 4
    finish(search, directory.read_trial(4), 0.7)
    assert [trial.number for trial in search_to_the_end(search)] == [5, 6, 7]
    assert statuses(search)[:5] == ["finished", "failed", "failed", "stopped", "finished"]


def test_a_search_whose_trials_are_all_refused_for_one_reason_ends(make_search):
    search = make_search(plan_of(algorithm="random", trials=50))
    for _ in range(3):
        trial = search.ask("a")
        search.tell(replace(trial, status="failed", reason="no file", refused=True))
    assert search.ask("a") == "end"
    assert search.is_over()


def test_refusals_for_different_reasons_do_not_end_a_search(make_search):
    search = make_search(plan_of(algorithm="random", trials=5))
    for reason in ("a", "b", "c"):
        search.tell(replace(search.ask("w"), status="failed", reason=reason, refused=True))
    fail(search, search.ask("w"))
    assert isinstance(search.ask("w"), Trial)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"number": 0, "values": {}, "no_such": 1}'])
def test_a_damaged_trial_is_a_one_line_error(make_search, text):
    search = make_search(plan_of())
    search.directory.trial_path(0).mkdir()
    (search.directory.trial_path(0) / "trial.json").write_text(text)
    with pytest.raises(UserError, match=r"trials/0000/trial\.json is not a trial: .*"):
        search.ask("a")
