import math
import time
from types import SimpleNamespace

import pytest

from tests.tuning.conftest import plan_of
from tuning.callbacks import PauseAfter, Paused, StopAtDeadline, StopBelowMedian
from tuning.plan import Method, make_plan
from tuning.scores import scores, value_by_epoch
from tuning.trial import Trial


def write_run(directory, number, values, status="finished", first_epoch=1):
    """Write a trial with a validation accuracy for each epoch, and return its run.

    No epoch before `first_epoch` can be kept.
    """
    kept = [max(values[first_epoch - 1 : epoch], default=-math.inf) for epoch in range(1, len(values) + 1)]
    value = kept[-1] if math.isfinite(kept[-1]) else None
    directory.write_trial(Trial(number=number, values={}, status=status, value=value, epochs=len(values)))
    run = directory.seed_run(number, 0)
    run.path.mkdir()
    (run.path / "config.json").write_text("{}")
    rows = [f"{epoch},{own},{best}\n" for epoch, (own, best) in enumerate(zip(values, kept, strict=True), 1)]
    run.history_path.write_text("epoch,validation_accuracy,best_validation_accuracy\n" + "".join(rows))
    return run


def after_epoch(callback, epoch, epochs=4):
    callback.set_params({"epochs": epochs})
    callback.set_model(SimpleNamespace(stop_training=False))
    callback.on_epoch_end(epoch - 1)
    return callback.model.stop_training


@pytest.fixture
def directory(make_directory):
    return make_directory(plan_of())


def score(directory, number):
    return scores(directory, directory.trials())[number]


def test_the_value_of_a_run_is_that_of_the_epoch_that_would_be_kept(directory):
    assert value_by_epoch(write_run(directory, 0, [0.5, 0.7, 0.6]), plan_of()) == [0.5, 0.7, 0.7]
    late = write_run(directory, 1, [0.9, 0.8, 0.6], first_epoch=3)
    assert value_by_epoch(late, plan_of()) == [None, None, 0.6]


def test_a_loss_that_is_not_finite_has_no_value(directory):
    run = write_run(directory, 0, [0.5])
    run.history_path.write_text("epoch,best_validation_loss\n1,inf\n2,nan\n3,0.5\n")
    loss = make_plan("mnist-mlp", plan_of().recipe, {}, Method(objective="validation_loss"))
    assert value_by_epoch(run, loss) == [None, None, 0.5]


@pytest.mark.parametrize(("own", "ends"), [(0.64, True), (0.65, False), (0.9, False)])
def test_a_trial_below_the_median_of_the_finished_ones_is_stopped(directory, own, ends):
    for number, second in enumerate([0.5, 0.6, 0.7, 0.8]):  # median 0.65
        write_run(directory, number, [0.1, second, 0.9, 0.9 + second / 10])
    callback = StopBelowMedian(directory, write_run(directory, 4, [0.2, own], "running"))
    assert after_epoch(callback, 2) is ends
    assert callback.reason == ("0.64 after epoch 2, where the median is 0.65" if ends else "")


def test_no_trial_is_stopped_if_early_values_do_not_predict_final_ones(directory):
    """High learning rates with a schedule that decays to 0 begin worst and end best."""
    for number, second in enumerate([0.5, 0.6, 0.7, 0.8]):
        write_run(directory, number, [0.1, second, 0.9, 1 - second / 10])
    callback = StopBelowMedian(directory, write_run(directory, 4, [0.2, 0.3], "running"))
    assert after_epoch(callback, 2) is False


def test_no_trial_is_stopped_at_an_epoch_that_it_could_not_keep(directory):
    """Dense epochs of sparse recipes: 0.1 is worse than all, and says nothing of the sparse ones to come."""
    for number in range(4):
        values = [0.8, 0.8 + number / 100, 0.5 + number / 100, 0.5 + number / 100]
        write_run(directory, number, values, first_epoch=3)
    early = write_run(directory, 4, [0.1, 0.1], "running", first_epoch=3)
    assert after_epoch(StopBelowMedian(directory, early), 2) is False
    late = write_run(directory, 5, [0.9, 0.9, 0.4], "running", first_epoch=3)
    assert after_epoch(StopBelowMedian(directory, late), 3) is True


def test_three_finished_stopped_or_shorter_trials_give_no_median(directory):
    for number in range(3):
        write_run(directory, number, [0.8, 0.9])
    write_run(directory, 3, [0.8, 0.9], "stopped")
    write_run(directory, 4, [0.8])
    callback = StopBelowMedian(directory, write_run(directory, 5, [0.1, 0.1], "running"))
    assert after_epoch(callback, 2) is False


def test_a_trial_is_not_stopped_in_its_last_epoch(directory):
    for number in range(4):
        write_run(directory, number, [0.8, 0.9])
    callback = StopBelowMedian(directory, write_run(directory, 4, [0.1, 0.1], "running"))
    assert after_epoch(callback, 2, epochs=2) is False


def test_a_stopped_trial_is_forecast_to_improve_like_the_finished_ones(directory):
    """They went from 0.5, 0.6 and 0.7 after two epochs up by 0.3, 0.2 and 0.1: median 0.2."""
    for number, (second, last) in enumerate([(0.5, 0.8), (0.6, 0.8), (0.7, 0.8)]):
        write_run(directory, number, [0.1, second, last])
    write_run(directory, 3, [0.2, 0.55], "stopped")
    assert score(directory, 3) == pytest.approx(0.75)
    write_run(directory, 4, [0.2, 0.3, 0.4], "stopped")  # no finished trial is longer
    assert score(directory, 4) == 0.4


def test_a_trial_stopped_before_an_epoch_that_counts_scores_the_median(directory):
    """Its 0.9 is of dense weights; finished, sparse trials have 0.5, 0.6 and 0.7."""
    for number, last in enumerate([0.5, 0.6, 0.7]):
        write_run(directory, number, [0.9, 0.9, last], first_epoch=3)
    write_run(directory, 3, [0.9], "stopped", first_epoch=3)
    assert directory.read_trial(3).value is None
    assert score(directory, 3) == 0.6


def test_hyperband_compares_paused_trials_by_their_current_weights(make_directory):
    directory = make_directory(plan_of(algorithm="hyperband"))
    write_run(directory, 0, [0.7, 0.6], "stopped", first_epoch=3)
    assert directory.read_trial(0).value is None
    assert score(directory, 0) == 0.6


def test_the_deadline_stops_a_trial_after_its_epoch():
    assert after_epoch(StopAtDeadline(time.time() + 60), 1) is False
    late = StopAtDeadline(time.time() - 1)
    assert after_epoch(late, 1) is True
    assert late.reason == "the search's time was over after epoch 1"


def test_a_pause_comes_when_the_epochs_are_done_and_saved():
    pause = PauseAfter(2)
    pause.on_epoch_begin(0)
    pause.on_epoch_begin(1)
    with pytest.raises(Paused):
        pause.on_epoch_begin(2)
