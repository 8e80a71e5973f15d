"""The limit on a request's rows, which its export records, checked before a tensor is decoded.

The graph checks all limits itself, but only once its inputs are in memory: one value of a message can
stand for as many rows as its shape says.
"""

import json
from pathlib import Path

from serving.server.errors import invalid_argument

RECIPE_FILE = Path("assets.extra") / "recipe.json"


def read_max_rows(version: Path) -> int | None:
    """Return the most rows of a request to a version in this folder; None for an export without a limit."""
    try:
        return int(json.loads((version / RECIPE_FILE).read_text())["limits"]["rows"])
    except (OSError, ValueError, KeyError, TypeError):  # no export of this project's
        return None


def check_rows(alias: str, rows: int, max_rows: int | None) -> None:
    """Refuse an input of more rows than the limit.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if max_rows is not None and rows > max_rows:
        raise invalid_argument(
            f"a request may have at most {max_rows} rows. Received: {rows} in input {alias}"
        )
