"""keras-tuner's oracle, made to survive a kill, to keep to a budget and to take lost trials back.

keras-tuner writes its state in several files, not at once, and in the middle of a change: a kill
between two of them loses a trial or counts one twice. Here all of it is one file, written whole
after each change.
"""

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from recipes.files import write_json
from tuning.space import Value

LEASE_SECONDS = 30.0
"""A worker that is not heard of for so long has died: its trial is given to another."""


class DurableOracle(keras_tuner.Oracle):
    """What all algorithms share here.

    Args:
        state_path: Where the state is kept.
        max_number: Most trials.
        max_seconds: Most wall time, all sessions together; None is no limit.
        first: Values of the first trial; None leaves them to the algorithm.
        lease: Seconds after which a silent worker has died.
        **arguments: As keras-tuner takes them.
    """

    ongoing_trials: dict[str, Trial]

    def __init__(
        self,
        *,
        state_path: Path,
        max_number: int,
        max_seconds: float | None,
        first: dict[str, Value] | None,
        lease: float = LEASE_SECONDS,
        **arguments: Any,
    ) -> None:
        super().__init__(max_consecutive_failed_trials=2**31, **arguments)
        self.verbose = 0  # tuning.table shows more
        self.state_path = state_path
        self.max_number = max_number
        self.max_seconds = max_seconds
        self.first = first
        self.lease = lease
        self.seconds_before = 0.0
        self.began = time.monotonic()
        self.heard: dict[str, float] = {}
        self.mutex = threading.RLock()

    @property
    def seconds_used(self) -> float:
        """Wall time of the search so far."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def seconds_left(self) -> float:
        """Wall time that is left; infinite without a limit."""
        return math.inf if self.max_seconds is None else self.max_seconds - self.seconds_used

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the values of a trial: the recipe's own for the first, which the others must beat."""
        if not self.trials and self.first is not None:
            return {"status": TrialStatus.RUNNING, "values": dict(self.first)}
        return super().populate_space(trial_id)

    def create_trial(self, tuner_id: str) -> Trial:
        """Give a worker its next trial, one of status IDLE to ask again, or STOPPED at the end."""
        with self.mutex:
            self.heard[tuner_id] = time.monotonic()
            self.give_back_lost()
            spent = len(self.trials) >= self.max_number or self.seconds_left <= 0
            if spent and tuner_id not in self.ongoing_trials and not self._retry_queue:
                # While others train, one of them may die and leave its trial to this worker.
                if self.ongoing_trials:
                    return Trial(self.get_space(), status=TrialStatus.IDLE)
                self.tuner_ids.discard(tuner_id)
                return Trial(self.get_space(), status=TrialStatus.STOPPED)
            trial = super().create_trial(tuner_id)
            if trial.status == TrialStatus.RUNNING:
                self.write()
            return trial

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Take a trial's value."""
        with self.mutex:
            self._known(trial_id)
            return super().update_trial(trial_id, metrics, step)

    def end_trial(self, trial: Trial) -> None:
        """Take a trial's end; a second end of the same is none."""
        with self.mutex:
            self._known(trial.trial_id)
            if trial.trial_id in self.end_order:
                return
            super().end_trial(trial)
            self.write()

    def get_trial(self, trial_id: str) -> Trial:
        """Return a trial. Workers ask for theirs as a sign of life."""
        with self.mutex:
            self._known(trial_id)
            for tuner_id, trial in self.ongoing_trials.items():
                if trial.trial_id == trial_id:
                    self.heard[tuner_id] = time.monotonic()
            return super().get_trial(trial_id)

    def _known(self, trial_id: str) -> None:
        """Refuse an unknown trial before keras-tuner does, which would keep its lock for ever."""
        if trial_id not in self.trials:
            raise KeyError(f"There is no trial {trial_id!r} in this search")

    def give_back_lost(self) -> None:
        """Queue the trials of workers that have died for the others."""
        with self.mutex:
            silent = {
                tuner_id
                for tuner_id in self.tuner_ids
                if time.monotonic() - self.heard.get(tuner_id, self.began) > self.lease
            }
            self.tuner_ids -= silent
            for tuner_id in silent & self.ongoing_trials.keys():
                self._retry_queue.append(self.ongoing_trials.pop(tuner_id).trial_id)
                self.write()

    def save(self) -> None:
        """Do nothing: keras-tuner saves in the middle of a change, `write` comes after it."""

    def _save_trial(self, trial: Trial) -> None:
        """Do nothing, as `save`."""

    def write(self) -> None:
        """Write all there is to know, at once."""
        trials = [trial.get_state() for trial in self.trials.values()]
        state = {
            "written": time.time(),
            "seconds_used": self.seconds_used,
            "oracle": self.get_state(),
            "trials": trials,
        }
        write_json(self.state_path, state)

    def read(self, *, workers_live: bool) -> None:
        """Go on from what was written.

        Args:
            workers_live: Whether the workers may have outlived this process, as those of a chief do:
                they keep their trials as long as they are heard of. Otherwise all are given back.
        """
        if not self.state_path.exists():
            return
        state = json.loads(self.state_path.read_text())
        self.seconds_before = state["seconds_used"]
        self.trials = {each["trial_id"]: Trial.from_state(each) for each in state["trials"]}
        self.set_state(state["oracle"])
        if workers_live:
            self.tuner_ids |= self.ongoing_trials.keys()
        else:
            self._retry_queue += [trial.trial_id for trial in self.ongoing_trials.values()]
            self.ongoing_trials = {}
