"""Image files of the command line: found, checked one by one, so that a broken one is named."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from recipes.config import UserError

SUFFIXES = {".png", ".jpg", ".jpeg"}


def read(paths: Sequence[Path]) -> tuple[list[str], list[bytes]]:
    """Return the names and contents of image files.

    Args:
        paths: PNG or JPEG files, folders of them, or - for standard input.

    Raises:
        UserError: No images, a path that is not there, or files that do not decode, by name.
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
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True
