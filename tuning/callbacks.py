"""Callbacks that end a trial before its time."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
from scipy.stats import spearmanr

from recipes.runs.directory import Run
from tuning.curves import finished_curves, value_by_epoch
from tuning.plan import Plan, SearchDirectory

ENOUGH_FINISHED = 4
"""Finished trials without which there is no median to speak of."""
TELLING = 0.5
"""Rank correlation of the finished trials' values at an epoch with their last ones that it takes."""


class Paused(Exception):  # noqa: N818 - no error
    """The trial has its epochs for now; its checkpoint is there to go on from."""


class EndHopeless(keras.callbacks.Callback):
    """End a trial that is worse than the median of the finished ones at the same epoch.

    The median rule of Golovin et al. 2017 (Google Vizier), on the value of the weights that would be kept
    after each epoch. It holds only where an early value tells something of the last one, by the finished
    trials' own ranks: under a schedule that ends at 0 the highest learning rates are the worst for long,
    and win.

    Args:
        search: Where the finished trials are.
        plan: What is searched.
        run: The trial's own run.

    Attributes:
        reason: Why the trial was ended; "" if it was not.
    """

    def __init__(self, search: SearchDirectory, plan: Plan, run: Run) -> None:
        super().__init__()
        self.search = search
        self.plan = plan
        self.trial_run = run
        self.reason = ""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare with the others; the run's history has this epoch already."""
        if epoch + 1 == self.params["epochs"]:
            return
        own = value_by_epoch(self.trial_run, self.plan)[-1]
        others = finished_curves(self.search, self.plan, longer_than=epoch)
        pairs = [(then, last) for curve, last in others if (then := curve[epoch]) is not None]
        values = [then for then, _ in pairs]
        if own is None or len(values) < ENOUGH_FINISHED or not _telling(values, [last for _, last in pairs]):
            return
        median = statistics.median(values)
        if self.plan.sign * own < self.plan.sign * median:
            self.reason = f"{own:.4g} after epoch {epoch + 1}, where the median is {median:.4g}"
            self.model.stop_training = True


def _telling(early: list[float], last: list[float]) -> bool:
    """Tell whether the ranks of early values are much those of the last ones."""
    if len(set(early)) == 1 or len(set(last)) == 1:
        return False
    return float(spearmanr(early, last).statistic) >= TELLING


class EndInTime(keras.callbacks.Callback):
    """End a trial with the epoch in which the search's time runs out.

    Args:
        deadline: Unix time, s; infinite without a limit.

    Attributes:
        reason: Why the trial was ended; "" if it was not.
    """

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline
        self.reason = ""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the clock."""
        if time.time() >= self.deadline and epoch + 1 < self.params["epochs"]:
            self.reason = f"the search's time was over after epoch {epoch + 1}"
            self.model.stop_training = True


class PauseAfter(keras.callbacks.Callback):
    """Leave a trial where it can be gone on with, once it has its epochs.

    Args:
        epochs: How many.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Leave at the next epoch's beginning: the last one's checkpoint is written by now."""
        if epoch >= self.epochs:
            raise Paused


class Tell(keras.callbacks.Callback):
    """Tell how many epochs are done, and the value of the weights that would be kept, if there are any.

    Args:
        plan: What is searched.
        run: The trial's own run.
        tell: Takes both.
    """

    def __init__(self, plan: Plan, run: Run, tell: Callable[[int, float | None], None]) -> None:
        super().__init__()
        self.plan = plan
        self.trial_run = run
        self.tell = tell

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell."""
        self.tell(epoch + 1, value_by_epoch(self.trial_run, self.plan)[-1])
