"""Samplers: the values that trials are given, and that they depend on the trials' files alone."""

import itertools
import math
from dataclasses import replace

import pytest

from recipes.config import with_settings
from tests.tuning.conftest import TINY, bowl, fail, finish, plan_of, search_to_the_end
from tuning.plan import Method, make_plan
from tuning.samplers import propose
from tuning.trial import Trial

NARROW = {"training.batch_size": "32:128", "optimizer.learning_rate": "0.001,0.01"}
RATE, BATCH = "optimizer.learning_rate", "training.batch_size"


@pytest.mark.parametrize("algorithm", ["bayesian", "random", "grid"])
def test_the_first_trial_has_the_recipes_own_values(make_search, algorithm):
    trial = make_search(plan_of(algorithm=algorithm)).ask("a")
    assert trial.values == {BATCH: 64, RATE: 0.001}


@pytest.mark.parametrize("algorithm", ["bayesian", "random", "grid", "hyperband"])
def test_every_algorithm_keeps_the_number_of_trials(make_search, algorithm):
    asked = search_to_the_end(make_search(plan_of(algorithm=algorithm, trials=7)))
    assert [trial.number for trial in asked] == list(range(7))


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_searches_of_neighbouring_seeds_try_different_values(make_search, algorithm):
    tried = []
    for seed in range(4):
        asked = search_to_the_end(make_search(plan_of(algorithm=algorithm, trials=5, seed=seed)))
        tried.append({trial.values[RATE] for trial in asked[1:]})
    assert len(set.union(*tried)) == sum(map(len, tried))


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "grid", "hyperband"])
def test_a_proposal_is_a_pure_function_of_the_plan_and_the_trials(make_search, algorithm):
    search = make_search(plan_of(algorithm=algorithm, trials=6))
    search_to_the_end(search)
    trials = search.directory.trials()
    scores = {trial.number: trial.value for trial in trials}
    proposals = [propose(search.directory.plan, trials, scores) for _ in range(2)]
    assert proposals[0] == proposals[1]
    earlier = trials[:4]
    assert propose(search.directory.plan, earlier, scores).values == trials[4].values


def test_the_bayesian_search_finds_the_optimum_and_beats_random_values(make_search):
    best = {}
    for algorithm in ("bayesian", "random"):
        scores = []
        for seed in range(2):
            asked = search_to_the_end(make_search(plan_of(algorithm=algorithm, trials=12, seed=seed)))
            scores.append(max(bowl(trial.values) for trial in asked))
        best[algorithm] = sum(scores) / 2
    assert best["bayesian"] > 0.995
    assert best["bayesian"] > best["random"]


def test_the_bayesian_search_never_repeats_a_trial(make_search):
    """If the optimum is between two batch sizes, points between them must not be rounded to one of them."""
    between = plan_of({BATCH: "64,128"}, algorithm="bayesian", trials=16)
    rates = {64: [], 128: []}
    for trial in search_to_the_end(make_search(between)):
        rates[trial.values[BATCH]].append(math.log10(trial.values[RATE]))
    for places in rates.values():
        gaps = [b - a for a, b in itertools.pairwise(sorted(places))]
        assert min(gaps) > 0.06  # 0.03 of two decades


@pytest.mark.parametrize("algorithm", ["bayesian", "random"])
def test_a_search_ends_when_all_choices_are_tried(make_search, algorithm):
    asked = search_to_the_end(make_search(plan_of(NARROW, algorithm=algorithm, trials=100)))
    assert len({tuple(trial.values.values()) for trial in asked}) == len(asked) == 6


def test_one_terrible_value_does_not_hide_the_good_ones(make_search):
    """Above 0.004 the training diverges: the optimum is there or slightly below."""
    cliff = lambda values: -1e6 if values[RATE] > 0.004 else bowl(values)  # noqa: E731
    asked = search_to_the_end(make_search(plan_of(algorithm="bayesian", trials=14)), cliff)
    assert max(cliff(trial.values) for trial in asked) > 0.99


def test_the_bayesian_search_begins_near_the_recipes_own_values(make_search):
    """Own values: 64 of 16 to 256, 0.001 of 0.0001 to 0.01. Uniform draws would be up to half the range away."""
    asked = search_to_the_end(make_search(plan_of(algorithm="bayesian", trials=5)))
    decades = [abs(math.log10(trial.values[RATE] / 0.001)) for trial in asked]
    assert decades[0] == 0
    assert 0.05 < sum(decades[1:]) / 4 < 0.5  # the mean of |x| is 0.8 of 0.4 decades, or a bit less
    assert len({tuple(trial.values.values()) for trial in asked}) == 5


def test_the_bayesian_search_avoids_the_region_of_failed_trials(make_search):
    """All learning rates above 0.003 fail."""
    search = make_search(plan_of(algorithm="bayesian", trials=14))
    failed = []
    while isinstance(trial := search.ask("a"), Trial):
        rate = trial.values[RATE]
        failed.append(rate > 0.003)
        if failed[-1]:
            fail(search, trial)
        else:
            finish(search, trial, 0.5 + 0.1 * math.log10(rate / 0.0001))
    assert sum(failed[6:]) <= 4
    assert len(failed) == 14


def test_parallel_bayesian_trials_differ(make_search):
    search = make_search(plan_of(algorithm="bayesian", trials=9))
    for value in (0.5, 0.6, 0.7, 0.8):
        finish(search, search.ask("a"), value)
    places = [math.log10(search.ask(worker).values[RATE]) for worker in "abcd"]
    assert len(set(places)) == 4


def test_grid_tries_each_combination_once_in_a_new_process_for_each_trial(make_search):
    plan = plan_of(NARROW, algorithm="grid", trials=100)
    seen = []
    while isinstance(trial := make_search(plan).ask("a"), Trial):
        seen.append(tuple(trial.values.values()))
        finish(make_search(plan), trial, 0.5)
    assert trial == "end"
    assert sorted(seen) == [(batch, rate) for batch in (32, 64, 128) for rate in (0.001, 0.01)]


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("model.dropout", "0.1:0.5", [0.12, 0.16, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4, 0.44, 0.48]),
        ("training.epochs", "1:1000:log", [1, 2, 5, 11, 22, 44, 89, 177, 355, 708]),
        ("model.kernel_size", "3:7", [3, 4, 5, 6, 7]),
        ("schedule.name", "cosine,wsd", ["cosine", "wsd"]),
        ("model.batch_normalization", "true,false", [False, True]),
    ],
)
def test_a_grid_has_ten_values_of_a_range_and_all_choices_and_whole_numbers(make_search, name, text, values):
    """And the recipe's own value, or else the lower end of the range, which need not be one of the ten."""
    plan = plan_of({BATCH: "64,128", RATE: "0.001,0.01", name: text}, algorithm="grid", trials=100)
    asked = search_to_the_end(make_search(plan), lambda _: 0.5)
    first = 0.1 if name == "model.dropout" else asked[0].values[name]
    found = {trial.values[name] for trial in asked}
    assert all(type(value) is type(values[0]) for value in found)
    assert sorted(found) == pytest.approx(sorted({*values, first}))
    assert len(asked) == 4 * len(found)


@pytest.mark.parametrize("algorithm", ["random", "hyperband"])
def test_a_draw_of_true_and_false_is_no_number(make_search, algorithm):
    """keras-tuner makes them 1 and 0, which are not settings."""
    plan = plan_of({"model.batch_normalization": "true,false"}, algorithm=algorithm, trials=8)
    asked = search_to_the_end(make_search(plan))
    assert {repr(trial.values["model.batch_normalization"]) for trial in asked} == {"True", "False"}


def test_a_grid_of_an_earlier_version_resumes_with_the_combinations_that_it_has_not_tried(make_search):
    """It began at the lower ends, not with the recipe's own values."""
    search = make_search(plan_of(NARROW, algorithm="grid", trials=100))
    tried = [(32, 0.001), (32, 0.01), (64, 0.001)]
    for number, (batch, rate) in enumerate(tried):
        search.directory.write_trial(
            Trial(number=number, values={BATCH: batch, RATE: rate}, status="finished", value=0.5)
        )
    rest = [tuple(trial.values.values()) for trial in search_to_the_end(search)]
    assert sorted(rest) == [(64, 0.01), (128, 0.001), (128, 0.01)]


def test_grid_waits_for_running_trials_before_it_ends(make_search):
    search = make_search(plan_of(NARROW, algorithm="grid", trials=100))
    running = [search.ask(str(worker)) for worker in range(6)]
    assert search.ask("other") == "wait"
    for trial in running:
        finish(search, trial, 0.5)
    assert search.ask("other") == "end"


def hyperband_plan(**method):
    nine = with_settings(TINY, {"training": {"epochs": 9}})
    return make_plan(
        "mnist-mlp", nine, {}, Method(algorithm="hyperband", objective="validation_accuracy", **method)
    )


def test_hyperband_promotes_the_best_to_more_epochs(make_search):
    search = make_search(hyperband_plan(trials=17))
    asked = search_to_the_end(search)
    assert {trial.epoch_limit for trial in asked} == {1, 3, 9}
    promoted = [trial for trial in asked if trial.follows is not None]
    assert promoted
    for trial in promoted:
        source = asked[trial.follows]
        assert source.values == trial.values
        assert source.epoch_limit * 3 == trial.epoch_limit
    first = [trial for trial in asked[: promoted[0].number] if trial.epoch_limit == 1]
    assert bowl(promoted[0].values) == max(bowl(trial.values) for trial in first)


def test_hyperband_resumes_in_a_new_process_for_each_trial(make_search):
    whole = search_to_the_end(make_search(hyperband_plan(trials=17)))
    plan, asked = hyperband_plan(trials=17, seconds=1e9), []
    while isinstance(trial := make_search(plan).ask("a"), Trial):
        asked.append(trial)
        finish(make_search(plan), trial, bowl(trial.values))
    assert [(each.values, each.epoch_limit, each.follows) for each in asked] == [
        (each.values, each.epoch_limit, each.follows) for each in whole
    ]


def test_a_hyperband_trial_of_an_earlier_version_gets_its_epochs_and_its_source(make_search):
    """Earlier versions kept them in oracle.json."""
    plan = hyperband_plan(trials=17)
    search = make_search(plan)
    while True:
        trial = search.ask("a")
        if trial.follows is not None:
            break
        finish(search, trial, bowl(trial.values))
    for written in search.directory.trials():
        search.directory.write_trial(replace(written, epoch_limit=None, follows=None))
    again = make_search(plan).ask("b")
    assert (again.number, again.values) == (trial.number, trial.values)
    assert (again.epoch_limit, again.follows) == (trial.epoch_limit, trial.follows)


@pytest.mark.parametrize("algorithm", ["bayesian", "random", "hyperband"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_failure_and_the_search_continues(make_search, algorithm, bad):
    search = make_search(plan_of(algorithm=algorithm, trials=8))
    values = iter([0.5, bad, 0.6, 0.7, bad, 0.8, 0.4, 0.3])
    search_to_the_end(search, lambda _: next(values))
    trials = search.directory.trials()
    assert [trial.status for trial in trials].count("failed") == 2
    assert [trial.value for trial in trials] == [0.5, None, 0.6, 0.7, None, 0.8, 0.4, 0.3]
    assert trials[1].reason == f"the objective became {bad}"
