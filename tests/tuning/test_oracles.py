import itertools
import json
import math
import threading
import time

import pytest
from keras_tuner.engine.trial import TrialStatus

from recipes.config import UserError
from recipes.runs.lock import only_writer
from recipes.runs.settings import with_settings
from tests.tuning.conftest import TINY, bowl, plan_of
from tuning.oracles import build_oracle
from tuning.plan import Method, SearchDirectory, Trial, make_plan

NARROW = {"training.batch_size": "32:128", "optimizer.learning_rate": "0.001,0.01"}


def ask(oracle, worker="a"):
    return oracle.create_trial(worker)


def finish(oracle, trial, value, status="COMPLETED"):
    if status == "COMPLETED":
        oracle.update_trial(trial.trial_id, {oracle.objective.name: value})
    trial.status = status
    oracle.end_trial(trial)


def search_to_the_end(oracle, value_of=bowl):
    seen = []
    while (trial := ask(oracle)).status == TrialStatus.RUNNING:
        values = trial.hyperparameters.values
        seen.append(values)
        finish(oracle, trial, value_of(values))
    assert trial.status == TrialStatus.STOPPED
    return seen


@pytest.mark.parametrize("algorithm", ["bayesian", "random"])
def test_the_first_trial_is_the_recipe_as_it_is(oracle, algorithm):
    trial = ask(oracle(plan_of(algorithm=algorithm)))
    assert trial.hyperparameters.values == {
        "training.batch_size": 64, "optimizer.learning_rate": 0.001
    }  # fmt: skip


def test_the_number_of_trials_is_kept_by_every_algorithm(oracle, tmp_path):
    for algorithm in ("bayesian", "random", "grid", "hyperband"):
        (tmp_path / "oracle.json").unlink(missing_ok=True)
        assert len(search_to_the_end(oracle(plan_of(algorithm=algorithm, trials=7)))) == 7


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_searches_of_neighbouring_seeds_try_different_values(oracle, tmp_path, algorithm):
    tried = []
    for seed in range(4):
        (tmp_path / "oracle.json").unlink(missing_ok=True)
        seen = search_to_the_end(oracle(plan_of(algorithm=algorithm, trials=5, seed=seed)))
        tried.append({values["optimizer.learning_rate"] for values in seen[1:]})
    assert len(set.union(*tried)) == sum(map(len, tried))


def test_the_bayesian_search_finds_the_top_and_beats_random_values(oracle, tmp_path):
    best = {}
    for algorithm in ("bayesian", "random"):
        scores = []
        for seed in range(2):
            (tmp_path / "oracle.json").unlink(missing_ok=True)
            seen = search_to_the_end(oracle(plan_of(algorithm=algorithm, trials=12, seed=seed)))
            scores.append(max(map(bowl, seen)))
        best[algorithm] = sum(scores) / 2
    assert best["bayesian"] > 0.995
    assert best["bayesian"] > best["random"]


def test_the_bayesian_search_never_tries_what_it_has_tried(oracle):
    """Where the top lies between two batch sizes, points between them must not be rounded to one of them."""
    between = plan_of({"training.batch_size": "64,128"}, algorithm="bayesian", trials=16)
    seen = search_to_the_end(oracle(between))
    rates = {64: [], 128: []}
    for values in seen:
        rates[values["training.batch_size"]].append(math.log10(values["optimizer.learning_rate"]))
    for places in rates.values():
        gaps = [b - a for a, b in itertools.pairwise(sorted(places))]
        assert min(gaps) > 0.06  # 0.03 of two decades


def test_the_bayesian_search_ends_when_all_choices_are_tried(oracle):
    seen = search_to_the_end(oracle(plan_of(NARROW, algorithm="bayesian", trials=100)))
    assert len({tuple(values.values()) for values in seen}) == len(seen) == 6


def test_one_terrible_value_does_not_hide_the_good_ones(oracle):
    """Above 0.004 the training diverges: with it, or a bit below, lies the top."""
    cliff = lambda values: -1e6 if values["optimizer.learning_rate"] > 0.004 else bowl(values)  # noqa: E731
    seen = search_to_the_end(oracle(plan_of(algorithm="bayesian", trials=14)), cliff)
    assert max(map(cliff, seen)) > 0.99


def test_the_bayesian_search_begins_near_the_recipes_own_values(oracle):
    """Own values: 64 of 16 to 256, 0.001 of 0.0001 to 0.01. Even draws would be as far as half of the range."""
    seen = search_to_the_end(oracle(plan_of(algorithm="bayesian", trials=5)))
    decades = [abs(math.log10(values["optimizer.learning_rate"] / 0.001)) for values in seen]
    assert decades[0] == 0
    assert 0.05 < sum(decades[1:]) / 4 < 0.5  # the mean of |x| is 0.8 of 0.4 decades, or a bit less
    assert len({tuple(values.values()) for values in seen}) == 5


def test_grid_tries_each_combination_once_whatever_interrupts_it(oracle):
    plan = plan_of(NARROW, algorithm="grid", trials=100)
    seen = []
    while True:
        again = oracle(plan)  # a new process for each trial
        trial = ask(again)
        if trial.status == TrialStatus.STOPPED:
            break
        seen.append(tuple(trial.hyperparameters.values.values()))
        finish(again, trial, 0.5)
    assert sorted(seen) == [(batch, rate) for batch in (32, 64, 128) for rate in (0.001, 0.01)]


def test_hyperband_gives_the_best_more_epochs_and_says_whom_they_follow(oracle):
    nine = with_settings(TINY, {"training": {"epochs": 9}})
    plan = make_plan("mnist-mlp", nine, {}, Method(algorithm="hyperband", trials=17))
    seen = search_to_the_end(oracle(plan))
    assert {values["tuner/epochs"] for values in seen} == {1, 3, 9}
    promoted = [values for values in seen if "tuner/trial_id" in values]
    assert promoted
    for values in promoted:
        before = seen[int(values["tuner/trial_id"])]
        assert values["tuner/initial_epoch"] == before["tuner/epochs"]
        assert values["optimizer.learning_rate"] == before["optimizer.learning_rate"]


def test_a_killed_search_goes_on_with_the_trial_that_ran_and_loses_and_repeats_none(oracle):
    plan = plan_of(algorithm="random", trials=6)
    first = oracle(plan)
    done = ask(first)
    finish(first, done, 0.5)
    running = ask(first)
    again = oracle(plan)
    assert again.trials[done.trial_id].score == 0.5
    retried = ask(again)
    assert retried.trial_id == running.trial_id
    assert retried.hyperparameters.values == running.hyperparameters.values
    finish(again, retried, 0.6)
    rest = search_to_the_end(again)
    assert len(rest) == 4
    assert again.end_order == ["0000", "0001", "0002", "0003", "0004", "0005"]


def test_the_state_is_whole_after_every_change(oracle, tmp_path, monkeypatch):
    plan = plan_of(algorithm="random", trials=3)
    built = oracle(plan)
    states = []
    write = built.write

    def written():
        write()
        states.append(json.loads((tmp_path / "oracle.json").read_text()))

    monkeypatch.setattr(built, "write", written)
    search_to_the_end(built)
    assert len(states) == 6  # a beginning and an end of each
    for state in states:
        running = set(state["oracle"]["ongoing_trials"].values())
        for trial in state["trials"]:
            assert (trial["status"] == "RUNNING") == (trial["trial_id"] in running)


def test_the_time_is_counted_over_all_sessions(oracle, monkeypatch):
    plan = plan_of(algorithm="random", trials=50, seconds=100.0)
    built = oracle(plan)
    monkeypatch.setattr(built, "began", built.began - 60)
    trial = ask(built)
    finish(built, trial, 0.5)
    again = oracle(plan)
    assert 39 < again.seconds_left <= 40
    monkeypatch.setattr(again, "began", again.began - 41)
    assert ask(again).status == TrialStatus.STOPPED


def test_a_silent_worker_loses_its_trial_to_another_and_its_late_end_counts_once(oracle):
    built = oracle(plan_of(algorithm="random", trials=2))
    lost, other = ask(built, "lost"), ask(built, "other")
    assert ask(built, "third").status == TrialStatus.IDLE  # one may still die
    built.heard["lost"] -= 31
    taken = ask(built, "third")
    assert taken.trial_id == lost.trial_id
    finish(built, taken, 0.7)
    finish(built, lost, 0.1)  # it was only slow
    assert built.trials[lost.trial_id].score == 0.7
    finish(built, other, 0.5)
    assert built.end_order.count(lost.trial_id) == 1
    assert ask(built, "third").status == TrialStatus.STOPPED


def test_asking_for_ones_trial_is_a_sign_of_life(oracle):
    built = oracle(plan_of(algorithm="random", trials=2))
    trial = ask(built, "a")
    built.heard["a"] -= 31
    built.get_trial(trial.trial_id)
    built.give_back_lost()
    assert list(built.ongoing_trials) == ["a"]


def test_workers_that_outlive_a_chief_keep_their_trials(oracle):
    plan = plan_of(algorithm="random", trials=2)
    trial = ask(oracle(plan), "a")
    again = oracle(plan, workers_live=True)
    assert ask(again, "b").trial_id != trial.trial_id
    finish(again, again.get_trial(trial.trial_id), 0.5)
    assert again.end_order == [trial.trial_id]


def test_a_failed_trial_is_not_come_back_to(oracle):
    """All learning rates above 0.003 fail: the search stays below, as it does where they are bad."""
    built = oracle(plan_of(algorithm="bayesian", trials=14))
    failed = []
    while (trial := ask(built)).status == TrialStatus.RUNNING:
        rate = trial.hyperparameters.values["optimizer.learning_rate"]
        failed.append(rate > 0.003)
        if failed[-1]:
            finish(built, trial, math.nan, "FAILED")
        else:
            finish(built, trial, 0.5 + 0.1 * math.log10(rate / 0.0001))
    assert sum(failed[6:]) <= 4
    assert len(failed) == 14


def test_an_unknown_trial_is_refused_and_the_lock_is_free(oracle):
    built = oracle(plan_of())
    trial = ask(built)
    for call in (lambda: built.update_trial("0099", {"x": 1.0}), lambda: built.get_trial("0099")):
        with pytest.raises(KeyError, match="no trial '0099'"):
            call()
    finish(built, trial, 0.5)


@pytest.mark.parametrize("algorithm", ["bayesian", "random", "hyperband"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_failure_and_the_search_goes_on(oracle, algorithm, bad):
    built = oracle(plan_of(algorithm=algorithm, trials=8))
    values = iter([0.5, bad, 0.6, 0.7, bad, 0.8, 0.4, 0.3])
    search_to_the_end(built, lambda _: next(values))
    assert [trial.status for trial in built.trials.values()].count("FAILED") == 2
    assert max(trial.score for trial in built.trials.values() if trial.status == "COMPLETED") == 0.8


def test_a_search_with_an_infinite_value_of_an_older_version_resumes(search):
    """The older version called it finished, in its own file and in oracle.json."""
    plan = plan_of(algorithm="bayesian", trials=8)
    directory = search(plan)
    first = build_oracle(plan, directory)
    for number, value in enumerate([0.5, 0.6, 0.7, 0.8]):
        trial = ask(first)
        values = trial.hyperparameters.values
        directory.write_trial(Trial(number=number, values=values, status="finished", value=value))
        finish(first, trial, value)
    state = json.loads(directory.oracle_path.read_text())
    state["trials"][1].update(score=math.inf, status="COMPLETED")
    directory.oracle_path.write_text(json.dumps(state))
    file = directory.trial_path(1) / "trial.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"value": math.inf}))
    again = build_oracle(plan, directory)
    again.read(workers_live=False)
    assert again.trials["0001"].status == "FAILED"
    assert len(search_to_the_end(again)) == 4


def test_how_a_trial_ended_is_in_its_own_file_whatever_oracle_json_says(search):
    """Kills came between a trial's own end and the oracle's, and an older version gave one trial to two."""
    plan = plan_of(algorithm="random", trials=5)
    directory = search(plan)
    before = build_oracle(plan, directory)
    asked = [ask(before, f"worker-{number}") for number in range(4)]
    ends = [("finished", 0.5), ("finished", 0.6), ("failed", None), ("running", None)]
    for number, (status, value) in enumerate(ends):
        values = asked[number].hyperparameters.values
        directory.write_trial(Trial(number=number, values=values, status=status, value=value))
    finish(before, asked[0], math.nan, "FAILED")
    finish(before, asked[3], 0.9)
    for workers_live in (False, True):
        again = build_oracle(plan, directory)
        again.read(workers_live=workers_live)
        scores = [(trial.status, trial.score) for trial in again.trials.values()]
        assert scores[:3] == [("COMPLETED", 0.5), ("COMPLETED", 0.6), ("FAILED", None)]
        assert sorted(again.end_order) == ["0000", "0001", "0002"]
        assert ask(again, "new").trial_id == "0003"  # trained again
        assert ask(again, "other").trial_id == "0004"


def test_a_stopped_worker_keeps_its_trial_as_long_as_its_process_lives(oracle, tmp_path):
    """As Ctrl-Z or a laptop's sleep stop it, for longer than the lease."""
    built = oracle(plan_of(algorithm="random", trials=2))
    stopped, dead = ask(built, "stopped"), ask(built, "dead")
    folder = SearchDirectory(tmp_path).trial_path(int(stopped.trial_id))
    folder.mkdir(parents=True)
    with only_writer(folder):
        for tuner in ("stopped", "dead"):
            built.heard[tuner] -= 31
        assert ask(built, "other").trial_id == dead.trial_id
        assert list(built.ongoing_trials) == ["stopped", "other"]
        assert "stopped" in built.tuner_ids  # a chief waits for it
    built.give_back_lost()
    assert ask(built, "third").trial_id == stopped.trial_id


def test_a_kill_loses_seconds_of_the_time_that_is_used_and_not_a_trials_all(oracle, monkeypatch):
    """Killed after 3,000 s of the 3,600 in a trial's middle: 600 are left, not 3,600."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    plan = plan_of(algorithm="random", trials=5, seconds=3600.0)
    killed = oracle(plan)
    trial = ask(killed)
    for _ in range(600):
        now[0] += 5.1
        killed.get_trial(trial.trial_id)
    assert 535 < oracle(plan).seconds_left < 545


def test_a_waiting_chief_writes_its_time_down_too(oracle, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    plan = plan_of(algorithm="random", trials=5, seconds=3600.0)
    killed = oracle(plan)
    killed.write()
    for _ in range(100):
        now[0] += 1
        killed.give_back_lost()
    assert 3500 <= oracle(plan).seconds_left < 3507


def test_a_fault_in_the_choice_of_values_leaves_the_next_worker_free(oracle, monkeypatch):
    built = oracle(plan_of(algorithm="random"))
    choose = built.populate_space

    def fault(trial_id):
        monkeypatch.setattr(built, "populate_space", choose)
        raise FloatingPointError("a singular matrix")

    monkeypatch.setattr(built, "populate_space", fault)
    with pytest.raises(FloatingPointError, match="a singular matrix"):
        ask(built, "a")
    asked = []
    other = threading.Thread(target=lambda: asked.append(ask(built, "b")), daemon=True)
    other.start()
    other.join(20)
    assert [trial.trial_id for trial in asked] == ["0000"]


def test_a_damaged_state_is_one_line(oracle, tmp_path):
    for text in ("{", "[]", '{"seconds_used": 1}'):
        (tmp_path / "oracle.json").write_text(text)
        with pytest.raises(UserError, match="oracle.json is damaged: .*"):
            oracle(plan_of())
