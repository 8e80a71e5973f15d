"""Say how the training goes: a bar on a terminal, a plain line an epoch elsewhere."""

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recipes.training.optimizers import finished_steps
from recipes.training.schedules import LearningRate


class ShowProgress(keras.callbacks.Callback):
    """Print loss, metrics, learning rate and time left.

    Args:
        rate: The learning rate's owner.
        epochs: Length of the training, in epochs.
        console: Where to print; standard output as it comes.
    """

    def __init__(self, rate: LearningRate, epochs: int, console: Console | None = None) -> None:
        super().__init__()
        self.rate = rate
        self.epochs = epochs
        self.console = console or Console(soft_wrap=True, highlight=False)
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
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
        self.task = self.bar.add_task("", total=None, epoch=1, text="")
        self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start an epoch's bar."""
        self.started = time.monotonic()
        self.bar.reset(self.task, total=self.params["steps"], epoch=epoch + 1, text="")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        if not self.bar.disable:
            done = min(batch + 1, self.params["steps"])
            self.bar.update(self.task, completed=done, text=self._describe(logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Print the epoch's line."""
        self.seconds.append(time.monotonic() - self.started)
        left = (self.epochs - epoch - 1) * sum(self.seconds) / len(self.seconds)
        self.console.print(
            f"epoch {epoch + 1}/{self.epochs}  {self._describe(logs or {})}  "
            f"{self.seconds[-1]:.1f} s, {left:.0f} s left"
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away and give the terminal its cursor back; safe to call twice."""
        self.bar.stop()

    def _describe(self, logs: dict[str, Any]) -> str:
        metrics = [
            f"{name.replace('val_', 'validation_')} {_short(float(value))}" for name, value in logs.items()
        ]
        return "  ".join([*metrics, f"learning_rate {current_rate(self.rate, self.model):.2e}"])


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def current_rate(rate: LearningRate, model: keras.Model) -> float:
    """Return the learning rate of the model's last step."""
    return float(keras.ops.convert_to_numpy(rate(max(finished_steps(model.optimizer) - 1, 0))))
