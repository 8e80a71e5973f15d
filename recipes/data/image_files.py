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
from PIL import ExifTags, Image, ImageFile, ImageMode, ImageOps

from recipes.config import UserError
from recipes.data.examples import (
    Examples,
    ImageSource,
    Shape,
    check_examples,
    check_pixels,
    classes_of_labels,
)

Array = npt.NDArray[Any]

LARGEST_SIDE = 128
"""Pixels. Larger images of a folder are read only with a size that the settings name."""
SIZES_NAMED = 3
"""Image sizes that the note on changed images names: the most frequent ones."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
IDX_IMAGES, IDX_LABELS = 0x00000803, 0x00000801
IDX_STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
NPZ_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def check_path(path: Path) -> None:
    """Refuse a path that does not hold labelled images.

    Raises:
        UserError: Such a path.
    """
    if not path.exists():
        raise UserError(f"data.source: there is no file or folder {path}")
    if not path.is_dir():
        if path.suffix != ".npz":
            raise UserError(f"data.source: a file of images must be an .npz. Received: {path}")
    elif not _has_idx_files(path):
        classes = _class_folders(path)
        if len(classes) < 2:
            raise UserError(
                f"{path} must have a sub-folder for each of at least two classes, or the four IDX files. "
                f"Received: {len(classes)} sub-folders"
            )
        for folder in classes:
            if not _image_paths(folder):
                raise UserError(f"class folder {folder} is empty: it has no .png, .jpg or .jpeg file")


def read_path(path: Path, shape: Shape) -> ImageSource:
    """Read labelled images of a shape from a file or folder.

    Raises:
        UserError: A path that is not found or does not hold labelled images.
    """
    check_path(path)
    if not path.is_dir():
        return read_npz(path, shape)
    return read_idx(path, shape) if _has_idx_files(path) else read_class_folders(path, shape)


def _has_idx_files(folder: Path) -> bool:
    return any(_idx_file(folder, stem) for stem in IDX_STEMS)


def _class_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_paths(class_folder: Path) -> list[Path]:
    return sorted(path for path in class_folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def read_class_folders(folder: Path, shape: Shape) -> ImageSource:
    """Read PNG and JPEG images of any size, with one sub-folder per class, as images of one shape.

    The source's note says how many images were changed, and how.

    Args:
        folder: The folder.
        shape: Their shape. None stands for the most frequent size, and for 3 channels if an image has colour.

    Raises:
        UserError: Images that do not decode (all named), or images that are large and of no given size.
    """
    classes = _class_folders(folder)
    files = [(path, label) for label, name in enumerate(classes) for path in _image_paths(name)]
    shape = _common_shape(folder, [path for path, _ in files], shape)
    images, labels, changes, broken = [], [], [], []
    for path, label in files:
        try:
            image, changed = read_image(path, shape)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            broken.append(path)
        else:
            images.append(image)
            labels.append(label)
            changes.append(changed)
    if broken:
        named = ", ".join(str(path) for path in broken[:5]) + (", ..." if len(broken) > 5 else "")
        raise UserError(f"{len(broken)} of {len(files)} images do not decode: {named}")
    examples = Examples(check_pixels(np.stack(images), str(folder)), np.array(labels, np.int64))
    names = tuple(path.name for path in classes)
    note = _describe_changes(changes, shape)
    return ImageSource(folder.name, str(folder.resolve()), names, examples, note=note)


def _common_shape(folder: Path, paths: Sequence[Path], shape: Shape) -> Shape:
    """Return the shape that the images get, by their headers where it is not given."""
    if None not in shape:
        return shape
    sizes: Counter[tuple[int, int]] = Counter()
    color = False
    for path in paths:
        try:
            with Image.open(path) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
                sizes[image.size if turned else image.size[::-1]] += 1  # (height, width)
                color |= ImageMode.getmode(image.mode).basemode != "L"
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # read_image fails too, and its error names the file
    height, width = sizes.most_common(1)[0][0] if sizes else (1, 1)
    if None in shape[:2] and max(height, width) > LARGEST_SIDE:
        raise UserError(
            f"{folder}: most images have {width} x {height} pixels; choose a smaller size, such as --data.image-size 64"
        )
    return shape[0] or height, shape[1] or width, shape[2] or (3 if color else 1)


def read_image(path: Path, shape: Shape) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Return an image as uint8 of a shape, upright, and on black if it was transparent; and its changes."""
    height, width, channels = shape
    with Image.open(path) as image:
        opaque, changes = as_opaque(image, channels)
    if opaque.size != (width, height):
        changes.append(f"of {opaque.width} x {opaque.height} pixels")
    return fit_shape(opaque, shape), changes


def fit_shape(image: Image.Image, shape: Shape) -> npt.NDArray[np.uint8]:
    """Resize a grey or RGB image and convert it, (height, width, channels) uint8; None leaves the image's own."""
    height, width, channels = shape
    if channels is not None:
        image = image.convert("RGB" if channels == 3 else "L")
    image = image.resize((width or image.width, height or image.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def as_opaque(
    image: ImageFile.ImageFile, channels: int | None, background: str = "black"
) -> tuple[Image.Image, list[str]]:
    """Return an image file upright, opaque, and grey or in colour.

    Args:
        image: As Image.open returns it, of any mode.
        channels: 1 for grey, 3 for red, green and blue.
        background: Colour behind transparent parts.

    Returns:
        The image in mode L or RGB (8 bits per channel), and a list of the changes that lost content.
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
    if channels == 3:
        return upright.convert("RGB"), changes
    colors = np.asarray(upright.convert("RGB"))
    if (colors != colors[..., :1]).any():
        changes.append("in colour, now grey")
    return upright.convert("L"), changes


def _describe_changes(changes: Sequence[Sequence[str]], shape: Shape) -> str:
    """Return how many images were changed to a shape, and how; "" if none was."""
    counts = Counter(change for of_image in changes for change in of_image)
    sizes = Counter({change: count for change, count in counts.items() if change.endswith("pixels")})
    named = sizes.most_common(SIZES_NAMED)
    others = sizes.total() - sum(count for _, count in named)
    parts = [f"{count:,} {change}" for change, count in sorted((counts - sizes).items())]
    size = f"{shape[1]} x {shape[0]}"
    parts += [f"{count:,} {change}, now {size}" for change, count in named]
    parts += [f"{others:,} of other sizes, now {size}"] if others else []
    changed = sum(map(bool, changes))
    return f"{changed:,} of {len(changes):,} images were changed: {'; '.join(parts)}" if changed else ""


def read_npz(path: Path, shape: Shape) -> ImageSource:
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
    return _source_of_arrays(path, shape, *arrays.values())


def read_idx(folder: Path, shape: Shape) -> ImageSource:
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
    return _source_of_arrays(folder, shape, *arrays)


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
    path: Path, shape: Shape, x_train: Array, y_train: Array, x_test: Array, y_test: Array
) -> ImageSource:
    classes = classes_of_labels(y_train, f"{path} (train)")
    train = check_examples(x_train, y_train, len(classes), shape, f"{path} (train)")
    test = check_examples(x_test, y_test, len(classes), shape, f"{path} (test)")
    return ImageSource(path.stem, str(path.resolve()), classes, train, lambda: test)
