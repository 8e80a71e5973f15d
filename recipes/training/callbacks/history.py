"""Write `history.csv`: a row an epoch."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from recipes.runs.files import write_csv

Row = dict[str, float]


class History(keras.callbacks.Callback):
    """Keep a row an epoch and write all rows after each.

    The file is written as a whole beside the old one and renamed, so it is never half a row.

    Args:
        path: Where `history.csv` goes.
        columns: Further columns, by name: asked for at the end of each epoch.

    Attributes:
        rows: epoch (from 1), losses and metrics under their full names, the further columns, and
            seconds (wall time of the epoch with its validation).
    """

    def __init__(self, path: Path, columns: Mapping[str, Callable[[], float]]) -> None:
        super().__init__()
        self.path = path
        self.columns = columns
        self.rows: list[Row] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start without rows."""
        self.rows = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the epoch's row and write the file."""
        metrics = {name.replace("val_", "validation_"): float(value) for name, value in (logs or {}).items()}
        extra = {name: column() for name, column in self.columns.items()}
        self.rows.append(
            {"epoch": epoch + 1, **metrics, **extra, "seconds": round(time.monotonic() - self.started, 3)}
        )
        self.write()

    def write(self) -> None:
        """Write all rows."""
        write_csv(self.path, self.rows)

    def state(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": self.rows}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the rows back; an epoch that a kill cut off leaves none."""
        self.rows = state["rows"]
        self.write()
