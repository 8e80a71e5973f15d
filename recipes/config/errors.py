"""Errors of the user's input."""

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """The user's input is wrong: the command line prints the message alone and exits with 2."""


class DivergedError(UserError):
    """The training loss is NaN or infinite."""


class LostWorkerError(RuntimeError):
    """Another process of the cluster died: the command line exits with 138, for which launchers restart a process."""


def nearest(name: str, possible: Iterable[str]) -> str:
    """Return a sentence with the most similar possible name, or with the first dozen if none is similar."""
    possible = sorted(possible)
    near = difflib.get_close_matches(name, possible, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]}?"
    more = ", ..." if len(possible) > 12 else "."
    return f"Possible: {', '.join(possible[:12])}{more}"


def require(condition: bool, message: str, **received: Any) -> None:
    """Raise a UserError with the values received, unless the condition holds."""
    if not condition:
        values = ", ".join(f"{name}={value!r}" for name, value in received.items())
        raise UserError(f"{message}. Received: {values}")


def require_seed(name: str, seed: int) -> None:
    """Raise a UserError unless a seed has 32 bits, the most that all random generators here take."""
    require(0 <= seed < 2**32, f"{name} must be 0 to {2**32 - 1}", seed=seed)
