"""Files that are written whole or not at all, even if the process is killed."""

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under another name, flush it to the disk, then rename it.

    Args:
        path: Where the file goes; an old one is replaced.
        write: Writes the content into the binary file it is given.

    Raises:
        OSError: The disk is full, the folder is read-only, ...; an old file stays as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    write_file(path, lambda file: file.write(text.encode()))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write at least one row under a header; a value that a row lacks, as of an older version, is nan."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, fieldnames=names, restval="nan", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file; keys keep their order."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def point_latest(path: Path) -> None:
    """Make the link `latest` beside a directory point at it, atomically."""
    beside = path.with_name(f".latest.{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(path.name)
    beside.replace(path.with_name("latest"))


def follow(path: Path) -> Path:
    """Return where a link such as `latest` points now: it may point elsewhere later."""
    return path.parent / path.readlink() if path.is_symlink() else path
