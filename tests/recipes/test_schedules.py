"""Learning-rate schedules, batch sizes and optimizers, against closed forms and numbers by hand."""

import math

import keras
import numpy as np
import pytest

from recipes.config import BatchSchedule, ImageRecipe, Optimizer, Schedule, Training, UserError, from_dict
from recipes.data.batch_sizes import BatchSizes
from recipes.training import schedules
from recipes.training.compile import build_schedule
from recipes.training.optimizers import build_optimizer
from tests.recipes.sizes import fixed_sizes

EPOCHS, STEPS_PER_EPOCH = 10, 4
STEPS = (0, 1, 13, 20, 39)


def rates(steps, **settings):
    recipe = ImageRecipe(
        schedule=Schedule(**settings),
        optimizer=Optimizer(learning_rate=0.5),
        training=Training(epochs=EPOCHS),
    )
    schedule = build_schedule(recipe, fixed_sizes(8, steps=STEPS_PER_EPOCH, epochs=EPOCHS))
    return [float(schedule(step)) for step in steps]


def one_cycle(t):
    if t < 2:
        return 0.1 + 0.9 * t / 2
    return (1 + math.cos(math.pi * (t - 2) / 8)) / 2


# The closed forms, of the time t in epochs, for 10 epochs and a highest rate of 1.
CLOSED_FORMS = [
    ({"name": "constant"}, lambda t: 1),
    ({"name": "exponential", "rate": 0.8}, lambda t: 0.8**t),
    ({"name": "polynomial", "power": 2.0}, lambda t: (1 - t / 10) ** 2),
    ({"name": "cosine"}, lambda t: (1 + math.cos(math.pi * t / 10)) / 2),
    ({"name": "cosine", "final_fraction": 0.2}, lambda t: 0.2 + 0.8 * (1 + math.cos(math.pi * t / 10)) / 2),
    ({"name": "inverse-square-root", "beta": 3.0}, lambda t: 1 / math.sqrt(1 + 3 * t)),
    ({"name": "one-cycle", "initial_fraction": 0.1}, one_cycle),
    ({"name": "wsd", "decay_fraction": 0.25}, lambda t: min(1, (10 - t) / 2.5)),
]


@pytest.mark.parametrize(("settings", "closed_form"), CLOSED_FORMS)
def test_each_schedule_follows_its_closed_form_by_step(settings, closed_form):
    expected = [0.5 * closed_form(step / 4) for step in STEPS]
    assert rates(STEPS, **settings) == pytest.approx(expected, rel=1e-5, abs=1e-7)  # float32


def test_warm_up_rises_in_a_straight_line_and_the_curve_begins_after_it():
    # 2 epochs are 8 steps; after them 8 epochs of polynomial decay remain.
    warm = rates(range(8), name="polynomial", warmup=2)
    assert warm == pytest.approx([0.5 * (step + 1) / 8 for step in range(8)])
    assert rates([8, 24], name="polynomial", warmup=2) == pytest.approx([0.5, 0.25])


@pytest.mark.parametrize(("settings", "_"), CLOSED_FORMS)
def test_no_schedule_leaves_its_range_on_the_way(settings, _):
    all_rates = np.array(rates(range(EPOCHS * STEPS_PER_EPOCH), **settings))
    assert np.all((all_rates >= 0) & (all_rates <= 0.5 + 1e-6))


def test_after_the_last_step_the_rate_stays():
    schedule = schedules.Cosine(0.5, total_steps=10, final_fraction=0.2)
    assert float(schedule(1000)) == pytest.approx(float(schedule(10))) == pytest.approx(0.1)


def test_a_warm_up_as_long_as_the_training_is_refused():
    with pytest.raises(ValueError, match=r"more than warmup_steps. Received: total_steps=5, warmup_steps=5"):
        schedules.OneCycle(0.1, total_steps=5, warmup_steps=5)


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.Constant(0.1, warmup_steps=3),
        schedules.Exponential(0.1, decay_steps=5, rate=0.5),
        schedules.InverseSquareRoot(0.1, decay_steps=5, warmup_steps=2.5),
        schedules.Polynomial(0.1, total_steps=20, power=2.0),
        schedules.Cosine(0.1, total_steps=20, final_fraction=0.1),
        schedules.OneCycle(0.1, total_steps=20, rise_fraction=0.4),
        schedules.WarmupStableDecay(0.1, total_steps=20, warmup_steps=4),
        schedules.Plateau(0.1, warmup_steps=4),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_saved_model_keeps_its_schedule(schedule, tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    x = np.ones((8, 1), np.float32)
    model.fit(x, x, batch_size=1, epochs=1, verbose=0)
    if isinstance(schedule, schedules.Plateau):
        schedule.rate.assign(0.05)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.learning_rate) == float(schedule(8))
    for each in (model, loaded):
        each.fit(x, x, batch_size=1, epochs=1, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], loaded.get_weights()[0])


def sizes_of(batch_size, *, examples, epochs=10, seed=0, **settings):
    return BatchSizes(BatchSchedule(**settings), batch_size, examples=examples, epochs=epochs, seed=seed)


def test_a_fixed_size_leaves_the_last_smaller_batch_out():
    sizes = sizes_of(8, examples=35, epochs=2)
    assert sizes.of_epoch(0).tolist() == [8, 8, 8, 8]
    assert (sizes.steps_per_epoch, sizes.total_steps, sizes.mean) == (4, 8, 8.0)


def test_random_sizes_are_drawn_from_the_range_by_seed_and_epoch():
    sizes = sizes_of(10, examples=100_000, name="random", largest=30)
    first = sizes.of_epoch(0)
    assert set(first.tolist()) == set(range(10, 31))
    assert first.mean() == pytest.approx(20, abs=0.5)
    assert 100_000 - 30 < first.sum() <= 100_000
    assert first.tolist() == sizes.of_epoch(0).tolist() != sizes.of_epoch(1).tolist()
    other = sizes_of(10, examples=100_000, name="random", largest=30, seed=1)
    assert other.of_epoch(0).tolist() != first.tolist()


@pytest.mark.parametrize(("examples", "steps"), [(10, 1), (44, 3), (100, 8), (1001, 83)])
def test_every_epoch_of_random_sizes_has_the_same_steps_and_examples(examples, steps):
    """From 8 to 16, or to all of 10 examples: 12 on the average, or 9."""
    sizes = sizes_of(8, examples=examples, name="random", largest=16)
    epochs = [sizes.of_epoch(epoch) for epoch in range(20)]
    assert {len(drawn) for drawn in epochs} == {steps} == {sizes.steps_per_epoch}
    assert {drawn.sum() for drawn in epochs} == {steps * (9 if examples == 10 else 12)}
    assert min(drawn.min() for drawn in epochs) >= 8
    assert max(drawn.max() for drawn in epochs) <= min(16, examples)


def test_examples_drive_the_learning_rate_as_steps_do():
    """At each step the part of the examples that is done is the part of the steps, to within a batch."""
    sizes = sizes_of(10, examples=1000, name="random", largest=30).of_epoch(3)
    done = np.cumsum(sizes) / sizes.sum()
    np.testing.assert_allclose(done, np.arange(1, 51) / 50, atol=30 / 1000)
    np.testing.assert_allclose(done[1::2], np.arange(2, 51, 2) / 50)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"batches": {"largest": 256}}, "batches fixed takes no setting of its own. Received: largest=256"),
        (
            {"batches": {"name": "random", "largest": 64}},
            "at least training.batch_size. Received: largest=64",
        ),
        (
            {"batches": {"name": "random"}, "optimizer": {"name": "gradient-descent"}},
            "batches must be fixed. Received: batches='random'",
        ),
        (
            {"regularization": {"l2": 0.1}, "optimizer": {"name": "adamw"}},
            "weight decay twice.*Received: l2=0.1, weight_decay=0.01",
        ),
    ],
)
def test_contradictions_are_refused(tree, message):
    with pytest.raises(UserError, match=message):
        from_dict(ImageRecipe, tree)


def steps_of(name, gradients, **settings):
    """Return where a weight of 1 goes, a step for each gradient, at a learning rate of 0.1."""
    weight = keras.Variable([[1.0]], name="kernel")
    optimizer = build_optimizer(Optimizer(name=name, learning_rate=0.1, **settings), 0.1, [weight])
    places = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor([[gradient]])], [weight])
        places.append(float(weight.numpy()[0, 0]))
    return places


# Two steps with gradients of 0.5 and 0.5, by hand.
BY_HAND = [
    ("gradient-descent", {}, [0.95, 0.9]),
    ("sgd", {}, [0.95, 0.9]),
    ("sgd", {"weight_decay": 0.2}, [0.98 - 0.05, 0.93 * 0.98 - 0.05]),
    ("momentum", {}, [1 - 0.05, 0.95 - (0.9 * 0.05 + 0.05)]),
    ("adagrad", {}, [1 - 0.05 / 0.35**0.5, 1 - 0.05 / 0.35**0.5 - 0.05 / 0.6**0.5]),
    ("rmsprop", {}, [1 - 0.05 / 0.025**0.5, 1 - 0.05 / 0.025**0.5 - 0.05 / 0.0475**0.5]),
    ("adam", {}, [0.9, 0.8]),
    ("adamw", {"weight_decay": 0.2}, [0.98 - 0.1, 0.88 * 0.98 - 0.1]),
]


@pytest.mark.parametrize(("name", "settings", "places"), BY_HAND)
def test_each_optimizer_makes_the_steps_computed_by_hand(name, settings, places):
    assert steps_of(name, [0.5, 0.5], **settings) == pytest.approx(places, rel=1e-4)


def test_muon_makes_the_step_computed_by_hand():
    """Of a 1 x 1 matrix the iteration is a polynomial of a number, which starts at 1."""
    value = 1.0
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    assert steps_of("muon", [0.5]) == pytest.approx([1 - 0.1 * 0.2 * value], rel=1e-4)
