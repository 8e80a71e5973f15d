"""Files that are there whole or not at all, whatever kills the writer."""

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside its place, flush it to the disk, then rename it.

    Args:
        path: Where the file goes; an old one is replaced.
        write: Writes the content into the binary file it is given.

    Raises:
        OSError: The disk is full, the folder can't be written to, ...; an old file stays as it was.
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
    """Write rows, at least one, under a line of their keys; what a row lacks, as of an older version, is nan."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, fieldnames=names, restval="nan", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people: indented, keys in their order."""
    write_text(path, json.dumps(value, indent=2) + "\n")
