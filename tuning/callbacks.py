"""Callbacks that stop or pause a trial before its last epoch."""

import statistics
import time
from typing import Any

import keras
from scipy.stats import spearmanr

from recipes.runs.directory import Run
from tuning.directory import SearchDirectory
from tuning.scores import finished_curves, value_by_epoch

MINIMUM_FINISHED = 4
"""Finished trials needed for a median."""
MINIMUM_CORRELATION = 0.5
"""Rank correlation between the finished trials' values at an epoch and their final ones that is needed."""


class Paused(Exception):  # noqa: N818 - not an error
    """The trial has reached its epoch limit; its checkpoint can be continued from."""


class StopBelowMedian(keras.callbacks.Callback):
    """Stop a trial that is worse than the median of the finished trials at the same epoch.

    The median rule of Golovin et al. 2017 (Google Vizier), on the value of the weights that would be kept
    after each epoch. It applies only if early values predict final ones, by the ranks of the finished
    trials: with a schedule that decays to 0, the highest learning rates look bad for most epochs and win.

    Args:
        directory: The search directory.
        run: The run of this trial.

    Attributes:
        reason: Why the trial was stopped; "" if it was not.
    """

    def __init__(self, directory: SearchDirectory, run: Run) -> None:
        super().__init__()
        self.directory = directory
        self.trial_run = run
        self.reason = ""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare with the finished trials; the run's history already has this epoch."""
        if epoch + 1 == self.params["epochs"]:
            return
        plan = self.directory.plan
        own = value_by_epoch(self.trial_run, plan)[-1]
        longer = [(curve, last) for curve, last in finished_curves(self.directory) if len(curve) > epoch]
        pairs = [(early, last) for curve, last in longer if (early := curve[epoch]) is not None]
        values = [early for early, _ in pairs]
        if own is None or len(values) < MINIMUM_FINISHED or not _predict(values, [last for _, last in pairs]):
            return
        median = statistics.median(values)
        if plan.sign * own < plan.sign * median:
            self.reason = f"{own:.4g} after epoch {epoch + 1}, where the median is {median:.4g}"
            self.model.stop_training = True


def _predict(early: list[float], last: list[float]) -> bool:
    """Return whether the ranks of early values are similar to those of the final ones."""
    if len(set(early)) == 1 or len(set(last)) == 1:
        return False
    return float(spearmanr(early, last).statistic) >= MINIMUM_CORRELATION


class StopAtDeadline(keras.callbacks.Callback):
    """Stop a trial after the epoch in which the time limit of the search is reached.

    Args:
        deadline: Unix time, s; infinite without a limit.

    Attributes:
        reason: Why the trial was stopped; "" if it was not.
    """

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline
        self.reason = ""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the time with the deadline."""
        if time.time() >= self.deadline and epoch + 1 < self.params["epochs"]:
            self.reason = f"the search's time was over after epoch {epoch + 1}"
            self.model.stop_training = True


class PauseAfter(keras.callbacks.Callback):
    """Pause a trial after an epoch, with a checkpoint to continue from.

    Args:
        epochs: Epochs before the pause.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Raise `Paused` at the start of the next epoch, when the checkpoint is complete."""
        if epoch >= self.epochs:
            raise Paused
