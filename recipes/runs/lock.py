"""Which process may write a directory: names that are claimed once, and locks that a kill releases."""

import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from recipes.config import UserError

_reserved: dict[Path, int] = {}
"""Descriptors of the directories that this process locked before it opens a run in them."""


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Lock a directory against other processes; takes over the lock of `reserve`.

    Raises:
        UserError: Another process holds the lock.
    """
    if path.resolve() not in _reserved:
        reserve(path)
    descriptor = _reserved.pop(path.resolve())
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Create and reserve a directory that no other process has, named by the time: `runs/RECIPE/TIMESTAMP`."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        path = folder / (stamp if number == 1 else f"{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    with reserved(path):
        yield path


@contextlib.contextmanager
def reserved(path: Path) -> Iterator[None]:
    """Create a directory if it does not exist, and reserve it; at the end it is removed if it is empty.

    Raises:
        UserError: Another process holds the lock.
    """
    path.mkdir(parents=True, exist_ok=True)
    if path.resolve() not in _reserved:
        reserve(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()
        release(path)


def reserve(path: Path) -> None:
    """Lock a directory until `only_writer` takes the lock over, or until `release`.

    Raises:
        UserError: It is locked already.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            _reserved[path.resolve()] = descriptor
            return
    except BlockingIOError:
        pass
    os.close(descriptor)  # another process holds the lock, or has just removed the directory
    raise UserError(f"{path} is being written by another process")


def release(path: Path) -> None:
    """Release the lock of `reserve`, unless `only_writer` took it over."""
    descriptor = _reserved.pop(path.resolve(), None)
    if descriptor is not None:
        os.close(descriptor)
