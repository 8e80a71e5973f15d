"""Callbacks, driven by hand and in the fit of a plain Keras model."""

import csv
import doctest
import io
import math

import keras
import numpy as np
import pytest
from rich.console import Console

from recipes.config import DivergedError
from recipes.training import callbacks, schedules
from recipes.training.callbacks import (
    Checkpoint,
    History,
    KeepBest,
    MovingAverage,
    Prune,
    ReduceOnPlateau,
    ShowProgress,
    StopOnNaN,
)
from recipes.training.optimizers import last_learning_rate
from tests.recipes.plain_models import one_weight, small_model, weight


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
        ({"patience": 1, "first_epoch": 3}, [0, 1, 3, 2, 2], 4, 5),  # the first two don't count
        ({"patience": 1}, [math.nan, math.nan], 0, 1),
    ],
)
def test_the_best_epoch_is_kept_and_patience_ends_the_wait(settings, values, best_epoch, epochs):
    model, keep = one_weight(), KeepBest("val_loss", **settings)
    assert drive(keep, model, values) == epochs
    assert keep.best_epoch == best_epoch
    assert weight(model) == (best_epoch or epochs)


def test_accuracy_is_better_when_high():
    model, keep = one_weight(), KeepBest("val_accuracy", patience=2)
    assert drive(keep, model, [0.5, 0.9, 0.9, 0.8, 1.0], "val_accuracy") == 4
    assert (keep.best, keep.best_epoch, weight(model)) == (0.9, 2, 2.0)


@pytest.mark.parametrize(
    ("monitor", "mode", "kept"),
    [
        ("val_loss", "auto", 1),
        ("val_mean_absolute_error", "auto", 1),
        ("val_accuracy", "auto", 2),
        ("val_f1_score", "auto", 2),
        ("reward", "max", 2),
        ("val_accuracy", "min", 1),
    ],
)
def test_a_name_or_the_mode_says_which_values_are_better(monitor, mode, kept):
    keep = KeepBest(monitor, mode=mode)
    drive(keep, one_weight(), [1, 2], monitor)
    assert keep.best_epoch == kept


def test_a_metric_that_does_not_say_what_is_better_or_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="mode must be min or max.*Received: monitor='reward', mode='auto'"):
        KeepBest("reward")
    with pytest.raises(ValueError, match="Received: monitor='val_loss', mode='low'"):
        KeepBest("val_loss", mode="low")
    with pytest.raises(ValueError, match="a metric of the epoch: val_loss. Received: monitor='val_accuracy'"):
        drive(KeepBest("val_accuracy"), one_weight(), [1])


def test_early_stopping_forgets_an_earlier_training():
    model, keep = one_weight(), KeepBest("val_loss")
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
    keep = KeepBest("val_loss")
    rows = np.random.default_rng(0).normal(3.0, 2.0, (8, 2)).astype(np.float32)
    targets = rows.sum(axis=1, keepdims=True)
    callbacks = [average, keep, watch]
    model.fit(rows, targets, 2, validation_data=(rows, targets), callbacks=callbacks, verbose=0)
    expected = initial
    for decay, weights in zip((2 / 11, 3 / 12, 0.25, 0.25), watch.trained, strict=True):
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
    assert len(expected) == 6  # scale, shift, mean and variance of the normalisation, kernel, bias
    for ours, validated, by_hand in zip(model.get_weights(), watch.validated[0], expected, strict=True):
        np.testing.assert_allclose(validated, by_hand, rtol=1e-5)
        np.testing.assert_array_equal(ours, validated)


def test_the_model_holds_the_average_from_validation_to_the_next_epoch():
    model, average = one_weight(), MovingAverage(0.5)
    average.set_model(model)
    average.on_train_begin()
    for value in (2.0, 3.0):
        average.on_epoch_begin(0)
        model.set_weights([np.full((1, 1), value)])
        average.on_test_begin()
        assert weight(model) == 0.0
        average.on_epoch_end(0)
        assert weight(model) == 0.0
    average.on_epoch_begin(1)
    assert weight(model) == 3.0


def test_without_validation_the_average_is_what_is_left_too():
    """A weight that goes by half of the way to 1: 0.5, 0.75; averages from 0 by decays of 2/11 and 3/12."""
    model, one = one_weight(0.25), np.ones((1, 1), np.float32)
    model.fit(one, one, epochs=2, callbacks=[MovingAverage(0.9)], verbose=0)
    assert weight(model) == pytest.approx(0.25 * (0.5 * 9 / 11) + 0.75 * 0.75, rel=1e-6)


def test_a_fit_after_others_is_averaged_and_the_next_is_not():
    """Of other fits a compiled step is left, of an interrupted one its own average in it."""

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model, one = one_weight(0.25), np.ones((1, 1), np.float32)
    step = model.train_step
    model.fit(one, one, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(one, one, callbacks=[MovingAverage(0.9), Interrupt()], verbose=0)
    model.set_weights([np.zeros((1, 1))])
    model.fit(one, one, callbacks=[MovingAverage(0.9)], verbose=0)
    assert weight(model) == pytest.approx(0.5 * 9 / 13, rel=1e-6)  # 1 - (1 + 3) / (10 + 3): its third update
    assert model.train_step == step
    model.set_weights([np.zeros((1, 1))])
    model.fit(one, one, verbose=0)
    assert weight(model) == 0.5


def plateau(learning_rate, **settings) -> tuple[ReduceOnPlateau, keras.Model]:
    model, reduce = one_weight(learning_rate), ReduceOnPlateau("val_loss", **settings)
    reduce.set_model(model)
    reduce.on_train_begin()
    return reduce, model


@pytest.mark.parametrize("learning_rate", [1.0, schedules.Plateau(1.0)], ids=["number", "Plateau"])
def test_a_plateau_lowers_the_rate_down_to_its_minimum(learning_rate):
    reduce, model = plateau(learning_rate, factor=0.1, patience=2, minimum=0.05)
    rates = []
    for loss in [3, 2, 2, 2, 1, 1, 1]:
        reduce.on_epoch_end(0, {"val_loss": loss})
        rates.append(float(model.optimizer.learning_rate))
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.05])


def test_a_plateau_remembers_its_wait_and_its_rate_over_a_resume():
    reduce, _ = plateau(schedules.Plateau(1.0), factor=0.5, patience=2)
    for _ in range(4):
        reduce.on_epoch_end(0, {"val_loss": 1})
    again, model = plateau(schedules.Plateau(1.0), factor=0.5, patience=2)
    again.restore(reduce.state())
    assert float(model.optimizer.learning_rate) == 0.5
    again.on_epoch_end(4, {"val_loss": 1})
    assert float(model.optimizer.learning_rate) == 0.25


def test_a_schedule_that_can_not_be_lowered_is_refused():
    with pytest.raises(ValueError, match="a number or a Plateau. Received: Cosine"):
        plateau(schedules.Cosine(0.1, total_steps=10))


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
    show = ShowProgress(Console(file=text, soft_wrap=True, highlight=False))
    show.set_model(one_weight())
    show.set_params({"steps": 2, "epochs": 3})
    show.on_train_begin()
    show.on_epoch_begin(0)
    show.on_train_batch_end(1, {"loss": 2.0})
    show.on_epoch_end(0, {"loss": 2.0, "val_loss": 3.0})
    show.on_train_end()
    assert (
        text.getvalue()
        == "epoch 1/3  loss 2.0000  validation_loss 3.0000  learning_rate 5.00e-01  0.0 s, 0 s left\n"
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_the_rate_that_is_shown_is_the_last_steps(scaled):
    optimizer = keras.optimizers.SGD(schedules.Polynomial(1.0, total_steps=4))
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
    variable = keras.Variable([1.0])
    for _ in range(3):
        optimizer.apply([keras.ops.ones(1)], [variable])
    assert last_learning_rate(optimizer) == 0.5  # steps 0, 1, 2 had rates 1, 0.75, 0.5


@pytest.mark.parametrize("callback", [Checkpoint("state.npz"), MovingAverage(0.9), Prune(0.5, end_step=2)])
def test_a_model_without_weights_is_refused(callback):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match=f"{type(callback).__name__} needs a model with weights"):
        model.fit(one, one, callbacks=[callback], verbose=0)


EXAMPLES = [
    *(getattr(callbacks, name) for name in callbacks.__all__ if name != "StatefulCallback"),
    schedules.Constant,
    schedules.Exponential,
    schedules.InverseSquareRoot,
    schedules.Polynomial,
    schedules.Cosine,
    schedules.OneCycle,
    schedules.WarmupStableDecay,
    schedules.Plateau,
]


@pytest.mark.parametrize("documented", EXAMPLES, ids=lambda documented: documented.__name__)
def test_the_example_of_a_docstring_runs(documented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, x, y = small_model()
    names = {**vars(callbacks), **vars(schedules), "model": model, "x": x, "y": y}
    [example] = doctest.DocTestFinder(recurse=False).find(documented, globs=names)
    assert example.examples
    failures = io.StringIO()
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=failures.write)
    assert not failures.getvalue()
