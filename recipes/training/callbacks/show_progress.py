"""Show the progress of training: a bar on a terminal, a line per epoch elsewhere."""

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recipes.training.optimizers import last_learning_rate


class ShowProgress(keras.callbacks.Callback):
    """Print loss, metrics, learning rate and the seconds left.

    >>> history = model.fit(x, y, epochs=2, callbacks=[ShowProgress()], verbose=0)
    epoch 1/2  loss ...  learning_rate 1.00e-02  ... s, ... s left
    epoch 2/2  loss ...  learning_rate 1.00e-02  ... s, 0 s left

    Args:
        console: Where to print; None for standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Console(soft_wrap=True, highlight=False)
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clock and the bar."""
        self.seconds: list[float] = []
        self.task = self.bar.add_task("", total=None, epoch="", text="")
        self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start an epoch's bar."""
        self.started = time.monotonic()
        self.epoch = f"{epoch + 1}/{self.params['epochs']}"
        self.bar.reset(self.task, total=self.params["steps"], epoch=self.epoch, text="")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        if not self.bar.disable:
            done = min(batch + 1, self.params["steps"] or batch + 1)
            self.bar.update(self.task, completed=done, text=self._describe(logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Print the epoch's line."""
        self.seconds.append(time.monotonic() - self.started)
        left = (self.params["epochs"] - epoch - 1) * sum(self.seconds) / len(self.seconds)
        self.console.print(
            f"epoch {self.epoch}  {self._describe(logs or {})}  {self.seconds[-1]:.1f} s, {left:.0f} s left"
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar and show the cursor again, also after an error; may be called twice."""
        self.bar.stop()

    def _describe(self, logs: dict[str, Any]) -> str:
        metrics = [
            f"{name.replace('val_', 'validation_')} {_short(float(value))}" for name, value in logs.items()
        ]
        rate = last_learning_rate(self.model.optimizer)
        return "  ".join([*metrics, f"learning_rate {rate:.2e}"])


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
