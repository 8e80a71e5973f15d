"""Images from files: a folder with one sub-folder per class, the four IDX files, or an .npz file."""

import gzip
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from recipes.config import IMAGE_SHAPE, UserError
from recipes.data.examples import Examples, ImageSource, check_examples, check_pixels, classes_of_labels

Array = npt.NDArray[Any]

SIZES_NAMED = 3
"""Image sizes that the note on changed images names: the most frequent ones."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
IDX_IMAGES, IDX_LABELS = 0x00000803, 0x00000801
IDX_STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
NPZ_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_path(path: Path) -> ImageSource:
    """Read labelled images from a file or folder.

    Raises:
        UserError: A path that is not found or does not hold labelled images.
    """
    if not path.exists():
        raise UserError(f"data.source: there is no file or folder {path}")
    if path.suffix == ".npz":
        return read_npz(path)
    if not path.is_dir():
        raise UserError(f"data.source: a file of images must be an .npz. Received: {path}")
    if any(_idx_file(path, stem) for stem in IDX_STEMS):
        return read_idx(path)
    return read_class_folders(path)


def read_class_folders(folder: Path) -> ImageSource:
    """Read PNG and JPEG images of any size, with one sub-folder per class, as 28 x 28 grey images.

    The source's note says how many images were changed, and how.

    Raises:
        UserError: Fewer than two classes, an empty class, or images that do not decode (all named).
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise UserError(
            f"{folder} must have a sub-folder for each of at least two classes, or the four IDX files. "
            f"Received: {len(classes)} sub-folders"
        )
    images, labels, changes, broken = [], [], [], []
    for label, class_folder in enumerate(classes):
        paths = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise UserError(f"class folder {class_folder} is empty: it has no .png, .jpg or .jpeg file")
        for path in paths:
            try:
                image, changed = read_image(path)
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                broken.append(path)
            else:
                images.append(image)
                labels.append(label)
                changes.append(changed)
    if broken:
        named = ", ".join(str(path) for path in broken[:5]) + (", ..." if len(broken) > 5 else "")
        raise UserError(f"{len(broken)} of {len(broken) + len(images)} images do not decode: {named}")
    examples = Examples(check_pixels(np.stack(images), str(folder)), np.array(labels, np.int64))
    names = tuple(path.name for path in classes)
    return ImageSource(folder.name, str(folder.resolve()), names, examples, note=_describe_changes(changes))


def read_image(path: Path) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Return an image as (28, 28, 1) uint8, upright, grey, and on black if it was transparent; and its changes."""
    height, width, _ = IMAGE_SHAPE
    with Image.open(path) as image:
        grey, changes = as_grey(image)
    if grey.size != (width, height):
        changes.append(f"of {grey.width} x {grey.height} pixels")
    return resize(grey), changes


def resize(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Resize a grey image to (28, 28, 1) uint8."""
    height, width, _ = IMAGE_SHAPE
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.uint8)[..., np.newaxis]


def as_grey(image: ImageFile.ImageFile, background: str = "black") -> tuple[Image.Image, list[str]]:
    """Return an image file upright, opaque and grey.

    Args:
        image: As Image.open returns it, of any mode.
        background: Colour behind transparent parts.

    Returns:
        The image in mode L (8 bits per pixel), and a list of the changes that lost content.
    """
    changes = []
    if "16B" in str(image.tile):  # Pillow itself keeps only the higher 8 bits of colours
        changes.append("of 16 bits a channel, now 8")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        upright = Image.fromarray((np.asarray(upright).astype(np.uint32) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        visible = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", visible.size, background), visible)
        if np.asarray(visible)[..., 3].min() < 255:
            changes.append(f"with transparent parts, now {background}")
    colors = np.asarray(upright.convert("RGB"))
    if (colors != colors[..., :1]).any():
        changes.append("in colour, now grey")
    return upright.convert("L"), changes


def _describe_changes(changes: Sequence[Sequence[str]]) -> str:
    """Return how many images were changed, and how; "" if none was."""
    counts = Counter(change for of_image in changes for change in of_image)
    sizes = Counter({change: count for change, count in counts.items() if change.endswith("pixels")})
    named = sizes.most_common(SIZES_NAMED)
    others = sizes.total() - sum(count for _, count in named)
    parts = [f"{count:,} {change}" for change, count in sorted((counts - sizes).items())]
    parts += [f"{count:,} {change}, now 28 x 28" for change, count in named]
    parts += [f"{others:,} of other sizes, now 28 x 28"] if others else []
    changed = sum(map(bool, changes))
    return f"{changed:,} of {len(changes):,} images were changed: {'; '.join(parts)}" if changed else ""


def read_npz(path: Path) -> ImageSource:
    """Read an .npz file with the arrays x_train, y_train, x_test and y_test, as Keras's mnist.npz.

    Raises:
        UserError: Not a valid .npz file, a missing array, or an array with invalid values.
    """
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in NPZ_ARRAYS if name in file.files}
            received = file.files
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a whole .npz file of plain arrays: {error}") from error
    missing = [name for name in NPZ_ARRAYS if name not in arrays]
    if missing:
        raise UserError(
            f"{path} must hold {', '.join(NPZ_ARRAYS)}. Missing: {', '.join(missing)}; received: {received}"
        )
    return _source_of_arrays(path, *arrays.values())


def read_idx(folder: Path) -> ImageSource:
    """Read the four IDX files of a folder, the original format of MNIST, gzipped or not.

    Raises:
        UserError: A file that is missing, truncated, or of another kind.
    """
    arrays = []
    for stem in IDX_STEMS:
        path = _idx_file(folder, stem)
        if path is None:
            raise UserError(f"{folder} must hold the four IDX files {', '.join(IDX_STEMS)}. Missing: {stem}")
        arrays.append(_read_idx_file(path, IDX_IMAGES if "images" in stem else IDX_LABELS))
    return _source_of_arrays(folder, *arrays)


def _idx_file(folder: Path, stem: str) -> Path | None:
    """Return the file called train-images-idx3-ubyte[.gz] or similar: the sites that publish MNIST differ."""
    return next(iter(sorted(path for path in folder.glob(f"{stem}*idx*ubyte*") if path.is_file())), None)


def _read_idx_file(path: Path, magic: int) -> npt.NDArray[np.uint8]:
    """Read one IDX file: magic number, then sizes, all big-endian 32 bit, then bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}") from error
    found = int.from_bytes(content[:4], "big")
    if found != magic or len(content) < 4:
        raise UserError(
            f"{path} is not an IDX file of its kind: its first bytes must be {magic:#010x}. Received: {found:#010x}"
        )
    dimensions = magic & 0xFF
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    start = 4 + 4 * dimensions
    if len(content) != start + math.prod(shape):
        raise UserError(
            f"{path} must be {start + math.prod(shape)} bytes for its shape {shape}. Received: {len(content)} bytes"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _source_of_arrays(
    path: Path, x_train: Array, y_train: Array, x_test: Array, y_test: Array
) -> ImageSource:
    classes = classes_of_labels(y_train, f"{path} (train)")
    train = check_examples(x_train, y_train, len(classes), f"{path} (train)")
    test = check_examples(x_test, y_test, len(classes), f"{path} (test)")
    return ImageSource(path.stem, str(path.resolve()), classes, train, lambda: test)
