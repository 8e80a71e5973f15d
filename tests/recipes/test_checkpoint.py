"""The checkpoint, driven by hand and in the fit of a plain Keras model that ends and begins again."""

import math

import keras
import numpy as np
import pytest

from recipes.training import schedules
from recipes.training.callbacks import (
    Checkpoint,
    History,
    KeepBest,
    MovingAverage,
    Prune,
    ReduceOnPlateau,
)
from tests.recipes.plain_models import one_weight, small_model, weight


def checkpointed(path, model, *others):
    """Return a checkpoint and the other callbacks of a fit of the model, as it begins."""
    checkpoint = Checkpoint(path)
    every = keras.callbacks.CallbackList([*others, checkpoint], model=model, epochs=9)
    every.on_train_begin()
    model.stop_training = False
    return checkpoint


def test_a_checkpoint_gives_back_model_optimizer_and_memory(tmp_path):
    path = tmp_path / "state.npz"
    model, keep = one_weight(momentum=0.9), KeepBest("val_loss")
    checkpoint = checkpointed(path, model, keep)
    assert checkpoint.finished_epochs() == 0
    model.optimizer.apply([keras.ops.ones((1, 1))], model.trainable_variables)
    keep.on_epoch_end(4, {"val_loss": 0.25})
    checkpoint.on_epoch_end(4)

    fresh, keep_again = one_weight(momentum=0.9), KeepBest("val_loss")
    checkpoint = checkpointed(path, fresh, keep_again)
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
        return model

    model = scaled()
    checkpoint = checkpointed(tmp_path / "state.npz", model)
    model.optimizer.apply([keras.ops.full((1, 1), math.inf)], model.trainable_variables)
    checkpoint.on_epoch_end(0)
    fresh = scaled()
    assert float(fresh.optimizer.dynamic_scale.numpy()) == 2**15
    checkpointed(tmp_path / "state.npz", fresh)
    assert float(fresh.optimizer.dynamic_scale.numpy()) == 2**14


def test_a_checkpoint_of_other_callbacks_is_refused(tmp_path):
    checkpointed(tmp_path / "state.npz", one_weight(), KeepBest("loss")).on_epoch_end(0)
    with pytest.raises(ValueError, match=r"with the callbacks KeepBest. Received: KeepBest, KeepBest-1"):
        checkpointed(tmp_path / "state.npz", one_weight(), KeepBest("loss"), KeepBest("accuracy"))


def plain_fit(path, epochs):
    """Train with every callback that has a memory, from the checkpoint if there is one."""
    model, x, y = small_model(schedules.Plateau(0.02, warmup_steps=3))
    keep, history = KeepBest("val_loss"), History(path / "history.csv")
    memory = [
        MovingAverage(0.9),
        Prune(sparsity=0.5, end_step=6, frequency=2),
        keep,
        ReduceOnPlateau("val_loss", patience=1, min_delta=0.05),
        history,
        Checkpoint(path / "state.npz"),
    ]
    fitted = model.fit(
        x, y, batch_size=4, epochs=epochs, shuffle=False, validation_data=(x, y), callbacks=memory, verbose=0
    )
    return model, fitted.epoch, keep.best_epoch, [row["validation_loss"] for row in history.rows]


@pytest.mark.parametrize("epochs", [1, 4, 6])
def test_a_second_fit_with_the_same_path_resumes_to_the_same_result(tmp_path, epochs):
    (tmp_path / "whole").mkdir()
    whole, trained, *memory = plain_fit(tmp_path / "whole", 6)
    assert trained == list(range(6))
    plain_fit(tmp_path, epochs)
    resumed, trained, *same = plain_fit(tmp_path, 6)
    assert trained == list(range(epochs, 6))
    assert memory == same
    np.testing.assert_array_equal(whole.get_weights()[0], resumed.get_weights()[0])
    assert resumed.fit(*small_model()[1:], epochs=2, verbose=0).epoch == [0, 1]  # it is not left behind


def test_a_fit_that_stopped_early_does_not_resume(tmp_path):
    for expected in ([0, 1], []):
        model, x, y = small_model()
        stop = KeepBest("loss", patience=1, min_delta=1e9)
        fitted = model.fit(x, y, epochs=9, callbacks=[stop, Checkpoint(tmp_path / "state.npz")], verbose=0)
        assert fitted.epoch == expected
        assert (stop.best_epoch, stop.waited) == (1, 1)
