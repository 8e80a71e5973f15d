import numpy as np
import pytest

from recipes.config import Augmentation, UserError
from recipes.data.augmentation import augment, random_transforms
from recipes.data.batches import TrainingBatches, evaluation_batches
from recipes.data.examples import Examples


def numbered(count: int) -> Examples:
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 28, 28, 1))
    return Examples(np.ascontiguousarray(images), np.arange(count, dtype=np.int64))


def batches_of(
    count: int, batch_size: int, seed: int = 0, augmentation: Augmentation | None = None
) -> TrainingBatches:
    return TrainingBatches(
        numbered(count), batch_size=batch_size, augmentation=augmentation or Augmentation(), seed=seed
    )


def order(batches: TrainingBatches, epoch: int) -> list[int]:
    batches.epoch.assign(epoch)
    return [int(label) for _, labels in batches.dataset for label in labels]


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    batches = batches_of(20, 5)
    first = order(batches, 0)
    assert sorted(first) == list(range(20))
    assert order(batches, 1) != first
    assert order(batches, 0) == first
    assert order(batches_of(20, 5), 0) == first
    assert order(batches_of(20, 5, seed=1), 0) != first


def test_images_stay_with_their_labels():
    for images, labels in batches_of(20, 5).dataset:
        assert images.shape == (5, 28, 28, 1)
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


def test_a_last_smaller_batch_is_left_out_and_counted_so():
    batches = batches_of(23, 5)
    assert batches.steps_per_epoch == 4
    assert len(order(batches, 0)) == 20


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UserError, match="at most the number of training examples, 20. Received: 21"):
        batches_of(20, 21)


def test_evaluation_batches_hold_every_example_once_in_order():
    labels = [int(label) for _, labels in evaluation_batches(numbered(250)) for label in labels]
    assert labels == list(range(250))


def test_augmentation_is_a_function_of_the_seed():
    settings = Augmentation(rotate=20, scale=0.2, shift=3, shear=10)
    images = np.random.default_rng(0).uniform(0, 255, (4, 28, 28, 1)).astype(np.float32)
    once, again, other = (augment(images, settings, seed).numpy() for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert once.shape == images.shape
    assert once.min() >= 0
    assert once.max() <= 255


def test_no_augmentation_changes_nothing():
    images = np.ones((2, 28, 28, 1), np.float32)
    assert augment(images, Augmentation(), [0, 0]) is images


@pytest.mark.parametrize(
    ("settings", "point", "limit"),
    [
        (Augmentation(shift=2), (13.5, 13.5), 2.0),  # the centre moves by at most the shift
        (Augmentation(rotate=30), (13.5, 13.5), 0.0),  # and not at all when the image only turns
        (Augmentation(scale=0.1), (23.5, 13.5), 10 / 0.9 - 10),  # 10 pixels from the centre
        (Augmentation(shear=45), (13.5, 23.5), 10.0),  # tan 45° of 10 pixels
        (Augmentation(rotate=90), (23.5, 13.5), 10.0),
    ],
)
def test_each_transform_keeps_to_its_range(settings, point, limit):
    a, b, c, d, e, f, _, _ = random_transforms(5000, (28, 28), settings, [0, 0]).numpy().T
    x, y = point
    moves = np.abs(np.stack([a * x + b * y + c - x, d * x + e * y + f - y]))
    assert moves.max() == pytest.approx(limit, rel=0.02, abs=1e-4)


def test_a_quarter_turn_turns_by_a_quarter():
    # The range is drawn evenly, so some of many draws are within half a degree of +90°.
    images = np.zeros((4000, 29, 29, 1), np.float32)
    images[:, 14, 24] = 1  # 10 to the right of the centre
    turned = augment(images, Augmentation(rotate=90), [3, 4]).numpy()
    assert turned[:, 3:6, 13:16].sum(axis=(1, 2, 3)).max() > 0.9  # 10 above it
