"""Corruption of simple images, on which the effect of each kind is known."""

import numpy as np
import pytest

from recipes.config import Augmentation
from recipes.data.corruptions import add_impulses, add_light, add_noise, blur, change_thickness, corrupt

SEED = [3, 4]
COUNT = 2000


def images(brightness: float = 0) -> np.ndarray:
    return np.full((COUNT, 15, 15, 1), brightness, np.float32)


def test_without_corruptions_images_are_unchanged():
    grey = images(100)
    assert corrupt(grey, Augmentation(rotate=10), SEED) is grey


def test_each_image_is_corrupted_in_one_way_or_not_at_all():
    settings = Augmentation(noise=0.1, impulses=0.5)
    changed = corrupt(images(128), settings, SEED).numpy()
    extremes = ((changed == 0) | (changed == 255)).any(axis=(1, 2, 3))
    between = ((changed != 128) & (changed != 0) & (changed != 255)).any(axis=(1, 2, 3))
    assert not (extremes & between).any()
    assert [extremes.mean(), between.mean()] == pytest.approx([1 / 3, 1 / 3], abs=0.03)
    assert 0 <= changed.min() <= changed.max() <= 255


def test_a_batch_keeps_its_order():
    grey = images() + np.arange(COUNT, dtype=np.float32)[:, None, None, None] * (255 / COUNT)
    light = corrupt(grey, Augmentation(thickness=1, blur=2), SEED)  # change no image of a single brightness
    np.testing.assert_allclose(light, grey, rtol=1e-4)


def test_a_batch_of_one_image_is_corrupted():
    assert corrupt(images()[:1], Augmentation(thickness=1, noise=1), SEED).shape == (1, 15, 15, 1)


def test_strokes_become_up_to_a_pixel_thicker_or_thinner_on_each_side():
    stroke = images()
    stroke[:, :, 6:9] = 255  # 3 pixels wide
    widths = change_thickness(stroke, 1, SEED).numpy()[:, 7].sum(axis=(1, 2)) / 255
    assert [widths.min(), widths.mean(), widths.max()] == pytest.approx([1, 3, 5], abs=0.1)


def test_a_blur_spreads_a_point_by_its_standard_deviations():
    point = images()
    point[:, 7, 7] = 1
    blurred = blur(point, 1.5, SEED).numpy()[..., 0]
    np.testing.assert_allclose(blurred.sum(axis=(1, 2)), 1, rtol=1e-3)
    offset = np.arange(15) - 7.0
    down, across = (np.sqrt(blurred.sum(axis=axis) @ offset**2) for axis in (2, 1))
    for deviations in (down, across):
        assert deviations.max() == pytest.approx(1.5, rel=0.01)
        assert np.median(deviations) == pytest.approx(0.75, rel=0.1)
    assert abs(np.corrcoef(down, across)[0, 1]) < 0.1


def test_noise_has_a_standard_deviation_up_to_the_largest():
    deviations = add_noise(images(), 0.2, SEED).numpy().std(axis=(1, 2, 3))
    assert deviations.mean() == pytest.approx(0.1 * 255, rel=0.05)
    assert deviations.max() == pytest.approx(0.2 * 255, rel=0.2)


def test_impulses_are_a_fraction_of_the_pixels_half_black_half_white():
    changed = add_impulses(images(100), 0.4, SEED).numpy()
    assert (changed == 0).mean() == pytest.approx(0.1, rel=0.05)
    assert (changed == 255).mean() == pytest.approx(0.1, rel=0.05)
    assert (changed != 100).mean(axis=(1, 2, 3)).max() == pytest.approx(0.4, abs=0.1)


def test_light_is_a_plane_that_keeps_to_the_range():
    white, black = (add_light(images(level), 0.5, SEED).numpy()[..., 0] for level in (255, 0))
    amounts = 1 - (white - black)[:, 0, 0] / 255  # what is left of the contrast
    assert [amounts.min(), amounts.max()] == pytest.approx([0, 0.5], abs=0.01)
    np.testing.assert_allclose(black[:, 7, 7], 255 * amounts / 2, rtol=1e-3, atol=1e-3)  # the centre
    assert 0 <= black.min() <= white.max() <= 255
    np.testing.assert_allclose(np.diff(black, n=2, axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(np.diff(black, n=2, axis=2), 0, atol=1e-3)
