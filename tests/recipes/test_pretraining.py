"""A denoising autoencoder before the classifier, trained for real on tiny images."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.config import (
    Augmentation,
    ImageData,
    ImageModel,
    ImageRecipe,
    Optimizer,
    Pretraining,
    Training,
    UserError,
)
from recipes.data.examples import Examples, with_few_labels
from recipes.models.image import build_autoencoder, build_classifier
from recipes.runs.directory import Run
from recipes.tasks import task_of
from recipes.training.pretraining import corrupt
from tests.recipes.test_training import StopAt, assert_same_result


@pytest.fixture
def recipe(stripes) -> ImageRecipe:
    return ImageRecipe(
        data=ImageData(source=str(stripes), labels_per_class=4),
        pretraining=Pretraining(epochs=3, batch_size=8, learning_rate=0.01),
        model=ImageModel(dense=(16, 8)),
        optimizer=Optimizer(learning_rate=0.01),
        training=Training(epochs=3, batch_size=4),
    )


def test_a_part_of_the_pixels_is_blackened_and_the_image_is_the_target():
    images = np.full((100, 28, 28, 1), 255, np.float32)
    blackened, targets = corrupt(images, Pretraining(noise=0.3), tf.constant([0, 1]))
    assert float(tf.reduce_mean(tf.cast(blackened == 0, tf.float32))) == pytest.approx(0.3, abs=0.01)
    assert set(np.unique(blackened)) == {0, 255}
    assert targets.shape == (100, 784)
    assert float(tf.reduce_min(targets)) == 1.0


def test_a_moved_image_is_to_be_moved_back():
    images = np.zeros((50, 28, 28, 1), np.float32)
    images[:, 14, 14] = 255
    moved, targets = corrupt(images, Pretraining(noise=0.0, moves=Augmentation(shift=5)), tf.constant([0, 1]))
    np.testing.assert_array_equal(targets, images.reshape(50, -1) / 255)
    places = moved.numpy().reshape(50, -1).argmax(axis=1)
    assert len(set(places.tolist())) > 10


def test_the_pixels_that_are_blackened_say_nothing_of_how_an_image_is_moved():
    """Both drawn by one key for 700 images: the correlation of a shift with any pixels in order is about 0."""
    count, seed = 700, tf.constant([3, 4])
    images = np.zeros((count, 28, 28, 1), np.float32)
    images[:, :, 14] = 255
    moved, _ = corrupt(images, Pretraining(noise=0.0, moves=Augmentation(shift=5)), seed)
    shifts = moved.numpy()[:, 14, :, 0] @ np.arange(28) / 255 - 14
    assert np.abs(shifts).max() == pytest.approx(5, abs=0.1)
    kept = corrupt(np.full((count, 28, 28, 1), 255, np.float32), Pretraining(noise=0.5), seed)[0].numpy() > 0
    in_order = kept.reshape(-1)[: 20 * count]
    correlations = [np.corrcoef(shifts, in_order[lag : lag + count])[0, 1] for lag in range(19 * count)]
    assert np.abs(correlations).max() < 0.25  # by chance at most about 4.3 / sqrt(700) = 0.16


def test_the_encoder_is_the_classifier_and_the_decoder_its_mirror():
    classifier = build_classifier(ImageModel(dense=(32, 16, 8)), (28, 28, 1), 10)
    autoencoder = build_autoencoder(classifier)
    widths = [layer.units for layer in autoencoder.layers if isinstance(layer, keras.layers.Dense)]
    assert widths == [32, 16, 8, 16, 32, 784]
    assert autoencoder.get_layer("dense_2") is classifier.get_layer("dense_2")
    assert autoencoder(np.zeros((2, 28, 28, 1), np.float32)).shape == (2, 784)


def test_so_many_labels_of_each_class_are_drawn_by_the_seed():
    examples = Examples(np.arange(60).reshape(60, 1, 1, 1), np.arange(60) % 3)
    few = with_few_labels(examples, 5, 0, ("a", "b", "c"))
    assert np.bincount(few.labels).tolist() == [5, 5, 5]
    np.testing.assert_array_equal(few.images.ravel() % 3, few.labels)
    assert not np.array_equal(few.images, with_few_labels(examples, 5, 1, ("a", "b", "c")).images)
    assert with_few_labels(examples, None, 0, ("a", "b", "c")) is examples
    with pytest.raises(UserError, match="class 'a' has 20 training images. Received: 21"):
        with_few_labels(examples, 21, 0, ("a", "b", "c"))


def test_the_hidden_layers_learn_to_restore_images_before_the_classifier_is_trained(recipe, tmp_path):
    digits = dataclasses.replace(
        recipe,
        data=ImageData(source="digits", labels_per_class=4),
        model=ImageModel(dense=(64, 32)),
        pretraining=Pretraining(epochs=4, batch_size=64),
    )
    run = task_of("x", digits).train(tmp_path / "run")
    before = Run(run.path / "pretraining")
    losses = [row["validation_loss"] for row in before.history]
    assert losses[-1] < 0.9 * losses[0]
    assert before.metrics["validation_loss"] == min(losses)
    assert len(run.history) == 3
    # Without training after it the classifier's hidden layers are the autoencoder's.
    still = dataclasses.replace(digits, optimizer=Optimizer(name="sgd", learning_rate=1e-12))
    untouched = keras.models.load_model(task_of("x", still).train(tmp_path / "still", final=False).model_path)
    encoder = keras.models.load_model(Run(tmp_path / "still" / "pretraining").model_path)
    for name in ("dense_1", "dense_2"):
        for ours, theirs in zip(
            untouched.get_layer(name).get_weights(), encoder.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("stopped_in", ["pretraining", pytest.param("training", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_end(recipe, tmp_path, stopped_in, monkeypatch):
    whole = task_of("x", recipe).train(tmp_path / "whole", final=False)
    if stopped_in == "training":
        with pytest.raises(KeyboardInterrupt):
            task_of("x", recipe).train(tmp_path / "run", callbacks=[StopAt(2, KeyboardInterrupt)])
    else:
        from recipes.training import pretraining

        fit = pretraining.fit
        stop = lambda *arguments: fit(*arguments, after_history=[StopAt(2, KeyboardInterrupt)])  # noqa: E731
        monkeypatch.setattr(pretraining, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            task_of("x", recipe).train(tmp_path / "run")
        monkeypatch.undo()
    run = task_of("x", recipe).train(tmp_path / "run", resume=True, final=False)
    assert_same_result(run, whole)
    assert_same_result(Run(run.path / "pretraining"), Run(whole.path / "pretraining"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, "pretraining.epochs must be at least 0. Received: epochs=-1"),
        ({"noise": 1.0}, "pretraining.noise must be in .0, 1.. Received: noise=1.0"),
        ({"moves": Augmentation(end_fraction=0.5)}, "must be 1. Received: end_fraction=0.5"),
        ({"batch_size": 0}, "pretraining.batch_size must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Pretraining(**settings)
