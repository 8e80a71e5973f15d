"""How `predict` changes image files before it sends them."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from recipes.data.images import MNIST_SHAPE, open_source
from serving.images import prepare
from serving.training_images import (
    TrainingImages,
    background_of,
    describe_training,
    lay_out_as_mnist,
    recorded,
)

MNIST = TrainingImages("dark", mnist_layout=True)


def bar(size=(100, 60), box=(70, 10, 90, 20)) -> np.ndarray:
    """Draw a white bar on black: rows and columns of its box are (top, left, bottom, right)."""
    image = np.zeros(size, np.uint8)
    image[box[0] : box[2], box[1] : box[3]] = 255
    return image


def file_of(image: np.ndarray | Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind)
    return file.getvalue()


def sent(image: np.ndarray | Image.Image, trained_on=MNIST, invert="auto") -> tuple[np.ndarray, list[str]]:
    (content,), messages = prepare([file_of(image)], trained_on, invert)
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(opened), messages


def center_of_mass(image: np.ndarray) -> tuple[float, float]:
    mass = image / image.sum()
    return mass.sum(axis=1) @ np.arange(28), mass.sum(axis=0) @ np.arange(28)


def test_a_bar_is_scaled_to_20_pixels_and_centred():
    placed = lay_out_as_mnist(bar())  # 20 x 10 pixels, off the centre, in a tall image
    expected = np.zeros((28, 28))
    expected[4:24, 9:19] = 255  # 20 x 10 again; of two pixels in the middle the second is pixel 14
    np.testing.assert_array_equal(placed, expected)


@pytest.mark.parametrize("side", [7, 40, 100, 333])
def test_any_size_fills_the_box_and_keeps_its_proportions(side):
    wide = bar((2 * side, 3 * side), (5, 5, 5 + side // 2, 5 + side))
    placed = lay_out_as_mnist(wide)
    rows, columns = np.flatnonzero(placed.any(axis=1)), np.flatnonzero(placed.any(axis=0))
    assert np.ptp(columns) + 1 == 20
    assert placed.sum() / 255 == pytest.approx(20 * 20 * (side // 2) / side, rel=0.01)  # its area
    assert len(rows) == np.ceil(20 * (side // 2) / side)
    assert center_of_mass(placed) == pytest.approx((14, 14), abs=0.51)


def club() -> np.ndarray:
    """Draw the bar with a thin stem on it."""
    image = bar()
    image[50:71, 14:16] = 255
    return image


def test_the_centre_of_mass_is_what_is_centred_not_the_box():
    placed = lay_out_as_mnist(club())
    assert center_of_mass(placed) == pytest.approx((14, 14), abs=0.51)
    rows = np.flatnonzero(placed.any(axis=1))
    assert (rows[0] + rows[-1]) / 2 < 12


def test_edges_are_anti_aliased():
    fine = np.zeros((200, 200), np.uint8)
    fine[50:150, 50:150:2] = 255  # stripes much finer than a pixel of the result
    inside = lay_out_as_mnist(fine)[6:22, 6:22]
    assert inside.min() >= 100
    assert inside.max() <= 155


def test_an_image_in_mnists_layout_is_not_changed():
    once = lay_out_as_mnist(np.asarray(Image.fromarray(bar()).rotate(30)))
    np.testing.assert_array_equal(lay_out_as_mnist(once), once)


@pytest.mark.real_mnist
def test_images_of_mnist_are_not_changed():
    images = open_source("mnist", MNIST_SHAPE).read_test().images[:2000, ..., 0].astype(int)
    changes = np.array([np.abs(lay_out_as_mnist(image) - image).max() for image in images])
    assert (changes <= 1).mean() > 0.99
    assert describe_training(images[..., np.newaxis]) == MNIST


@pytest.mark.parametrize(
    ("image", "background"),
    [
        (bar(), "dark"),
        (255 - bar(), "light"),
        (bar() // 4 + 80, "dark"),  # white on grey
        (170 - bar() // 2, "light"),  # black on grey
        (bar() // 10, None),  # hardly anything to see
        (np.full((28, 28), 255, np.uint8), None),
        (np.tile(np.linspace(0, 255, 28), (28, 1)), None),  # a gradient
    ],
)
def test_a_background_is_dark_light_or_not_clear(image, background):
    assert background_of(image) == background


def test_training_images_are_described():
    digits = open_source("digits", MNIST_SHAPE).train.images
    assert describe_training(digits) == TrainingImages("dark")  # they fill their images, unlike MNIST's
    assert describe_training(255 - digits) == TrainingImages("light")
    assert describe_training(np.concatenate([digits, 255 - digits])) == TrainingImages()
    clubs = (club(), club()[::-1], club()[:, ::-1], club().T)
    placed = np.stack([lay_out_as_mnist(image) for image in clubs])[..., np.newaxis]
    assert describe_training(placed) == MNIST
    assert describe_training(placed.astype(np.float32)) == MNIST


@pytest.mark.parametrize("content", [None, "not JSON", "[]", "{}", '{"training_images": {"colour": 1}}'])
def test_an_export_without_a_record(tmp_path, content):
    folder = tmp_path / "1" / "assets.extra"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "recipe.json").write_text(content)
    assert recorded(tmp_path / "1") is None


def test_the_record_of_an_export(exported):
    assert recorded(exported) == TrainingImages("dark")
    recipe = json.loads((exported / "assets.extra" / "recipe.json").read_text())
    assert recipe["training_images"] == {"background": "dark", "mnist_layout": False, "channels": 1}


def test_dark_on_light_is_inverted_and_reported():
    white, messages = sent(bar())
    black, also = sent(255 - bar())
    np.testing.assert_array_equal(black, white)
    assert messages == ["1 of 1 images scaled and centred as in MNIST"]
    assert also == [
        "1 of 1 images inverted: the model was trained on a dark background "
        "(--invert no leaves them unchanged)",
        *messages,
    ]


def test_images_are_inverted_for_a_model_of_light_images():
    light = TrainingImages("light")
    np.testing.assert_array_equal(sent(bar(), light)[0], 255 - bar())
    np.testing.assert_array_equal(sent(255 - bar(), light)[0], 255 - bar())


def test_invert_yes_and_no():
    np.testing.assert_array_equal(sent(255 - bar(), invert="no")[0], 255 - bar())
    np.testing.assert_array_equal(sent(bar(), invert="yes")[0], 255 - bar())
    np.testing.assert_array_equal(sent(255 - bar(), TrainingImages(), "yes")[0], bar())
    np.testing.assert_array_equal(sent(255 - bar(), invert="yes")[0], lay_out_as_mnist(bar()))


def test_without_a_record_or_a_clear_background_images_are_sent_unchanged():
    noise = np.random.default_rng(0).integers(0, 256, (50, 40), np.uint8)
    for trained_on in (MNIST, TrainingImages()):
        image, messages = sent(noise, trained_on)
        np.testing.assert_array_equal(image, noise)
        assert [line[:42] for line in messages] == ["1 of 1 images have no clear background and"] * bool(
            trained_on.background
        )
    assert sent(255 - bar(), TrainingImages()) == (pytest.approx(255 - bar()), [])


@pytest.mark.parametrize("color", [0, 255])
def test_a_digit_on_a_transparent_background_is_seen(color):
    image = Image.new("LA", (60, 100), (color, 0))
    image.putalpha(Image.fromarray(bar()))
    np.testing.assert_array_equal(sent(image)[0], lay_out_as_mnist(bar()))


def test_grey_sixteen_bit_colour_and_jpeg_give_the_same_digit():
    expected = lay_out_as_mnist(club()).astype(int)
    color = np.stack([club(), club() // 2, club()], axis=-1)
    palette = Image.fromarray(club()).convert("P")
    for image in (club() // 2 + 60, club().astype(np.uint16) * 257, color, palette):
        assert np.abs(sent(image)[0] - expected).max() <= 2
    (content,), _ = prepare([file_of(club(), "JPEG")], MNIST, "auto")
    with Image.open(io.BytesIO(content)) as opened:
        assert np.abs(np.asarray(opened) - expected).mean() < 3


def test_large_images_are_reduced():
    image, _ = sent(np.kron(bar(), np.ones((50, 50), np.uint8)), TrainingImages("dark"))
    assert max(image.shape) == 1024
