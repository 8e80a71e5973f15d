"""Augmentation of simple images, on which the effect of each transform is known."""

import numpy as np
import pytest
import tensorflow as tf

from recipes.config import Augmentation, Pretraining
from recipes.data.augmentation import affine, augment, interpolate, random_shifts, random_transforms
from recipes.training.pretraining import corrupt
from tests.processes import assert_refused, run_command

EVERYTHING = Augmentation(
    flip="both",
    rotate=20,
    scale=0.2,
    shift=3,
    crop=0.2,
    shear=10,
    elastic=1,
    thickness=1,
    blur=1,
    noise=0.2,
    impulses=0.2,
    light=0.5,
)


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 28, 28, 1)).astype(np.float32)


def test_augmentation_depends_on_the_seed_only():
    images = random_images(4)
    once, again, other = (
        augment(images, EVERYTHING, tf.constant(seed)).numpy() for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert once.shape == images.shape
    assert 0 <= once.min() <= once.max() <= 255


def recorded_keys(monkeypatch, run) -> list[tuple[int, int]]:
    """Return the key of each random operation, and of each split of a key."""
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
        (tf.random.experimental, "stateless_split", 0),
    ]:
        monkeypatch.setattr(owner, name, recording(getattr(owner, name), place))
    run()
    monkeypatch.undo()
    return used


def test_each_random_operation_has_its_own_key(monkeypatch):
    images = random_images(4)
    used = recorded_keys(monkeypatch, lambda: augment(images, EVERYTHING, tf.constant([1, 2])))
    assert (
        len(used) == 20
    )  # 7 splits, the choice of a corruption, 12 draws of amounts, displacements and noise
    assert len(set(used)) == len(used)
    moves = Pretraining(moves=EVERYTHING)
    used = recorded_keys(monkeypatch, lambda: corrupt(images, moves, tf.constant([1, 2])))
    assert len(set(used)) == len(used)


def test_flips_and_elastic_shifts_are_independent():
    """No sequence of 1,000 shifts correlates with the flips of 1,000 images, wherever it starts."""
    count, size, seed = 1000, 8, tf.constant([5, 6])
    left_half = np.zeros((count, size, size, 1), np.float32)
    left_half[:, :, : size // 2] = 255
    flipped = augment(left_half, Augmentation(flip="horizontal"), seed).numpy()[:, 0, 0, 0] < 128
    assert flipped.mean() == pytest.approx(0.5, abs=0.05)
    ramp = np.zeros((count, size, size, 1), np.float32) + np.arange(size, dtype=np.float32)[:, None, None]
    # With so little smoothness the shifts are independent; each axis has a border of one pixel.
    bent = augment(ramp, Augmentation(elastic=0.1, elastic_smoothness=0.1), seed).numpy()
    drawn = np.full((count, size + 2, size + 2, 2), np.nan)
    drawn[:, 2:-2, 2:-2, 0] = (bent - ramp)[:, 1:-1, 1:-1, 0]
    assert np.nanstd(drawn) == pytest.approx(0.1, rel=0.1)
    in_order = drawn.reshape(-1)
    for begin in range(8 * count):
        run = in_order[begin : begin + count]
        seen = ~np.isnan(run)  # about 180: chance gives correlations up to 4.4 / sqrt(180) = 0.33
        assert abs(np.corrcoef(flipped[seen], run[seen])[0, 1]) < 0.5, begin


def test_no_augmentation_changes_nothing():
    images = np.ones((2, 28, 28, 1), np.float32)
    assert augment(images, Augmentation(), tf.constant([0, 0])) is images


@pytest.mark.parametrize(
    ("settings", "point", "limit"),
    [
        (Augmentation(shift=2), (13.5, 13.5), 2.0),  # the centre moves by at most the shift
        (Augmentation(rotate=30), (13.5, 13.5), 0.0),  # a rotation does not move it
        (Augmentation(scale=0.1), (23.5, 13.5), 10 / 0.9 - 10),  # 10 pixels from the centre
        (Augmentation(shear=45), (13.5, 23.5), 10.0),  # tan 45° of 10 pixels
        (Augmentation(rotate=90), (23.5, 13.5), 10.0),
        (Augmentation(flip="horizontal"), (23.5, 13.5), 20.0),  # to the other side
        (Augmentation(flip="vertical"), (23.5, 13.5), 0.0),
        (
            Augmentation(crop=0.5),
            (13.5, 13.5),
            6.75,
        ),  # a quarter of the 27 pixels between the outermost centres
    ],
)
def test_each_transform_keeps_to_its_range(settings, point, limit):
    a, b, c, d, e, f, _, _ = random_transforms(5000, (28, 28), settings, [0, 0]).numpy().T
    x, y = point
    moves = np.abs(np.stack([a * x + b * y + c - x, d * x + e * y + f - y]))
    assert moves.max() == pytest.approx(limit, rel=0.02, abs=1e-4)


def test_a_quarter_turn_turns_by_a_quarter():
    # Rotations are uniform, so some of many are within half a degree of +90°.
    images = np.zeros((4000, 29, 29, 1), np.float32)
    images[:, 14, 24] = 1  # 10 to the right of the centre
    turned = affine(images, Augmentation(rotate=90), [3, 4]).numpy()
    assert turned[:, 3:6, 13:16].sum(axis=(1, 2, 3)).max() > 0.9  # 10 above it


def test_half_of_the_images_are_mirrored_and_pixels_are_unchanged():
    images = np.repeat(random_images(1), 1000, axis=0)
    flipped = affine(images, Augmentation(flip="horizontal"), [0, 0]).numpy()
    mirrored = [np.allclose(image, images[0, :, ::-1], atol=1e-3) for image in flipped]
    same = [np.allclose(image, images[0], atol=1e-3) for image in flipped]
    assert 450 < sum(mirrored) < 550
    assert sum(mirrored) + sum(same) == 1000


def test_a_crop_stays_inside_the_image():
    white = np.full((500, 28, 28, 1), 255, np.float32)
    np.testing.assert_allclose(affine(white, Augmentation(crop=0.3), [0, 0]), 255, rtol=1e-4)


def test_elastic_shifts_have_their_standard_deviation_and_smoothness():
    settings = Augmentation(elastic=2.0, elastic_smoothness=4.0)
    shifts = random_shifts(500, (28, 28), settings, [0, 0]).numpy()
    assert shifts.std() == pytest.approx(2.0, rel=0.05)
    beside = np.corrcoef(shifts[:, :, :-1].ravel(), shifts[:, :, 1:].ravel())[0, 1]
    far = np.corrcoef(shifts[:, :, :-20].ravel(), shifts[:, :, 20:].ravel())[0, 1]
    # The correlation of Gaussian-blurred noise at a distance d is exp(-d^2 / (4 sigma^2)).
    assert beside == pytest.approx(np.exp(-1 / 64), abs=0.01)
    assert abs(far) < 0.05


def test_interpolation_is_bilinear_and_black_outside():
    image = np.float32([[1, 2], [3, 4]]).reshape(1, 2, 2, 1)
    y = np.float32([[[0, 0], [0.5, -1]]])
    x = np.float32([[[0, 0.5], [0.5, 0]]])
    np.testing.assert_allclose(interpolate(image, y, x).numpy().reshape(2, 2), [[1, 1.5], [2.5, 0]])
    np.testing.assert_allclose(interpolate(image, y - 0.5, x)[0, 0, 0, 0], 0.5)  # half outside


def test_a_preview_shows_images_before_and_after_and_warns_of_mirrored_digits(tmp_path):
    done = run_command(
        "recipes", "augment", "mnist-cnn", "--data.source", "digits", "--augmentation.flip", "horizontal",
        "--out", tmp_path / "pictures" / "p.png", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING: augmentation.flip horizontal: a flipped digit is another digit or none" in done.stdout
    assert (tmp_path / "pictures" / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lm-lstm"], ["augment is for recipes of images. Received: lm-lstm"]),
        (["mnist-cn"], ["There is no recipe 'mnist-cn'. Did you mean mnist-cnn?"]),
        (
            ["mnist-cnn", "--augmentation.crop", "1"],
            ["augmentation.crop must be in [0, 1). Received: crop=1.0"],
        ),
        ([], ["augment needs the name of a recipe"]),
    ],
)
def test_recipes_without_images_and_invalid_settings_have_no_preview(tmp_path, arguments, message):
    assert_refused(run_command("recipes", "augment", *arguments, cwd=tmp_path), *message)
    assert not list(tmp_path.iterdir())
