"""Augmentation: what each transform does to an image that a reader can picture."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from recipes.config import Augmentation, Pretraining
from recipes.data.augmentation import augment
from recipes.data.augmentation.affine import move, random_transforms
from recipes.data.augmentation.elastic import random_shifts, sample
from recipes.data.augmentation.erase import erase
from recipes.data.augmentation.mix import mix, random_weights
from recipes.training.pretraining import corrupt
from tests.recipes.test_command_line import assert_refused, recipes

EVERYTHING = Augmentation(
    flip="both",
    rotate=20,
    scale=0.2,
    shift=3,
    crop=0.2,
    shear=10,
    elastic=1,
    erase=0.2,
    mix_up=0.3,
    cut_mix=1,
)


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 28, 28, 1)).astype(np.float32)


def test_augmentation_is_a_function_of_the_seed():
    images, labels = random_images(4), np.eye(4, 10, dtype=np.float32)
    once, again, other = (
        augment(images, labels, EVERYTHING, tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3])
    )
    for one, same, different in zip(once, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, different)
    assert once[0].shape == images.shape
    assert 0 <= once[0].numpy().min() <= once[0].numpy().max() <= 255
    np.testing.assert_allclose(once[1].numpy().sum(axis=1), 1, rtol=1e-6)


def recorded_keys(monkeypatch, run) -> list[tuple[int, int]]:
    """Return the key of each random operation, those that split a key included."""
    used = []

    def recording(function, place):
        def record(*arguments, **named):
            seed = named["seed"] if "seed" in named else arguments[place]
            used.append(tuple(np.asarray(seed).tolist()))
            return function(*arguments, **named)

        return record

    for owner, name, place in [
        (tf.random, "stateless_uniform", 1),
        (tf.random, "stateless_normal", 1),
        (tf.random, "stateless_gamma", 1),
        (tf.random.experimental, "stateless_split", 0),
    ]:
        monkeypatch.setattr(owner, name, recording(getattr(owner, name), place))
    run()
    monkeypatch.undo()
    return used


def test_each_random_operation_has_a_key_of_its_own(monkeypatch):
    images, labels = random_images(4), np.eye(4, 10, dtype=np.float32)
    used = recorded_keys(monkeypatch, lambda: augment(images, labels, EVERYTHING, tf.constant([1, 2])))
    assert len(used) >= 12
    assert len(set(used)) == len(used)
    moves = Pretraining(moves=dataclasses.replace(EVERYTHING, mix_up=0.0, cut_mix=0.0))
    used = recorded_keys(monkeypatch, lambda: corrupt(images, moves, tf.constant([1, 2])))
    assert len(set(used)) == len(used)


def test_flips_say_nothing_of_elastic_shifts():
    """Both drawn by one key for 1,000 images: no run of the shifts goes with the flips, wherever it begins."""
    count, size, seed = 1000, 8, tf.constant([5, 6])
    labels = np.zeros((count, 1), np.float32)
    left_half = np.zeros((count, size, size, 1), np.float32)
    left_half[:, :, : size // 2] = 255
    flipped = augment(left_half, labels, Augmentation(flip="horizontal"), seed)[0].numpy()[:, 0, 0, 0] < 128
    assert flipped.mean() == pytest.approx(0.5, abs=0.05)
    ramp = np.zeros((count, size, size, 1), np.float32) + np.arange(size, dtype=np.float32)[:, None, None]
    # So little smoothness leaves each pixel a shift of its own, drawn with a border of one and for two axes.
    bent = augment(ramp, labels, Augmentation(elastic=0.1, elastic_smoothness=0.1), seed)[0].numpy()
    drawn = np.full((count, size + 2, size + 2, 2), np.nan)
    drawn[:, 2:-2, 2:-2, 0] = (bent - ramp)[:, 1:-1, 1:-1, 0]
    assert np.nanstd(drawn) == pytest.approx(0.1, rel=0.1)
    in_order = drawn.reshape(-1)
    for begin in range(8 * count):
        run = in_order[begin : begin + count]
        seen = ~np.isnan(run)  # some 180: chance gives correlations of up to 4.4 / sqrt(180) = 0.33
        assert abs(np.corrcoef(flipped[seen], run[seen])[0, 1]) < 0.5, begin


def test_no_augmentation_changes_nothing():
    images, labels = np.ones((2, 28, 28, 1), np.float32), np.eye(2, dtype=np.float32)
    assert augment(images, labels, Augmentation(), tf.constant([0, 0])) == (images, labels)


@pytest.mark.parametrize(
    ("settings", "point", "limit"),
    [
        (Augmentation(shift=2), (13.5, 13.5), 2.0),  # the centre moves by at most the shift
        (Augmentation(rotate=30), (13.5, 13.5), 0.0),  # and not at all when the image only turns
        (Augmentation(scale=0.1), (23.5, 13.5), 10 / 0.9 - 10),  # 10 pixels from the centre
        (Augmentation(shear=45), (13.5, 23.5), 10.0),  # tan 45° of 10 pixels
        (Augmentation(rotate=90), (23.5, 13.5), 10.0),
        (Augmentation(flip="horizontal"), (23.5, 13.5), 20.0),  # to the other side
        (Augmentation(flip="vertical"), (23.5, 13.5), 0.0),
        (
            Augmentation(crop=0.5),
            (13.5, 13.5),
            6.75,
        ),  # of the 27 pixels between the outermost centres, a quarter
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
    turned = move(images, Augmentation(rotate=90), [3, 4]).numpy()
    assert turned[:, 3:6, 13:16].sum(axis=(1, 2, 3)).max() > 0.9  # 10 above it


def test_half_of_the_images_are_mirrored_and_pixels_stay_what_they_are():
    images = np.repeat(random_images(1), 1000, axis=0)
    flipped = move(images, Augmentation(flip="horizontal"), [0, 0]).numpy()
    mirrored = [np.allclose(image, images[0, :, ::-1], atol=1e-3) for image in flipped]
    same = [np.allclose(image, images[0], atol=1e-3) for image in flipped]
    assert 450 < sum(mirrored) < 550
    assert sum(mirrored) + sum(same) == 1000


def test_a_crop_never_looks_outside_of_the_image():
    white = np.full((500, 28, 28, 1), 255, np.float32)
    np.testing.assert_allclose(move(white, Augmentation(crop=0.3), [0, 0]), 255, rtol=1e-4)


def test_elastic_shifts_are_as_long_as_they_say_and_neighbours_go_together():
    settings = Augmentation(elastic=2.0, elastic_smoothness=4.0)
    shifts = random_shifts(500, (28, 28), settings, [0, 0]).numpy()
    assert shifts.std() == pytest.approx(2.0, rel=0.05)
    beside = np.corrcoef(shifts[:, :, :-1].ravel(), shifts[:, :, 1:].ravel())[0, 1]
    far = np.corrcoef(shifts[:, :, :-20].ravel(), shifts[:, :, 20:].ravel())[0, 1]
    # Of Gaussian-blurred noise, at a distance d: exp(-d^2 / (4 sigma^2)).
    assert beside == pytest.approx(np.exp(-1 / 64), abs=0.01)
    assert abs(far) < 0.05


def test_places_between_pixels_get_colours_between_and_outside_is_black():
    image = np.float32([[1, 2], [3, 4]]).reshape(1, 2, 2, 1)
    y = np.float32([[[0, 0], [0.5, -1]]])
    x = np.float32([[[0, 0.5], [0.5, 0]]])
    np.testing.assert_allclose(sample(image, y, x).numpy().reshape(2, 2), [[1, 1.5], [2.5, 0]])
    np.testing.assert_allclose(sample(image, y - 0.5, x)[0, 0, 0, 0], 0.5)  # half outside


def test_erasing_blackens_one_rectangle_of_at_most_its_part():
    white = np.full((500, 28, 28, 1), 255, np.float32)
    black = erase(white, Augmentation(erase=0.25), [0, 0]).numpy()[..., 0] == 0
    areas = black.mean(axis=(1, 2))
    assert areas.mean() == pytest.approx(0.125, abs=0.01)
    assert areas.max() < 0.25 + 0.04  # sides are whole pixels
    for image in black:
        rows, columns = image.any(axis=1), image.any(axis=0)
        assert image.sum() == rows.sum() * columns.sum()


@pytest.mark.parametrize(
    "settings", [Augmentation(mix_up=1.0), Augmentation(cut_mix=1.0), Augmentation(mix_up=1.0, cut_mix=1.0)]
)
def test_labels_are_mixed_as_the_images_are(settings):
    """Black images of class 0 and white ones of class 1: brightness is the part of class 1."""
    labels = np.eye(2, dtype=np.float32)[np.arange(1000) % 2]  # the other one is of the other class
    images = 255 * labels[:, 1, np.newaxis, np.newaxis, np.newaxis] * np.ones((1, 28, 28, 1), np.float32)
    mixed, weights = (each.numpy() for each in mix(images, labels, settings, tf.constant([0, 0])))
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)) / 255, weights[:, 1], atol=1e-5)
    assert weights[:, 1].mean() == pytest.approx(0.5, abs=0.03)
    assert ((weights > 0.05) & (weights < 0.95)).mean() > 0.5
    halves = {bool(np.isin(image, (0, 255)).all()) for image in mixed}
    assert (True in halves) == bool(settings.cut_mix)
    assert (False in halves) == bool(settings.mix_up)


def test_weights_come_from_their_beta_distribution():
    """Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2a + 1))."""
    weights = random_weights(20_000, 0.5, [0, 0]).numpy()
    assert weights.mean() == pytest.approx(0.5, abs=0.01)
    assert weights.var() == pytest.approx(1 / 8, rel=0.03)


def test_a_preview_shows_images_before_and_after_and_warns_of_mirrored_digits(tmp_path):
    done = recipes(
        "augment", "mnist-cnn", "--data.source", "digits", "--augmentation.flip", "horizontal",
        "--out", tmp_path / "pictures" / "p.png", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING: augmentation.flip horizontal: a mirrored digit is another one, or none" in done.stdout
    assert (tmp_path / "pictures" / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lm-lstm"], ["augment is for recipes of images. Received: lm-lstm"]),
        (["mnist-cn"], ["There is no recipe 'mnist-cn'. Did you mean mnist-cnn?"]),
        (
            ["mnist-cnn", "--augmentation.crop", "1"],
            ["augmentation.crop must be below 1. Received: crop=1.0"],
        ),
        ([], ["augment needs the name of a recipe"]),
    ],
)
def test_what_has_no_preview_is_refused(tmp_path, arguments, said):
    assert_refused(recipes("augment", *arguments, cwd=tmp_path), *said)
    assert not list(tmp_path.iterdir())
