"""The benchmark of robustness: its digits are what their names say, and its table has a column for each recipe."""

import json

import keras
import numpy as np
import pytest

from benchmarks import robustness
from benchmarks.drawn_digits import drawn, printed
from serving.training_images import CENTER, lay_out_as_mnist


@pytest.fixture
def square() -> np.ndarray:
    """One image with a bright square off its centre, (1, 28, 28)."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 8:14, 10:16] = 200
    return image


def test_known_corruptions(square):
    np.testing.assert_array_equal(robustness.corrupted("clean", square), square)
    np.testing.assert_array_equal(robustness.corrupted("inverted", square), 255 - square)
    assert set(np.unique(robustness.corrupted("low contrast", square))) == {115, 135}
    assert (robustness.corrupted("thick", square) > 0).sum() == 8 * 8
    assert (robustness.corrupted("thin", square) > 0).sum() == 5 * 5
    assert (robustness.corrupted("impulses", square) == 255).mean() == pytest.approx(0.075, abs=0.02)


def test_moves_of_a_square(square):
    def middle(image):
        return np.array(np.nonzero(image > 100)).mean(axis=1)

    image = square[0].astype(float)
    assert middle(robustness.move(image, shift=(3, -2))) == pytest.approx([13.5, 10.5])
    assert (robustness.move(image, scale=0.5) > 100).sum() == 3 * 3
    # A quarter turn around (13.5, 13.5): 3 above and 1 to the left become 1 above or below and 3 to a side.
    assert np.abs(middle(robustness.move(image, angle=90)) - 13.5) == pytest.approx([1, 3], abs=0.1)


@pytest.mark.parametrize("kind", robustness.CORRUPTIONS)
def test_every_model_gets_the_same_digits(square, kind):
    images = np.repeat(square, 3, axis=0)
    once, again = (robustness.corrupted(kind, images) for _ in range(2))
    assert once.shape == images.shape
    assert once.dtype == np.uint8
    np.testing.assert_array_equal(once, again)


def test_printed_and_drawn_digits_are_laid_out_as_mnist():
    images, labels = printed()
    assert (images.shape, labels[:11].tolist()) == ((260, 28, 28), [*range(10), 0])
    written, labels = drawn(20, np.random.default_rng(0))
    assert labels.tolist() == [*range(10), *range(10)]
    assert not np.array_equal(written[0], written[10])  # another zero
    pixels = np.arange(28) + 0.5
    for image in (*images[::7], *written):
        assert np.abs(lay_out_as_mnist(image).astype(int) - image).max() <= 1
        assert image.sum(axis=1) @ pixels / image.sum() == pytest.approx(CENTER, abs=1)


def test_runs_of_a_recipe_share_a_column(square, tmp_path, monkeypatch, capsys):
    """Models of two classes: one always says 0, one always 1, and all digits are 1."""
    for number, recipe in enumerate(["mnist-one", "mnist-one", "mnist-two"]):
        run = tmp_path / str(number)
        run.mkdir()
        head = keras.layers.Dense(2, kernel_initializer="zeros", bias_initializer="zeros")
        model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), head])
        head.bias.assign([0, 1] if number else [1, 0])
        model.save(run / "model.keras")
        (run / "metrics.json").write_text(json.dumps({"recipe": recipe}))
    digits = np.repeat(square, 2, axis=0), np.ones(2, np.int64)
    monkeypatch.setattr(robustness, "digits", lambda part: digits)
    monkeypatch.setattr(robustness, "printed", lambda: digits)
    monkeypatch.setattr(robustness, "drawn", lambda count, random: digits)
    robustness.measure([tmp_path / "0", tmp_path / "1", tmp_path / "2"], "validation")
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| kind | `mnist-one` (2) | `mnist-two` (1) |"
    assert len(table) == 2 + len(robustness.CORRUPTIONS) + 2 + 2
    assert table[2] == "| clean | 50.0 ± 70.7 | 100.0 |"  # the deviation of 0 and 100 is 100 / √2
    assert table[-2].startswith("| mean of the kinds |")
