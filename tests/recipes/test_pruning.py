"""Pruning while training: masks, choices, schedules, and whole runs."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.config import (
    ImageData,
    ImageModel,
    ImageRecipe,
    Optimizer,
    Pruning,
    RecurrentModel,
    RecurrentRecipe,
    Regularization,
    TextData,
    TextTraining,
    Training,
    TransformerModel,
    TransformerRecipe,
    UserError,
)
from recipes.tasks import task_of
from recipes.training.callbacks import Prune
from recipes.training.callbacks.pruning import Mask, largest, prunable
from recipes.training.losses import weight_penalty
from tests.recipes.test_training import StopAt, assert_same_result


@pytest.fixture
def recipe(stripes) -> ImageRecipe:
    return ImageRecipe(
        data=ImageData(source=str(stripes)),
        model=ImageModel(convolutions=(4,), dense=(8,), batch_normalization=True),
        optimizer=Optimizer(learning_rate=0.01),
        pruning=Pruning(sparsity=0.8, end=12, frequency=3),
        training=Training(epochs=4, batch_size=8),
    )


def kernels_of(run):
    model = keras.models.load_model(run.model_path)
    return [keras.ops.convert_to_numpy(variable) for variable in prunable(model)]


@pytest.mark.parametrize(
    ("schedule", "step", "sparsity"),
    [
        ("polynomial", 99, 0.0),
        ("polynomial", 100, 0.0),
        ("polynomial", 200, 0.9 * (1 - 0.75**3)),
        ("polynomial", 300, 0.9 * (1 - 0.5**3)),
        ("polynomial", 500, 0.9),
        ("polynomial", 900, 0.9),
        ("constant", 99, 0.0),
        ("constant", 100, 0.9),
    ],
)
def test_sparsity_follows_its_closed_form(schedule, step, sparsity):
    prune = Prune(0.9, schedule=schedule, begin_step=100, end_step=500)
    assert prune.sparsity_at(step) == pytest.approx(sparsity)


def test_weights_are_chosen_every_so_many_steps_from_begin_to_end():
    prune = Prune(0.9, begin_step=100, end_step=250, settle_step=350, frequency=60)
    steps = (0, 99, 100, 159, 160, 249, 250, 279, 280, 339, 340, 350, 999)
    assert [prune.choice_at(step) for step in steps] == [
        None, None, 100, 100, 160, 220, 250, 250, 280, 280, 340, 350, 350
    ]  # fmt: skip
    assert Prune(0.9, end_step=250).choice_at(999) == 250  # the last one, unless settle_step is later


@pytest.mark.parametrize("steps", [{"end_step": 0}, {"end_step": 9, "settle_step": 8}])
def test_steps_in_another_order_are_refused(steps):
    with pytest.raises(
        ValueError, match="end_step must come after begin_step.*Received: begin_step=0, end_step="
    ):
        Prune(0.5, **steps)


def test_without_an_end_half_of_the_training_prunes_and_weights_settle_before_it_is_over():
    assert Pruning(sparsity=0.5).last_steps(1000) == (500, 850)
    assert Pruning(sparsity=0.5, end=900).last_steps(1000) == (900, 900)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6), st.integers(1, 20))
def test_a_pruned_weight_is_exactly_0_after_any_number_of_updates(updates, steps):
    variable = keras.Variable(np.arange(1, 7, dtype=np.float32).reshape(2, 3))
    mask = Mask(variable)
    mask.choose(np.array([[True, False, True], [False, True, False]]))
    for _ in range(steps):
        variable.assign(mask(variable + np.reshape(np.float32(updates), (2, 3))))
    values = keras.ops.convert_to_numpy(variable)
    assert values[0, 1] == values[1, 0] == values[1, 2] == 0
    np.testing.assert_allclose(values[0, 0], 1 + steps * np.float32(updates[0]), rtol=1e-4, atol=1e-4)


def test_a_pruned_weight_learns_unseen_and_comes_back_with_what_it_learnt():
    variable = keras.Variable([[1.0, 0.1]])
    mask = Mask(variable)
    mask.choose(np.array([[True, False]]))
    for _ in range(3):
        variable.assign(mask(variable + np.array([[0.0, 0.5]], np.float32)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(mask.dense), [[1.0, 1.6]], rtol=1e-6)
    mask.choose(np.array([[False, True]]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), [[0.0, 1.6]], rtol=1e-6)


def test_biases_are_pruned_when_asked_for_and_ranked_with_the_rest():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(4)])
    assert len(prunable(model)) == 2
    prune = Prune(0.5, end_step=1, biases=True)
    model.layers[0].bias.assign(np.full(5, 9.0))
    prune.set_model(model)
    prune.choose(1)
    assert model.layers[0].bias.numpy().tolist() == [9.0] * 5  # the largest of all
    assert model.layers[1].bias.numpy().tolist() == [0.0] * 4
    assert sum(int(np.count_nonzero(weight)) for weight in model.get_weights()) == round(
        0.5 * (20 + 5 + 20 + 4)
    )


def test_the_largest_stay_and_of_equal_ones_the_first():
    kept = largest([np.float32([3, 1, 2]), np.float32([[2, 2], [0, 2]])], 4 / 7)
    assert [each.tolist() for each in kept] == [[True, False, True], [[True, False], [False, False]]]
    assert not any(each.any() for each in largest([np.ones(3, np.float32)], 0.9))


def test_a_penalty_shrinks_the_dense_copies_of_pruned_weights_too():
    """0.1 (|2| + |0|) + 0.01 (4 + 0); its derivatives are 0.1 + 0.02 * 2 and, at the pruned -1, -0.1."""
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    kernel = model.layers[0].kernel
    kernel.assign([[2.0, 0.0], [0.0, -1.0]])
    kernel.constraint = Mask(kernel)
    kernel.constraint.choose(np.array([[True, True], [True, False]]))
    penalty = weight_penalty(model, l1=0.1, l2=0.01)
    with tf.GradientTape() as tape:
        loss = penalty(5.0, None, None, None)
    assert float(loss) == pytest.approx(5.24)
    assert tape.gradient(loss, kernel.value).numpy().ravel() == pytest.approx([0.14, 0, 0, -0.1])


def test_a_penalty_is_no_part_of_the_validation_loss(recipe, tmp_path):
    """With a rate of nearly 0 nothing is learnt: the losses differ by the penalty alone."""
    still = Optimizer(name="sgd", learning_rate=1e-12)
    plain = dataclasses.replace(recipe, optimizer=still, pruning=Pruning())
    penalty = dataclasses.replace(plain, regularization=Regularization(l1=0.5))
    rows = [
        task_of("x", each).train(tmp_path / name, final=False).history[0]
        for name, each in (("a", plain), ("b", penalty))
    ]
    assert rows[0]["validation_loss"] == rows[1]["validation_loss"]
    model = keras.models.load_model(tmp_path / "a" / "model.keras")
    total = sum(float(np.abs(variable.numpy()).sum()) for variable in prunable(model))
    assert rows[1]["loss"] - rows[0]["loss"] == pytest.approx(0.5 * total, rel=1e-3)


def constant_batches():
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    return x, x @ np.float32([[1], [2], [3], [4]])


def test_a_second_fit_of_a_compiled_model_is_pruned_too():
    """Keras compiles a training step once: without a new one the masks would not be in it."""
    x, y = constant_batches()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_constraint="non_neg")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, y, epochs=1, verbose=0)
    kernel = model.layers[0].kernel
    own = kernel.constraint
    prune = Prune(0.5, end_step=4, settle_step=4, frequency=1)
    model.fit(x, y, epochs=9, batch_size=8, callbacks=[prune], verbose=0)
    assert np.flatnonzero(kernel.numpy()).tolist() == [2, 3]
    assert kernel.constraint is own
    model.fit(x, y, epochs=9, batch_size=8, verbose=0)
    assert np.count_nonzero(kernel.numpy()) == 4  # no mask is left in the step


def test_a_mask_keeps_the_constraint_of_its_variable():
    variable = keras.Variable([[1.0, -1.0, 2.0]])
    variable.constraint = keras.constraints.NonNeg()
    mask = Mask(variable)
    mask.choose(np.array([[True, True, False]]))
    variable.assign(mask(variable + np.float32([[-3.0, 3.0, 1.0]])))
    assert variable.numpy().ravel().tolist() == [0.0, 2.0, 0.0]


def test_weights_are_ranked_over_the_whole_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(4)])
    model.layers[0].kernel.assign(np.full((4, 5), 10.0))
    model.layers[1].kernel.assign(np.full((5, 4), 0.1))
    prune = Prune(0.5, end_step=1)
    prune.set_model(model)
    prune.choose(1)
    assert [int(np.sum(layer.kernel.numpy() == 0)) for layer in model.layers] == [0, 20]


@pytest.mark.parametrize(
    "name", ["adam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adamw", "sgd")), "muon"]
)
def test_a_run_ends_with_its_sparsity_whatever_the_optimizer(recipe, tmp_path, name):
    optimizer = Optimizer(name=name, learning_rate=0.01)
    run = task_of("x", dataclasses.replace(recipe, optimizer=optimizer)).train(tmp_path / "run", final=False)
    kernels = kernels_of(run)
    size, zeros = sum(each.size for each in kernels), sum(int(np.sum(each == 0)) for each in kernels)
    assert zeros == size - round(size * 0.2)
    assert [row["sparsity"] for row in run.history][-1] == pytest.approx(0.8, abs=1 / size)
    assert run.metrics["nonzero_parameters"] <= run.metrics["parameters"] - zeros
    assert run.metrics["best_epoch"] >= 2  # 12 steps are two epochs and a bit


def test_moving_averages_are_pruned_too(recipe, tmp_path):
    averaged = dataclasses.replace(recipe.optimizer, moving_average=0.9)
    run = task_of("x", dataclasses.replace(recipe, optimizer=averaged)).train(tmp_path / "run", final=False)
    kernels = kernels_of(run)
    size = sum(each.size for each in kernels)
    assert sum(int(np.sum(each == 0)) for each in kernels) == size - round(size * 0.2)


def test_layers_that_are_left_out_stay_whole(recipe, tmp_path):
    pruning = dataclasses.replace(recipe.pruning, leave_out=("probabilities", "convolution_1"))
    run = task_of("x", dataclasses.replace(recipe, pruning=pruning)).train(tmp_path / "run", final=False)
    convolution, dense, probabilities = kernels_of(run)
    assert (np.sum(convolution == 0), np.sum(probabilities == 0)) == (0, 0)
    assert np.sum(dense == 0) == dense.size - round(dense.size * 0.2)


@pytest.mark.parametrize("epoch", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_that_died_resumes_to_the_same_masks_and_weights(recipe, tmp_path, epoch):
    whole = task_of("x", recipe).train(tmp_path / "whole", final=False)
    with pytest.raises(RuntimeError):
        task_of("x", recipe).train(tmp_path / "run", callbacks=[StopAt(epoch, RuntimeError)])
    assert_same_result(whole, task_of("x", recipe).train(tmp_path / "run", resume=True, final=False))


def test_the_sparsity_is_not_reached_by_the_step_before(recipe, tmp_path):
    """With a cubic to step 12 in epochs of 6 steps, epoch 1 is at 7/8 of the sparsity or below."""
    run = task_of("x", recipe).train(tmp_path / "run")
    history = [row["sparsity"] for row in run.history]
    assert 0.3 < history[0] < 0.8 - 0.01
    assert history[-1] == max(history)


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        ({"sparsity": 1.0}, r"in \[0, 1\). Received: sparsity=1.0"),
        ({"sparsity": -0.1}, r"in \[0, 1\)"),
        ({"sparsity": 0.5, "begin": 10, "end": 10}, "must come after pruning.begin. Received: begin=10, end=10"),
        ({"sparsity": 0.5, "frequency": 0}, "pruning.frequency must be at least 1"),
        ({"sparsity": 0.5, "end": 10_000}, "within the .* steps of the training. Received: begin=0, end=10000"),
        ({"sparsity": 0.5, "leave_out": ("dens_1",)}, "no prunable layer 'dens_1'. Did you mean dense_1?"),
        (
            {"sparsity": 0.5, "leave_out": ("dense_1", "convolution_1", "probabilities")},
            "no prunable weights left",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_pruned_is_refused_and_leaves_nothing(recipe, tmp_path, pruning, message):
    with pytest.raises(UserError, match=message):
        task_of("x", dataclasses.replace(recipe, pruning=Pruning(**pruning))).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["transformer", pytest.param("gru", marks=pytest.mark.slow)])
def test_language_models_are_pruned_too(tmp_path, monkeypatch, kind):
    """The Transformer's step is compiled by XLA, the recurrent one's is a loop."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("abcdefghijklmnopqrstuvwxyz" * 100)
    common = {
        "optimizer": Optimizer(name="muon", learning_rate=0.02),
        "pruning": Pruning(sparsity=0.5, end=20, frequency=5),
        "training": TextTraining(epochs=3, steps_per_epoch=10, batch_size=8),
    }
    if kind == "transformer":
        model = TransformerModel(width=16, heads=2, layers=1, feed_forward=32, convolution=2)
        text = TextData(source=str(tmp_path / "text.txt"), block_size=8)
        recipe = TransformerRecipe(data=text, model=model, **common)
    else:
        streamed = TextData(source=str(tmp_path / "text.txt"), block_size=8)
        recipe = RecurrentRecipe(data=streamed, model=RecurrentModel(cell="gru", units=16), **common)
    run = task_of("x", recipe).train(tmp_path / "run", final=False)
    kernels = kernels_of(run)
    size = sum(each.size for each in kernels)
    assert sum(int(np.sum(each == 0)) for each in kernels) == size - round(size * 0.5)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
