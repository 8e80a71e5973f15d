"""Ask and tell: who trains which trial, decided from the trials' files under one lock.

A process opens a search directory and holds its lock until it ends; its threads, or workers on other
machines through `tuning.service`, ask for trials and tell their results. Nothing is kept elsewhere, so a
process that is killed at any moment loses nothing: the next one reads the same files.
"""

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from tuning.directory import SearchDirectory
from tuning.samplers import Proposal, propose
from tuning.scores import scores
from tuning.trial import Trial, common_refusal, failed_unless_finite, seconds_used

LEASE_SECONDS = 30.0
"""A worker without a sign of life for this long has died, if no process holds its trial."""

Answer = Trial | Literal["wait", "end"]


class Search:
    """A search whose directory this process holds.

    Args:
        directory: The search directory.
        remote_workers: Whether workers are other processes, which may have outlived an earlier chief:
            their trials are lost only after a lease. Otherwise a running trial of an earlier process is
            lost at once.
    """

    def __init__(self, directory: SearchDirectory, *, remote_workers: bool = False) -> None:
        self.directory = directory
        self.remote_workers = remote_workers
        self.opened = time.time()
        self.lock = threading.Lock()

    def ask(self, worker: str) -> Answer:
        """Return the next trial of a worker, "wait" if there is none at present, or "end".

        A worker that asks again, because an answer was lost, is given the same trial. The trials of lost
        workers come before new ones.
        """
        with self.lock:
            trials = self.directory.trials()
            running = [trial for trial in trials if trial.status == "running"]
            own = [trial for trial in running if trial.worker == worker]
            for trial in own or filter(self._is_lost, running):
                return self._give(self._with_epoch_limit(trial, trials), worker)
            proposal = None if self._is_spent(trials) else self._propose(trials)
            if proposal is None:
                return "wait" if running else "end"
            numbers = {trial.number for trial in trials}
            number = next(number for number in itertools.count() if number not in numbers)
            return self._give(Trial(number=number, **vars(proposal)), worker)

    def heartbeat(self, number: int) -> None:
        """Record a sign of life of a trial's worker, and with it the time used.

        Raises:
            KeyError: There is no such trial.
        """
        with self.lock:
            trial = self.directory.read_trial(number)
            if trial.status == "running":
                self.directory.write_trial(trial.trained_until(time.time()))

    def tell(self, trial: Trial) -> None:
        """Record the end of a trial. Only the first end of a trial counts.

        Raises:
            KeyError: There is no such trial.
        """
        with self.lock:
            recorded = self.directory.read_trial(trial.number)
            if recorded.status == "running":
                now = time.time()
                ended = replace(
                    trial,
                    started=recorded.started,
                    ended=now,
                    worker=recorded.worker,
                    sessions=recorded.sessions,
                )
                self.directory.write_trial(failed_unless_finite(ended).trained_until(now))

    def is_over(self) -> bool:
        """Return whether the budget is used up and no trial is running."""
        trials = self.directory.trials()
        return self._is_spent(trials) and all(trial.status != "running" for trial in trials)

    def _is_spent(self, trials: Sequence[Trial]) -> bool:
        method = self.directory.plan.method
        late = method.seconds is not None and seconds_used(trials) >= method.seconds
        return late or len(trials) >= method.trials or bool(common_refusal(trials))

    def _is_lost(self, trial: Trial) -> bool:
        """Return whether the worker of a running trial has died.

        A worker that is only stopped keeps its trial: its process holds the trial's lock.
        """
        silent = time.time() - max(trial.last_seen, self.opened) > LEASE_SECONDS
        of_earlier_process = trial.last_seen < self.opened and not self.remote_workers
        return (silent or of_earlier_process) and not self.directory.is_held(trial.number)

    def _propose(self, trials: Sequence[Trial]) -> Proposal | None:
        return propose(self.directory.plan, trials, scores(self.directory, trials))

    def _with_epoch_limit(self, trial: Trial, trials: Sequence[Trial]) -> Trial:
        """Add what earlier versions did not record in a trial of Hyperband: it was in `oracle.json`."""
        if self.directory.plan.method.algorithm != "hyperband" or trial.epoch_limit is not None:
            return trial
        proposal = self._propose([earlier for earlier in trials if earlier.number < trial.number])
        return replace(trial, **vars(proposal) | {"values": trial.values}) if proposal else trial

    def _give(self, trial: Trial, worker: str) -> Trial:
        now = time.time()
        trial = replace(trial, worker=worker, sessions=(*trial.sessions, (now, now)))
        self.directory.write_trial(trial)
        return trial
