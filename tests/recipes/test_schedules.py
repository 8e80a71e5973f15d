import math

import keras
import numpy as np
import pytest

from recipes.config import BatchSchedule, ImageRecipe, Optimizer, Schedule, UserError, from_dict
from recipes.data.batch_sizes import BatchSizes
from recipes.training.optimizers import build_optimizer
from recipes.training.schedules import LearningRate
from tests.recipes.sizes import fixed_sizes

EPOCHS, STEPS_PER_EPOCH = 10, 4
STEPS = (0, 1, 13, 20, 39)


def rates(steps, **settings):
    times = fixed_sizes(8, steps=STEPS_PER_EPOCH, epochs=EPOCHS).times
    owner = LearningRate(Schedule(**settings), highest=0.5, times=times)
    return [float(owner(step)) for step in steps]


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
    ({"name": "step", "factor": 0.5, "boundaries": (0.3, 0.5)}, lambda t: 0.5 ** ((t >= 3) + (t >= 5))),
    ({"name": "one-cycle", "initial_fraction": 0.1}, one_cycle),
    ({"name": "wsd", "decay_fraction": 0.25}, lambda t: min(1, (10 - t) / 2.5)),
]


@pytest.mark.parametrize(("settings", "closed_form"), CLOSED_FORMS)
def test_each_schedule_follows_its_closed_form_by_step(settings, closed_form):
    expected = [0.5 * closed_form(step / 4) for step in STEPS]
    assert rates(STEPS, **settings) == pytest.approx(expected, rel=1e-5, abs=1e-7)  # float32


@pytest.mark.parametrize(("settings", "closed_form"), CLOSED_FORMS)
def test_by_epoch_the_rate_changes_only_between_epochs(settings, closed_form):
    expected = [0.5 * closed_form(step // 4) for step in STEPS]
    assert rates(STEPS, every="epoch", **settings) == pytest.approx(expected, rel=1e-5, abs=1e-7)  # float32


def test_warm_up_rises_in_a_straight_line_and_the_curve_begins_after_it():
    # 2 epochs are 8 steps; after them 8 epochs of polynomial decay remain.
    warm = rates(range(8), name="polynomial", warmup=2)
    assert warm == pytest.approx([0.5 * (step + 1) / 8 for step in range(8)])
    assert rates([8, 24], name="polynomial", warmup=2) == pytest.approx([0.5, 0.25])


def test_warm_up_by_epoch_takes_whole_steps():
    assert rates([0, 3, 4, 8], name="constant", warmup=2, every="epoch") == pytest.approx(
        [0.25, 0.25, 0.5, 0.5]
    )


@pytest.mark.parametrize(("settings", "_"), CLOSED_FORMS)
def test_no_schedule_leaves_its_range_on_the_way(settings, _):
    all_rates = np.array(rates(range(EPOCHS * STEPS_PER_EPOCH), **settings))
    assert np.all((all_rates >= 0) & (all_rates <= 0.5 + 1e-6))


def sizes_of(batch_size, *, examples, epochs=10, seed=0, **settings):
    return BatchSizes(BatchSchedule(**settings), batch_size, examples=examples, epochs=epochs, seed=seed)


def test_a_fixed_size_leaves_the_last_smaller_batch_out():
    sizes = sizes_of(8, examples=35, epochs=2)
    assert sizes.of_epoch(0).tolist() == [8, 8, 8, 8]
    assert sizes.times.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert (sizes.total_steps, sizes.fewest_steps) == (8, 4)


def test_random_sizes_are_drawn_from_the_range_by_seed_and_epoch():
    sizes = sizes_of(10, examples=100_000, name="random", largest=30)
    first = sizes.of_epoch(0)
    assert set(first.tolist()) == set(range(10, 31))
    assert first.mean() == pytest.approx(20, abs=0.5)
    assert 100_000 - 30 < first.sum() <= 100_000
    assert first.tolist() == sizes.of_epoch(0).tolist() != sizes.of_epoch(1).tolist()
    other = sizes_of(10, examples=100_000, name="random", largest=30, seed=1)
    assert other.of_epoch(0).tolist() != first.tolist()


def test_growing_sizes_are_multiplied_at_each_boundary_up_to_the_largest():
    """Boundaries at 0.25 and 0.5 of 4 epochs: with the second, and with the third."""
    sizes = sizes_of(
        10, examples=120, epochs=4, name="growing", factor=3.0, boundaries=(0.25, 0.5), largest=60
    )
    assert [sizes.of_epoch(epoch).tolist() for epoch in range(4)] == [
        [10] * 12, [30] * 4, [60] * 2, [60] * 2
    ]  # fmt: skip


def test_size_grows_within_an_epoch_too():
    sizes = sizes_of(10, examples=100, epochs=1, name="growing", factor=2.0, boundaries=(0.6,), largest=60)
    assert sizes.of_epoch(0).tolist() == [10] * 6 + [20] * 2


def test_examples_drive_the_learning_rate_not_steps():
    """Half of an epoch's examples are half of its time, whatever the number of steps."""
    sizes = sizes_of(10, examples=120, epochs=2, name="growing", factor=3.0, boundaries=(0.5,), largest=60)
    assert sizes.times.tolist() == pytest.approx([*np.arange(12) / 12, 1, 1.25, 1.5, 1.75, 2])
    rate = LearningRate(Schedule(name="polynomial"), highest=1.0, times=sizes.times)
    assert [float(rate(step)) for step in (0, 6, 12, 14, 15)] == pytest.approx([1, 0.75, 0.5, 0.25, 0.125])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"batches": {"factor": 2.0}}, "batches fixed takes no setting of its own. Received: factor=2.0"),
        ({"batches": {"name": "random", "factor": 2.0}}, "batches random takes largest"),
        (
            {"batches": {"name": "growing", "factor": 1.0}},
            "batches.factor must be above 1. Received: factor=1.0",
        ),
        (
            {"batches": {"name": "random", "largest": 64}},
            "at least training.batch_size. Received: largest=64",
        ),
        (
            {"batches": {"name": "random"}, "optimizer": {"name": "gradient-descent"}},
            "its batch size can't change. Received: batches='random'",
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
    rate = LearningRate(Schedule(), highest=0.1, times=np.arange(4.0))
    optimizer = build_optimizer(Optimizer(name=name, learning_rate=0.1, **settings), rate, [weight])
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
    ("nesterov", {}, [1 - (0.9 * 0.05 + 0.05), 0.905 - (0.9 * 0.095 + 0.05)]),
    ("adagrad", {}, [1 - 0.05 / 0.35**0.5, 1 - 0.05 / 0.35**0.5 - 0.05 / 0.6**0.5]),
    ("rmsprop", {}, [1 - 0.05 / 0.025**0.5, 1 - 0.05 / 0.025**0.5 - 0.05 / 0.0475**0.5]),
    ("adam", {}, [0.9, 0.8]),
    ("adamw", {"weight_decay": 0.2}, [0.98 - 0.1, 0.88 * 0.98 - 0.1]),
    ("lion", {}, [0.9, 0.8]),
    ("lion", {"weight_decay": 0.2}, [0.98 - 0.1, 0.88 * 0.98 - 0.1]),
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


def test_accumulated_gradients_make_one_update_of_their_mean():
    assert steps_of("sgd", [0.2, 0.4, 0.9], accumulate=3) == pytest.approx([1, 1, 0.95])
