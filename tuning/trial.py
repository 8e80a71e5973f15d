"""A trial: one choice of settings, and the result of training with it."""

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tuning.space import Value

Session = tuple[float, float]
"""Unix times of the start and of the last sign of life of a worker that trained a trial."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The content of `trial.json`.

    Attributes:
        number: Number of the trial, from 0.
        values: Value of each searched setting.
        status: running; finished; stopped before its last epoch; failed.
        value: Objective of the weights that were kept, mean over the seeds, finite. None while the trial
            runs, if it failed, or if it was stopped before the first epoch that could be kept.
        reason: Why it was stopped or failed.
        refused: Whether its settings or data were invalid, so that training did not begin.
        started: Unix time of its start, s.
        ended: Unix time of its end, s.
        epochs: Epochs trained, all seeds together.
        saved_seconds: Estimated training time that the median rule saved.
        memory_mib: Peak memory of its process.
        worker: Name of the worker that trains it.
        sessions: When it was trained: an interrupted trial has more than one session.
        epoch_limit: Hyperband: the epoch after which it pauses. None trains all epochs.
        follows: Hyperband: number of the trial whose checkpoint it continues from.
    """

    number: int
    values: dict[str, Value]
    status: Literal["running", "finished", "stopped", "failed"] = "running"
    value: float | None = None
    reason: str = ""
    refused: bool = False
    started: float = field(default_factory=time.time)
    ended: float | None = None
    epochs: int = 0
    saved_seconds: float = 0.0
    memory_mib: float = 0.0
    worker: str = ""
    sessions: tuple[Session, ...] = ()
    epoch_limit: int | None = None
    follows: int | None = None

    @property
    def known_value(self) -> float:
        """The value of a trial that has one."""
        if self.value is None:
            raise ValueError(f"trial {self.number} has no value")
        return self.value

    @property
    def seconds(self) -> float:
        """Wall time from its start to its end, s; 0 while it runs."""
        return 0.0 if self.ended is None else self.ended - self.started

    @property
    def last_seen(self) -> float:
        """Unix time of the last sign of life of its worker, s."""
        return self.sessions[-1][1]

    def trained_until(self, now: float) -> "Trial":
        """Return the trial with its last session extended to a Unix time."""
        *earlier, (start, _) = self.sessions
        return replace(self, sessions=(*earlier, (start, now)))


def trial_from_json(tree: Any) -> Trial:
    """Return a trial from the content of its file, also one of an earlier version.

    Earlier versions recorded no sessions, and called a trial with a value that is not finite finished.

    Raises:
        TypeError, ValueError: The content is invalid.
    """
    trial = Trial(**tree)
    last_known = trial.started if trial.ended is None else trial.ended
    sessions = tuple((float(start), float(end)) for start, end in trial.sessions)
    return failed_unless_finite(replace(trial, sessions=sessions or ((trial.started, last_known),)))


def failed_unless_finite(trial: Trial) -> Trial:
    """Return the trial, as a failed one if its value is NaN or infinite."""
    if trial.value is None or math.isfinite(trial.value):
        return trial
    return replace(trial, status="failed", value=None, reason=f"the objective became {trial.value}")


def seconds_used(trials: Sequence[Trial]) -> float:
    """Return the time in which at least one trial was trained, s."""
    used, until = 0.0, -math.inf
    for start, end in sorted(itertools.chain.from_iterable(trial.sessions for trial in trials)):
        used += max(0.0, end - max(start, until))
        until = max(until, end)
    return used


def ranked(trials: Sequence[Trial], sign: int) -> list[Trial]:
    """Return the finished trials, the stopped ones, then those without a value; the best of each first."""
    return sorted(
        trials,
        key=lambda trial: (trial.value is None, trial.status != "finished", -sign * (trial.value or 0.0)),
    )


def best_trial(trials: Sequence[Trial], sign: int) -> Trial | None:
    """Return the best finished trial, the first of equal ones; the best stopped one if none is finished."""
    best = ranked(trials, sign)[:1]
    return best[0] if best and best[0].value is not None else None


def common_refusal(trials: Sequence[Trial], enough: int = 3) -> str:
    """Return the reason for which all trials, at least `enough`, were refused; "" if there is none.

    The cause is then not in the searched settings, and further trials would be refused too.
    """
    reasons = {trial.reason for trial in trials}
    refused = len(trials) >= enough and all(trial.refused for trial in trials) and len(reasons) == 1
    return reasons.pop() if refused else ""
