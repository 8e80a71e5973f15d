"""One trial, trained in this process."""

import math
import time

import pytest
import tensorflow as tf

from recipes.config import with_settings
from tests.tuning.conftest import TINY
from tests.tuning.test_callbacks import write_run
from tuning.plan import Method, make_plan
from tuning.training import train_trial
from tuning.trial import Trial

OWN = {"training.batch_size": 64, "optimizer.learning_rate": 0.001}


@pytest.fixture
def plan_search(make_directory, monkeypatch):
    """Give a search of a tiny image recipe with some of its settings changed."""
    for name in ("set_intra_op_parallelism_threads", "set_inter_op_parallelism_threads"):
        monkeypatch.setattr(
            tf.config.threading, name, lambda count: None
        )  # a trial's own process has none yet

    def make(settings, **method):
        plan = make_plan("mnist-mlp", with_settings(TINY, settings), {}, Method(**method))
        return make_directory(plan)

    return make


def train(directory, number=0, values=OWN, **fields):
    now = time.time()
    trial = Trial(number=number, values=values, sessions=((now, now),), **fields)
    directory.write_trial(trial)
    return train_trial(directory, trial, threads=1)


def test_a_trial_has_no_value_before_an_epoch_that_could_be_kept(plan_search):
    directory = plan_search(
        {
            "training": {"epochs": 3},
            "early_stopping": {"start_fraction": 0.34, "metric": "validation_accuracy"},
        },
        seconds=1e-3,
    )
    trial = train(directory)
    assert (trial.status, trial.value, trial.epochs) == ("stopped", None, 1)
    assert trial.reason == "the search's time was over after epoch 1"
    assert trial.saved_seconds == 0  # the time was over: nothing was saved


def test_a_paused_trial_is_not_finished(plan_search):
    directory = plan_search({"early_stopping": {"start_fraction": 0.5}}, algorithm="hyperband")
    trial = train(directory, epoch_limit=1)
    assert (trial.status, trial.value, trial.reason) == ("stopped", None, "paused after epoch 1")
    continued = train(directory)
    assert (continued.status, continued.epochs) == ("finished", 2)
    assert continued.value == directory.runs(0)[0].history[1]["validation_loss"]


def test_a_trial_whose_objective_is_not_finite_has_failed(plan_search):
    """One step per epoch: the training loss is finite, the validation loss of the new weights is NaN."""
    directory = plan_search({"training": {"epochs": 1}}, objective="validation_loss")
    trial = train(directory, values={"training.batch_size": 1024, "optimizer.learning_rate": 1e30})
    assert not math.isfinite(directory.runs(0)[0].history[0]["validation_loss"])
    assert (trial.status, trial.value) == ("failed", None)
    assert trial.reason == "validation_loss was not finite in any epoch that could be kept"


@pytest.mark.parametrize("seconds", [None, 1e-3])
def test_time_is_saved_by_the_median_rule_and_not_by_the_time_limit(plan_search, seconds):
    directory = plan_search({}, objective="validation_accuracy", seconds=seconds)
    for number in range(4):
        write_run(directory, number, [0.95 + number / 100, 0.96 + number / 100])
    slow = {**OWN, "optimizer.learning_rate": 1e-9}
    trial = train(directory, 4, slow)
    assert (trial.status, trial.epochs) == ("stopped", 1)
    assert "where the median is 0.965" in trial.reason
    assert (trial.saved_seconds > 0) == (seconds is None)
    again = train(directory, 4, slow)  # a kill came before the trial's end was written down
    assert (again.status, again.value) == ("stopped", trial.value)
