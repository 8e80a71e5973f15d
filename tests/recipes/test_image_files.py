import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from recipes.catalog import CATALOG
from recipes.config import ImageData, ImageModel, ImageRecipe, Training, UserError
from recipes.data.examples import Examples, stratified_split
from recipes.data.image_files import read_image, read_path
from recipes.data.images import MNIST_SHAPE, load_images, open_source
from recipes.tasks import task_of, task_of_run


def write_idx(folder: Path, stem: str, array: np.ndarray, compress: bool) -> None:
    magic = bytes([0, 0, 8, array.ndim])
    content = magic + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
    kind = f"idx{array.ndim}-ubyte"
    name = f"{stem}-{kind}.gz" if compress else f"{stem}-{kind}"
    (folder / name).write_bytes(gzip.compress(content) if compress else content)


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (40, 28, 28), np.uint8),
        "y_train": np.arange(40, dtype=np.uint8) % 4,
        "x_test": random.integers(0, 256, (8, 28, 28), np.uint8),
        "y_test": np.arange(8, dtype=np.uint8) % 4,
    }


@pytest.fixture
def idx_folder(tmp_path, arrays):
    stems = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    for number, (stem, array) in enumerate(zip(stems, arrays.values(), strict=True)):
        write_idx(tmp_path, stem, array, compress=number % 2 == 0)
    return tmp_path


def test_idx_files_are_read_gzipped_or_not(idx_folder, arrays):
    source = read_path(idx_folder, MNIST_SHAPE)
    assert source.classes == ("0", "1", "2", "3")
    np.testing.assert_array_equal(source.train.images[..., 0], arrays["x_train"])
    np.testing.assert_array_equal(source.train.labels, arrays["y_train"])
    np.testing.assert_array_equal(source.read_test().images[..., 0], arrays["x_test"])


def test_npz_files_are_read(tmp_path, arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    source = open_source(str(tmp_path / "own.npz"), MNIST_SHAPE)
    np.testing.assert_array_equal(source.train.images[..., 0], arrays["x_train"])
    np.testing.assert_array_equal(source.read_test().labels, arrays["y_test"])


def test_class_folders_are_read_in_the_order_of_their_names(stripes):
    source = read_path(stripes, MNIST_SHAPE)
    assert source.classes == ("lying", "standing")
    assert source.train.images.shape == (60, 28, 28, 1)
    assert source.train.labels.tolist() == [0] * 30 + [1] * 30
    lying, standing = source.train.images[0, ..., 0], source.train.images[30, ..., 0]
    assert (lying == lying[:, :1]).all()
    assert (standing == standing[:1]).all()


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 100, 100),
        ("RGB", (100, 100, 100), 100),
        ("RGBA", (255, 255, 255, 0), 0),
        ("I;16", 100 * 256, 100),
    ],
)
def test_images_of_any_kind_and_size_become_28_by_28_grey(tmp_path, mode, color, expected):
    Image.new(mode, (50, 70), color).save(tmp_path / "image.png")
    image, _ = read_image(tmp_path / "image.png", MNIST_SHAPE)
    assert image.shape == (28, 28, 1)
    assert (image == expected).all()


def discs(folder: Path, size: tuple[int, int] = (32, 40)) -> Path:
    """Write two classes that differ in colour only."""
    for name, color in (("red", (200, 0, 0)), ("green", (0, 102, 0))):  # of one luminance
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", size, color).save(folder / name / f"{number}.png")
    return folder


def test_changed_colours_and_sizes_are_counted_in_the_note(tmp_path):
    source = read_path(discs(tmp_path / "discs"), MNIST_SHAPE)
    assert source.note == (
        "6 of 6 images were changed: 6 in colour, now grey; 6 of 32 x 40 pixels, now 28 x 28"
    )


def test_images_keep_their_colours_and_get_a_size(tmp_path):
    source = read_path(discs(tmp_path / "discs"), (16, 16, 3))
    assert source.train.images.shape == (6, 16, 16, 3)
    assert [tuple(image[8, 8]) for image in source.train.images] == [(0, 102, 0)] * 3 + [(200, 0, 0)] * 3
    assert source.note == "6 of 6 images were changed: 6 of 32 x 40 pixels, now 16 x 16"


def test_size_and_colour_are_those_of_the_data_if_none_is_given(tmp_path, stripes):
    source = read_path(discs(tmp_path / "discs"), (None, None, None))
    assert source.train.images.shape == (6, 40, 32, 3)
    assert source.note == ""
    Image.new("L", (30, 5)).save(stripes / "lying" / "00.png")  # the other 59 have the most frequent size
    assert read_path(stripes, (None, None, None)).train.images.shape == (60, 28, 28, 1)
    assert read_path(stripes, (None, None, 3)).train.images.shape == (60, 28, 28, 3)
    with pytest.raises(
        UserError, match="129 x 300 pixels; choose a smaller size, such as --data.image-size 64"
    ):
        read_path(discs(tmp_path / "large", (129, 300)), (None, None, None))


def test_arrays_of_another_shape_are_refused_with_the_settings_that_accept_them(tmp_path):
    images, labels = np.full((4, 32, 32, 3), 200, np.uint8), np.array([0, 1, 0, 1])
    path = tmp_path / "own.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(
        UserError, match=r"Received: \(32, 32, 3\), which --data.image-size 32 --data.channels 3 accepts"
    ):
        read_path(path, MNIST_SHAPE)
    assert read_path(path, (32, 32, 3)).train.images.shape == (4, 32, 32, 3)
    assert read_path(path, (None, None, None)).read_test().images.shape == (4, 32, 32, 3)


def colored_discs(folder: Path) -> Path:
    """Write discs of three colours of one luminance, 0.299 R + 0.587 G + 0.114 B = 29, on black."""
    random = np.random.default_rng(0)
    for name, color in (("red", (98, 0, 0)), ("green", (0, 50, 0)), ("blue", (0, 0, 255))):
        (folder / name).mkdir(parents=True)
        for number in range(60):
            image = Image.new("RGB", (32, 32))
            (x, y), radius = random.uniform(10, 22, 2), random.uniform(4, 9)
            ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
            image.save(folder / name / f"{number}.png")
    return folder


def test_colours_of_one_luminance_are_classified_after_few_steps(tmp_path):
    """Few steps: averages of batch normalisation over the usual ten would still contain the first ones."""
    recipe = CATALOG["mnist-cnn"].recipe
    data = ImageData(source=str(colored_discs(tmp_path / "discs")), image_size=32, channels=3)
    training = dataclasses.replace(recipe.training, batch_size=32)
    run = task_of("mnist-cnn", dataclasses.replace(recipe, data=data, training=training)).train(
        tmp_path / "run"
    )
    assert run.metrics["test_accuracy"] >= 0.99
    assert run.metrics["image_shape"] == [32, 32, 3]


def test_the_note_is_on_the_terminal_in_the_metrics_and_in_the_report(tmp_path, capsys):
    folder = discs(tmp_path / "discs")
    recipe = ImageRecipe(
        data=ImageData(source=str(folder)),
        model=ImageModel(dense=()),
        training=Training(epochs=1, batch_size=2),
    )
    run = task_of("mnist-mlp", recipe).train(tmp_path / "run")
    note = read_path(folder, MNIST_SHAPE).note
    assert f"WARNING: {note}" in capsys.readouterr().out
    assert run.metrics["note"] == note
    assert note in (run.path / "report.html").read_text()
    assert task_of_run(run).evaluate()["note"] == note


def test_images_without_lost_content_have_no_note(stripes):
    for number, path in enumerate(sorted(stripes.rglob("*.png"))):
        with Image.open(path) as image:  # stored in another mode, but still grey
            image.convert(("L", "RGB", "RGBA", "P")[number % 4]).save(path)
    assert read_path(stripes, MNIST_SHAPE).note == ""


def test_transparency_depth_and_many_sizes_are_in_the_note(stripes):
    lying = stripes / "lying"
    Image.new("LA", (28, 28), (255, 128)).save(lying / "00.png")
    Image.fromarray(np.full((28, 28), 40_000, np.uint16)).save(lying / "01.png")
    for number in range(2, 8):
        Image.new("L", (number + 4 - number % 2, 9)).save(lying / f"{number:02}.png")
    Image.new("L", (100, 9)).save(lying / "08.png")
    assert read_path(stripes, MNIST_SHAPE).note == (
        "9 of 60 images were changed: 1 of 16 bits a channel, now 8; 1 with transparent parts, now black; "
        "2 of 6 x 9 pixels, now 28 x 28; 2 of 8 x 9 pixels, now 28 x 28; 2 of 10 x 9 pixels, now 28 x 28; "
        "1 of other sizes, now 28 x 28"
    )


def truncate(idx_folder: Path) -> None:
    path = idx_folder / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def swap_kinds(idx_folder: Path) -> None:
    (idx_folder / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(12))


def cut_gzip(idx_folder: Path) -> None:
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])


def remove(idx_folder: Path) -> None:
    (idx_folder / "t10k-images-idx3-ubyte.gz").unlink()


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (truncate, r"train-labels-idx1-ubyte must be 48 bytes for its shape \(40,\). Received: 47"),
        (swap_kinds, "first bytes must be 0x00000801. Received: 0x00000803"),
        (cut_gzip, "not a whole gzip file"),
        (remove, "Missing: t10k-images"),
    ],
)
def test_corrupt_idx_files_are_refused(idx_folder, corrupt, message):
    corrupt(idx_folder)
    with pytest.raises(UserError, match=message):
        read_path(idx_folder, MNIST_SHAPE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": np.full(8, 4)}, r"\(test\): labels must be 0 to 3. Received: 4 to 4"),
        ({"y_train": np.full(40, -1)}, "Received: -1"),
        ({"y_train": np.arange(40) % 2 * 7}, "without a gap, and at least two classes. Received: 0, 7"),
        ({"y_train": np.zeros((40, 4), int)}, r"shape \(40, 4\)"),
        ({"y_train": np.zeros(40)}, "one integer per image. Received: float64"),
        ({"x_train": np.zeros((40, 32, 32), np.uint8)}, r"shape \(28, 28, 1\). Received: \(32, 32, 1\)"),
        ({"x_train": np.zeros((39, 28, 28), np.uint8)}, "Received: 39 images, 40 labels"),
        ({"x_train": np.full((40, 28, 28), 0.5)}, "raw, 0 to 255.* Received: 0.5 to 0.5"),
        ({"x_train": np.ones((40, 28, 28), np.uint8)}, "raw, 0 to 255.* Received: 1 to 1"),
        ({"x_train": np.full((40, 28, 28), np.nan)}, "pixels must be 0 to 255. Received: nan"),
        ({"x_train": np.full((40, 28, 28), 256)}, "Received: 256 to 256"),
        ({"x_train": np.full((40, 28, 28), "x")}, "pixels must be numbers"),
    ],
)
def test_invalid_arrays_are_refused(tmp_path, arrays, change, message):
    np.savez(tmp_path / "own.npz", **{**arrays, **change})
    with pytest.raises(UserError, match=message):
        read_path(tmp_path / "own.npz", MNIST_SHAPE)


def test_invalid_and_truncated_npz_files_are_refused(tmp_path, arrays):
    path = tmp_path / "own.npz"
    path.write_bytes(b"not an archive")
    with pytest.raises(UserError, match="not a whole .npz"):
        read_path(path, MNIST_SHAPE)
    np.savez(path, x_train=arrays["x_train"])
    with pytest.raises(UserError, match="Missing: y_train, x_test, y_test"):
        read_path(path, MNIST_SHAPE)
    np.savez(path, **arrays)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="not a whole .npz"):
        read_path(path, MNIST_SHAPE)


def test_broken_images_are_counted_and_named(stripes):
    (stripes / "lying" / "00.png").write_bytes(b"no image")
    (stripes / "standing" / "07.png").write_bytes((stripes / "standing" / "07.png").read_bytes()[:40])
    with pytest.raises(UserError, match="2 of 60 images do not decode: .*lying/00.png, .*standing/07.png"):
        read_path(stripes, MNIST_SHAPE)


def test_masks_of_zeros_and_ones_are_refused(stripes):
    for path in stripes.rglob("*.png"):
        Image.fromarray(np.eye(28, dtype=np.uint8)).save(path)
    with pytest.raises(UserError, match="raw, 0 to 255.* Received: 0 to 1"):
        read_path(stripes, MNIST_SHAPE)


def test_folders_without_classes_are_refused(tmp_path, stripes):
    with pytest.raises(UserError, match="at least two classes.* Received: 1 sub-folders"):
        read_path(tmp_path, MNIST_SHAPE)
    (stripes / "empty").mkdir()
    with pytest.raises(UserError, match="class folder .*empty is empty"):
        read_path(stripes, MNIST_SHAPE)
    with pytest.raises(UserError, match="there is no file or folder"):
        read_path(tmp_path / "nowhere", MNIST_SHAPE)


def test_a_split_is_stratified_and_complete():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    examples = Examples(np.arange(160), labels)
    rest, part = stratified_split(examples, 0.2, np.random.default_rng(1), classes=("a", "b", "c"))
    assert np.bincount(part.labels).tolist() == [20, 10, 2]
    assert sorted([*rest.images, *part.images]) == list(range(160))
    _, again = stratified_split(examples, 0.2, np.random.default_rng(1), classes=("a", "b", "c"))
    _, other = stratified_split(examples, 0.2, np.random.default_rng(2), classes=("a", "b", "c"))
    assert again.images.tolist() == part.images.tolist() != other.images.tolist()


def test_a_class_with_one_example_is_not_split():
    examples = Examples(np.arange(3), np.array([0, 0, 1]))
    with pytest.raises(UserError, match="class 'b' has one example"):
        stratified_split(examples, 0.5, np.random.default_rng(0), classes=("a", "b"))


def test_the_offline_digits_are_1797_and_split_three_ways():
    dataset = load_images(ImageData(source="digits"))
    test = dataset.read_test()
    assert len(dataset.train) + len(dataset.validation) + len(test) == 1797
    assert len(test) == pytest.approx(0.2 * 1797, abs=5)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.images.max() == 255


def test_a_run_is_scored_on_all_of_a_folder_it_was_not_trained_on(stripes):
    held_out = load_images(ImageData(source=str(stripes)), trained_on=str(stripes.resolve())).read_test()
    everything = load_images(ImageData(source=str(stripes)), trained_on="digits").read_test()
    assert (len(held_out), len(everything)) == (12, 60)


@pytest.mark.real_mnist
def test_mnist_has_its_published_sizes():
    dataset = load_images(ImageData(source="mnist"))
    assert (len(dataset.train), len(dataset.validation)) == (54_001, 5_999)
    assert np.bincount(dataset.read_test().labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
