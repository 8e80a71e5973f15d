"""Image files of `predict`: read, checked, and changed to look like the model's training images."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from recipes.config import UserError
from recipes.data.image_files import as_opaque
from serving.training_images import TrainingImages, background_of, lay_out_as_mnist

SUFFIXES = {".png", ".jpg", ".jpeg"}
FORMATS = ("PNG", "JPEG")
LARGEST_SIDE = 1024
"""Pixels. Larger images are reduced before they are sent, because models read far fewer."""

Invert = Literal["auto", "yes", "no"]


def read(paths: Sequence[Path]) -> tuple[list[str], list[bytes]]:
    """Return the names and contents of image files.

    Args:
        paths: PNG or JPEG files, folders of them, or - for standard input.

    Raises:
        UserError: No images, a path that does not exist, or the names of files that do not decode.
    """
    names, contents, broken = [], [], []
    for path in paths:
        for file in (
            sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        ):
            content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
            names.append(str(file))
            contents.append(content)
            if not _decodes(content):
                broken.append(str(file))
    if broken:
        more = ", ..." if len(broken) > 5 else ""
        raise UserError(
            f"{len(broken)} of {len(names)} images do not decode as PNG or JPEG: {', '.join(broken[:5])}{more}"
        )
    if not names:
        raise UserError(f"there are no images in {', '.join(map(str, paths)) or 'no paths'}")
    return names, contents


def _decodes(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def prepare(
    contents: Sequence[bytes], trained_on: TrainingImages, invert: Invert
) -> tuple[list[bytes], list[str]]:
    """Change images to look like the images that a model was trained on.

    Args:
        contents: PNG or JPEG files.
        trained_on: Describes the training images.
        invert: Whether to invert: auto inverts images whose background is clearly the other one.

    Returns:
        (PNG files, grey or in colour like the training images, messages about the changes).
    """
    files = []
    inverted = laid_out = unclear = 0
    for content in contents:
        image = _read(content, trained_on)
        found = background_of(image) if trained_on.channels == 1 else None
        opposite = found is not None and trained_on.background not in (None, found)
        if invert == "yes" or (invert == "auto" and opposite):
            image = 255 - image
            inverted += 1
        unclear += found is None
        if trained_on.mnist_layout and background_of(image) == "dark":
            before, image = image, lay_out_as_mnist(image)
            laid_out += not np.array_equal(before, image)
        files.append(_png(image))
    of = f"of {len(contents)} images"
    messages = []
    if inverted and invert == "auto":
        messages.append(
            f"{inverted} {of} inverted: the model was trained on a {trained_on.background} background "
            "(--invert no leaves them unchanged)"
        )
    if unclear and invert == "auto" and trained_on.background:
        messages.append(
            f"{unclear} {of} have no clear background and are not inverted (--invert yes inverts)"
        )
    if laid_out:
        messages.append(f"{laid_out} {of} scaled and centred as in MNIST")
    return files, messages


def _read(content: bytes, trained_on: TrainingImages) -> npt.NDArray[np.uint8]:
    """Return an image as (height, width), or (height, width, 3) in colour."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        background = _background_color(image) if trained_on.mnist_layout else "black"
        opaque, _ = as_opaque(image, trained_on.channels, background)
    opaque.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return np.asarray(opaque, np.uint8)


def _background_color(image: Image.Image) -> str:
    """Return the colour, white or black, that contrasts with the visible part of a transparent image."""
    if not image.has_transparency_data:
        return "black"
    grey, alpha = np.moveaxis(np.asarray(image.convert("RGBA").convert("LA"), np.float32), -1, 0)
    return "white" if (grey * alpha).sum() < 128 * alpha.sum() else "black"


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
