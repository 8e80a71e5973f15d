"""Print how well classifiers of MNIST read digits that are not MNIST's: corrupted, printed and drawn ones.

    TFDS_DATA_DIR=... python -m benchmarks.robustness RUN …                on the validation part, to choose settings
    TFDS_DATA_DIR=... python -m benchmarks.robustness RUN … --part test    on the test part

RUN is the directory of a finished run on MNIST. Runs of one recipe, of several seeds say, share a column: mean and
standard deviation. The kinds are those of MNIST-C (Mu & Gilmer 2019, arXiv:1906.02337) and a few more; every model gets the
same images. The last rows are the mean of all kinds but `clean`, and the lowest of them.
"""

import argparse
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from benchmarks.commands import metrics_of
from benchmarks.drawn_digits import Images, Labels, drawn, printed
from benchmarks.tables import mean_and_spread, print_header, print_row

Image = npt.NDArray[np.float64]
"""A digit, (28, 28), 0 to 255."""
Random = np.random.Generator
Corruption = Callable[[Image, Random], Image]

DRAWN = 2000
BATCH_SIZE = 500


def move(
    image: Image, *, angle: float = 0, scale: float = 1, shear: float = 0, shift: tuple[float, float] = (0, 0)
) -> Image:
    """Rotate by degrees, scale, shear by degrees and shift by pixels, around the centre."""
    turn, slant = np.radians(angle), np.tan(np.radians(shear))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / scale
    matrix = matrix @ np.array([[1, 0], [slant, 1]])
    center = (np.array(image.shape) - 1) / 2
    offset = center - matrix @ (center + np.array(shift))
    return np.asarray(ndimage.affine_transform(image, matrix, offset, order=1))


def motion_blur(image: Image, random: Random) -> Image:
    """Average along a line of 7 pixels in a random direction."""
    line = np.zeros((7, 7))
    line[3] = 1
    kernel = ndimage.rotate(line, random.uniform(0, 180), reshape=False, order=1)
    return np.asarray(ndimage.convolve(image, kernel / kernel.sum(), mode="constant"))


def impulses(image: Image, random: Random) -> Image:
    """Set 15 % of the pixels to black or white."""
    drawn = random.uniform(size=image.shape)
    return np.where(drawn < 0.075, 0.0, np.where(drawn > 0.925, 255.0, image))


def scratch(image: Image, random: Random) -> Image:
    """Draw a white line of one pixel from border to border."""
    (top, left), angle = random.uniform(6, 22, 2), random.uniform(0, np.pi)
    rows, columns = np.indices(image.shape)
    distance = np.abs((rows - top) * np.cos(angle) - (columns - left) * np.sin(angle))
    return np.where(distance < 0.5, 255.0, image)


def shade(image: Image, random: Random) -> Image:
    """Add a light that falls off linearly from one side, up to half of the range."""
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.indices(image.shape) / 27 - 0.5
    light: Image = (rows * np.sin(angle) + columns * np.cos(angle)) / np.sqrt(2) + 0.5  # 0 to 1
    return image / 2 + 127 * light


def photograph(image: Image, random: Random) -> Image:
    """Make it dark ink on paper: blurred, unevenly lit and noisy."""
    paper = 255 - ndimage.gaussian_filter(image, 0.6)
    return 0.7 * shade(paper, random) + 40 + random.normal(0, 8, image.shape)


CORRUPTIONS: Mapping[str, Corruption] = {
    "clean": lambda image, random: image,
    "shifted, 4 pixels": lambda image, random: move(image, shift=tuple(random.uniform(-4, 4, 2))),
    "rotated, 30°": lambda image, random: move(image, angle=random.uniform(-30, 30)),
    "scaled, 0.6 to 1.3": lambda image, random: move(image, scale=random.uniform(0.6, 1.3)),
    "sheared, 25°": lambda image, random: move(image, shear=random.uniform(-25, 25)),
    "thick": lambda image, random: np.asarray(ndimage.grey_dilation(image, (3, 3))),
    "thin": lambda image, random: np.asarray(ndimage.grey_erosion(image, (2, 2))),
    "blurred": lambda image, random: np.asarray(ndimage.gaussian_filter(image, 1.5)),
    "motion blur": motion_blur,
    "coarse pixels": lambda image, random: image.reshape(14, 2, 14, 2).mean((1, 3)).repeat(2, 0).repeat(2, 1),
    "noise": lambda image, random: image + random.normal(0, 64, image.shape),
    "impulses": impulses,
    "scratch": scratch,
    "inverted": lambda image, random: 255 - image,
    "low contrast": lambda image, random: 115 + 0.1 * image,
    "bright": lambda image, random: 140 + 0.5 * image,
    "uneven light": shade,
    "photograph": photograph,
}
"""Each image is corrupted by an amount drawn from the range in the name, or by a fixed one."""


def corrupted(kind: str, images: Images) -> Images:
    """Return corrupted digits, (n, 28, 28), always the same for the same kind and images."""
    random = np.random.default_rng(zlib.crc32(kind.encode()))
    changed = [CORRUPTIONS[kind](image.astype(float), random) for image in images]
    return np.round(np.clip(changed, 0, 255)).astype(np.uint8)


def suite(images: Images, labels: Labels) -> Iterator[tuple[str, Images, Labels]]:
    """Yield each kind with its digits, (n, 28, 28), and their labels, (n,).

    Args:
        images: Digits of MNIST, (n, 28, 28).
        labels: (n,).
    """
    for kind in CORRUPTIONS:
        yield kind, corrupted(kind, images), labels
    yield "printed, 13 fonts", *printed()
    yield "drawn with a mouse", *drawn(DRAWN, np.random.default_rng(0))


def digits(part: str) -> tuple[Images, Labels]:
    """Return the validation or test part of MNIST, (n, 28, 28) and (n,)."""
    from recipes.config import ImageData
    from recipes.data.images import load_images

    dataset = load_images(ImageData(source="mnist"))
    examples = dataset.read_test() if part == "test" else dataset.validation
    return examples.images[..., 0], examples.labels


def measure(runs: Sequence[Path], part: str) -> None:
    """Print a row for each kind with the accuracy of each recipe in %, then the mean and the worst of the kinds."""
    import keras

    models = [keras.models.load_model(run / "model.keras") for run in runs]
    recipes = [metrics_of(run)["recipe"] for run in runs]
    columns = dict.fromkeys(recipes)
    print_header("kind", *(f"`{recipe}` ({recipes.count(recipe)})" for recipe in columns))

    def print_accuracies(kind: str, accuracies: npt.NDArray[np.float64]) -> None:
        of = [
            [each for each, recipe in zip(accuracies, recipes, strict=True) if recipe == name]
            for name in columns
        ]
        print_row(kind, *(mean_and_spread(each, 1) for each in of))

    rows = []
    for kind, images, labels in suite(*digits(part)):
        inputs = images[..., np.newaxis].astype(np.float32)
        right = [model.predict(inputs, BATCH_SIZE, verbose=0).argmax(axis=1) == labels for model in models]
        rows.append([100 * each.mean() for each in right])
        print_accuracies(kind, np.array(rows[-1]))
    kinds = np.array(rows[1:])  # without the clean ones
    print_accuracies("mean of the kinds", kinds.mean(axis=0))
    print_accuracies("worst kind", kinds.min(axis=0))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    chosen = parser.parse_args()
    measure(chosen.runs, chosen.part)


if __name__ == "__main__":
    main()
