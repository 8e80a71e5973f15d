import itertools
import json
import math

import pytest
from keras_tuner.engine.trial import TrialStatus

from recipes.settings import with_settings
from tests.tuning.conftest import TINY, bowl, plan_of
from tuning.plan import Method, make_plan

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
