import numpy as np
import pytest

from recipes.config import Augmentation, BatchSchedule, ImageRecipe, Optimizer, Training, UserError
from recipes.data.batch_sizes import batch_sizes
from recipes.data.batches import TrainingBatches, evaluation_images, training_images
from recipes.data.examples import Examples


def numbered(count: int) -> Examples:
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 28, 28, 1))
    return Examples(np.ascontiguousarray(images), np.arange(count, dtype=np.int64))


def batches_of(
    count: int, batch_size: int, seed: int = 0, augmentation: Augmentation | None = None
) -> TrainingBatches:
    sizes = batch_sizes(ImageRecipe(training=Training(batch_size=batch_size)), count)
    return training_images(numbered(count), count, sizes, augmentation or Augmentation(), seed)


def order(batches: TrainingBatches, epoch: int) -> list[int]:
    batches.epoch.assign(epoch)
    return [int(label) for _, labels in batches.dataset for label in np.argmax(labels, axis=1)]


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
        np.testing.assert_array_equal(images[:, 0, 0, 0], np.argmax(labels, axis=1))
        np.testing.assert_array_equal(np.sort(labels, axis=1), np.eye(20)[[19] * 5])


def test_a_last_smaller_batch_is_left_out_and_counted_so():
    batches = batches_of(23, 5)
    assert len(batches.dataset) == 4
    assert len(order(batches, 0)) == 20


def test_random_batches_are_cut_from_the_same_order():
    recipe = ImageRecipe(
        training=Training(batch_size=2, epochs=2), batches=BatchSchedule(name="random", largest=8)
    )
    sizes = batch_sizes(recipe, 20)
    random = training_images(numbered(20), 20, sizes, Augmentation(), 0)
    assert order(random, 0) == order(batches_of(20, 5), 0)
    for epoch in (1, 0):
        random.epoch.assign(epoch)
        assert [len(labels) for _, labels in random.dataset] == sizes.of_epoch(epoch).tolist()
    assert len(random.dataset) == len(sizes.of_epoch(0)) == 4


def test_images_stay_as_they_are_after_their_part_of_the_training():
    sizes = batch_sizes(ImageRecipe(training=Training(batch_size=5, epochs=4)), 20)
    batches = training_images(numbered(20), 20, sizes, Augmentation(shift=5, end_fraction=0.7), 0)

    def moved(epoch: int) -> int:
        """Count the images that are not their number in every pixel; 0 moved is 0 still."""
        batches.epoch.assign(epoch)
        return sum(
            bool(np.any(image != label))
            for images, labels in batches.dataset
            for image, label in zip(images, np.argmax(labels, axis=1), strict=True)
        )

    assert [moved(epoch) for epoch in range(4)] == [19, 19, 0, 0]


def test_the_largest_seed_gives_batches():
    assert sorted(order(batches_of(20, 5, seed=2**32 - 1, augmentation=Augmentation(shift=1)), 0)) == list(
        range(20)
    )


def test_gradient_descent_takes_all_examples_at_once():
    recipe = ImageRecipe(optimizer=Optimizer(name="gradient-descent"), training=Training(batch_size=2))
    assert batch_sizes(recipe, 23).of_epoch(0).tolist() == [23]


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(
        UserError, match="at most the number of training examples, 20. Received: batch_size=21"
    ):
        batches_of(20, 21)


def test_evaluation_images_hold_every_example_once_in_order():
    labels = [
        int(each) for _, labels in evaluation_images(numbered(250), 250) for each in np.argmax(labels, 1)
    ]
    assert labels == list(range(250))
