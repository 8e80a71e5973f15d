"""Callbacks driven by hand."""

import csv
import io
import math

import keras
import numpy as np
import pytest
from rich.console import Console

from recipes.config import DivergedError, EarlyStopping, Schedule
from recipes.training.callbacks.diverged import StopOnNaN
from recipes.training.callbacks.early_stopping import KeepBest
from recipes.training.callbacks.history import History
from recipes.training.callbacks.moving_average import MovingAverage
from recipes.training.callbacks.plateau import ReduceOnPlateau
from recipes.training.callbacks.progress import ShowProgress, current_rate
from recipes.training.callbacks.resume import Checkpoint
from recipes.training.schedules import LearningRate
from tests.recipes.sizes import fixed_sizes


def one_weight(**optimizer) -> keras.Model:
    """Return a model with one weight, 0 to begin with."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(keras.optimizers.SGD(0.5, **optimizer), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def weight(model: keras.Model) -> float:
    return float(model.get_weights()[0][0, 0])


def drive(callback, model, values, metric="val_loss"):
    """End an epoch for each value; the weight is the number of the epoch. Returns the epochs run."""
    callback.set_model(model)
    callback.on_train_begin()
    model.stop_training = False
    for epoch, value in enumerate(values):
        model.set_weights([np.full((1, 1), epoch + 1.0)])
        callback.on_epoch_end(epoch, {metric: value})
        if model.stop_training:
            break
    callback.on_train_end()
    return epoch + 1


@pytest.mark.parametrize(
    ("settings", "values", "best_epoch", "epochs"),
    [
        ({}, [3, 1, 2, 2, 2], 2, 5),  # no patience: it runs on, and the best is kept all the same
        ({"patience": 2}, [3, 1, 2, 2, 0], 2, 4),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.6, 2.6, 0], 1, 3),  # 0.4 better is not enough
        ({"patience": 1, "start_epoch": 3}, [0, 1, 3, 2, 2], 4, 5),  # the first two don't count
        ({"start_fraction": 0.4}, [0, 1, 3, 2, 2], 4, 5),
        ({"patience": 1}, [math.nan, math.nan], 0, 1),
    ],
)
def test_the_best_epoch_is_kept_and_patience_ends_the_wait(settings, values, best_epoch, epochs):
    stopping = EarlyStopping(metric="validation_loss", **settings)
    model, keep = one_weight(), KeepBest(stopping, first_epoch=stopping.first_epoch(len(values)))
    assert drive(keep, model, values) == epochs
    assert keep.best_epoch == best_epoch
    assert weight(model) == (best_epoch or epochs)


def test_accuracy_is_better_when_high():
    model, keep = one_weight(), KeepBest(EarlyStopping(metric="validation_accuracy", patience=2))
    assert drive(keep, model, [0.5, 0.9, 0.9, 0.8, 1.0], "val_accuracy") == 4
    assert (keep.best, keep.best_epoch, weight(model)) == (0.9, 2, 2.0)


def test_early_stopping_starts_anew_in_a_second_training():
    model, keep = one_weight(), KeepBest(EarlyStopping(metric="validation_loss"))
    drive(keep, model, [0.1])
    drive(keep, model, [5, 4])
    assert (keep.best, keep.best_epoch) == (4, 2)


class Watch(keras.callbacks.Callback):
    """Note the weights at the end of each step and when validation begins."""

    def __init__(self):
        super().__init__()
        self.trained, self.validated = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.trained.append(self.model.get_weights())

    def on_test_begin(self, logs=None):
        self.validated.append(self.model.get_weights())


def test_the_moving_average_of_weights_and_statistics_is_what_is_validated_and_kept():
    """Its decay after n updates is (1 + n) / (10 + n) up to the decay that was set, 0.25 from the third on."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    initial = model.get_weights()
    average, watch = MovingAverage(0.25), Watch()
    keep = KeepBest(EarlyStopping(metric="validation_loss"), average=average)
    rows = np.random.default_rng(0).normal(3.0, 2.0, (8, 2)).astype(np.float32)
    targets = rows.sum(axis=1, keepdims=True)
    callbacks = [keep, average, watch]
    model.fit(rows, targets, 2, validation_data=(rows, targets), callbacks=callbacks, verbose=0)
    expected = initial
    for decay, weights in zip((2 / 11, 3 / 12, 0.25, 0.25), watch.trained, strict=True):
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
    assert len(expected) == 6  # scale, shift, mean and variance of the normalisation, kernel, bias
    for ours, validated, by_hand in zip(model.get_weights(), watch.validated[0], expected, strict=True):
        np.testing.assert_allclose(validated, by_hand, rtol=1e-5)
        np.testing.assert_array_equal(ours, validated)


def test_the_trained_weights_come_back_after_validation():
    model, average = one_weight(), MovingAverage(0.5)
    average.set_model(model)
    average.on_train_begin()
    model.set_weights([np.full((1, 1), 2.0)])
    average.on_test_begin()
    assert weight(model) == 0.0
    average.on_test_end()
    assert weight(model) == 2.0


def plateau(**settings) -> tuple[ReduceOnPlateau, LearningRate]:
    schedule = Schedule(name="plateau", **settings)
    rate = LearningRate(schedule, highest=1.0, times=fixed_sizes(1, steps=1, epochs=100).times)
    return ReduceOnPlateau(schedule, rate, "validation_loss"), rate


def test_a_plateau_lowers_the_rate_down_to_its_minimum():
    reduce, rate = plateau(factor=0.1, patience=2, minimum=0.05)
    rates = []
    reduce.on_train_begin()
    for loss in [3, 2, 2, 2, 1, 1, 1]:
        reduce.on_epoch_end(0, {"val_loss": loss})
        rates.append(float(rate(0)))
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.05])


def test_a_plateau_remembers_its_wait_over_a_resume():
    reduce, rate = plateau(factor=0.5, patience=2)
    reduce.on_train_begin()
    reduce.on_epoch_end(0, {"val_loss": 1})
    reduce.on_epoch_end(1, {"val_loss": 1})
    again, _ = plateau(factor=0.5, patience=2)
    again.rate = rate
    again.on_train_begin()
    again.restore(reduce.state())
    again.on_epoch_end(2, {"val_loss": 1})
    assert float(rate(0)) == 0.5


def test_nan_stops_with_epoch_and_step():
    stop = StopOnNaN()
    stop.set_params({"steps": 40})
    stop.on_epoch_begin(2)
    stop.on_train_batch_end(31, {"loss": 0.5})
    with pytest.raises(DivergedError, match="became nan in epoch 3, by step 40 of 40"):
        stop.on_train_batch_end(63, {"loss": math.nan})


def test_history_is_whole_after_each_epoch(tmp_path):
    history = History(tmp_path / "history.csv", columns={"learning_rate": lambda: 0.25})
    history.on_train_begin()
    for epoch in range(2):
        history.on_epoch_begin(epoch)
        history.on_epoch_end(epoch, {"loss": 2.0 - epoch, "val_loss": 3.0})
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,validation_loss,learning_rate,seconds"
    assert [line.rsplit(",", 1)[0] for line in lines[1:]] == ["1,2.0,3.0,0.25", "2,1.0,3.0,0.25"]


def test_a_history_of_an_older_version_is_continued_with_the_newer_columns(tmp_path):
    history = History(tmp_path / "history.csv", columns={"learning_rate": lambda: 0.25})
    history.on_train_begin()
    history.restore({"rows": [{"epoch": 1, "loss": 2.0, "seconds": 0.5}]})
    history.on_epoch_begin(1)
    history.on_epoch_end(1, {"loss": 1.0})
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [(row["epoch"], row["loss"], row["learning_rate"]) for row in rows] == [
        ("1", "2.0", "nan"),
        ("2", "1.0", "0.25"),
    ]


def test_progress_is_plain_lines_where_there_is_no_terminal():
    text = io.StringIO()
    rate = LearningRate(Schedule(), highest=0.5, times=fixed_sizes(1, steps=2, epochs=3).times)
    show = ShowProgress(rate, 3, Console(file=text, soft_wrap=True, highlight=False))
    show.set_model(one_weight())
    show.set_params({"steps": 2})
    show.on_train_begin()
    show.on_epoch_begin(0)
    show.on_train_batch_end(1, {"loss": 2.0})
    show.on_epoch_end(0, {"loss": 2.0, "val_loss": 3.0})
    show.on_train_end()
    assert (
        text.getvalue()
        == "epoch 1/3  loss 2.0000  validation_loss 3.0000  learning_rate 5.00e-01  0.0 s, 0 s left\n"
    )


def test_the_rate_in_the_history_is_the_last_steps():
    model = one_weight()
    rate = LearningRate(
        Schedule(name="polynomial"), highest=1.0, times=fixed_sizes(1, steps=1, epochs=4).times
    )
    for _ in range(3):
        model.optimizer.apply([keras.ops.ones((1, 1))], model.trainable_variables)
    assert current_rate(rate, model) == 0.5  # steps 0, 1, 2 had rates 1, 0.75, 0.5


def test_a_checkpoint_gives_back_model_optimizer_and_memory(tmp_path):
    path = tmp_path / "state.npz"
    model = one_weight(momentum=0.9)
    keep = KeepBest(EarlyStopping(metric="validation_loss"))
    checkpoint = Checkpoint(path, [keep])
    assert (checkpoint.finished_epochs(), checkpoint.stopped()) == (0, False)
    for callback in (keep, checkpoint):
        callback.set_model(model)
    keep.on_train_begin()
    model.stop_training = False
    model.optimizer.apply([keras.ops.ones((1, 1))], model.trainable_variables)
    keep.on_epoch_end(4, {"val_loss": 0.25})
    checkpoint.on_epoch_end(4)

    fresh, keep_again = one_weight(momentum=0.9), KeepBest(EarlyStopping(metric="validation_loss"))
    checkpoint = Checkpoint(path, [keep_again])
    for callback in (keep_again, checkpoint):
        callback.set_model(fresh)
        callback.on_train_begin()
    assert checkpoint.finished_epochs() == 5
    assert weight(fresh) == weight(model) == -0.5
    for old, new in zip(model.optimizer.variables, fresh.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    assert (keep_again.best, keep_again.best_epoch) == (0.25, 5)
    assert keep_again.best_weights[0].item() == -0.5


def test_a_checkpoint_gives_back_the_scale_of_a_float16_loss(tmp_path):
    """It begins at 2^15 and is halved where a gradient is infinite."""

    def scaled():
        model = one_weight()
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5)), "mse")
        model.optimizer.build(model.trainable_variables)
        model.stop_training = False
        checkpoint = Checkpoint(tmp_path / "state.npz", [])
        checkpoint.set_model(model)
        return model, checkpoint

    model, checkpoint = scaled()
    model.optimizer.apply([keras.ops.full((1, 1), math.inf)], model.trainable_variables)
    checkpoint.on_epoch_end(0)
    fresh, checkpoint = scaled()
    assert float(fresh.optimizer.dynamic_scale.numpy()) == 2**15
    checkpoint.on_train_begin()
    assert float(fresh.optimizer.dynamic_scale.numpy()) == 2**14
