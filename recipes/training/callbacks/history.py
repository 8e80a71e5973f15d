"""Write `history.csv`: a row per epoch."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recipes.runs.files import write_csv
from recipes.training.callbacks.stateful import StatefulCallback

Row = dict[str, float]


class History(StatefulCallback):
    """Keep a row per epoch and write all rows after each.

    The file is replaced as a whole, so it never has an incomplete row.

    >>> history = History("history.csv", columns={"learning_rate": lambda: float(model.optimizer.learning_rate)})
    >>> _ = model.fit(x, y, validation_split=0.5, epochs=2, callbacks=[history], verbose=0)
    >>> list(history.rows[1])
    ['epoch', 'loss', 'validation_loss', 'learning_rate', 'seconds']

    Args:
        path: The CSV file.
        columns: Further columns, by name: functions that are called at the end of each epoch.

    Attributes:
        rows: epoch (from 1), losses and metrics under their full names, the further columns, and
            seconds (wall time of the epoch with its validation).
    """

    def __init__(self, path: Path | str, *, columns: Mapping[str, Callable[[], float]] | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.columns = columns or {}
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
        columns = {name: column() for name, column in self.columns.items()}
        seconds = round(time.monotonic() - self.started, 3)
        self.rows.append({"epoch": epoch + 1, **metrics, **columns, "seconds": seconds})
        write_csv(self.path, self.rows)

    def state(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": self.rows}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the rows, without that of an epoch after the checkpoint."""
        self.rows = state["rows"]
        write_csv(self.path, self.rows)
