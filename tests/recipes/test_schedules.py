import math

import numpy as np
import pytest

from recipes.config import Schedule
from recipes.schedules import LearningRate

EPOCHS, STEPS_PER_EPOCH = 10, 4
STEPS = (0, 1, 13, 20, 39)


def rates(steps, **settings):
    owner = LearningRate(Schedule(**settings), highest=0.5, steps_per_epoch=STEPS_PER_EPOCH, epochs=EPOCHS)
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
