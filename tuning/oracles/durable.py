"""keras-tuner's oracle, made to survive a kill, to keep to a budget and to take lost trials back.

keras-tuner writes its state in several files, not at once, and in the middle of a change: a kill
between two of them loses a trial or counts one twice. Here all of it is one file, written whole
after each change. How a trial ended is in the trial's own file: where the two differ, that one holds.
"""

import contextlib
import json
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src.engine.oracle import LOCKS, THREADS

from recipes.config import UserError
from recipes.runs.files import write_json
from tuning.curves import score
from tuning.plan import Plan, SearchDirectory
from tuning.plan import Trial as EndedTrial
from tuning.space import Value

LEASE_SECONDS = 30.0
"""A worker that is silent for so long, and whose trial no process holds, has died."""
WRITE_SECONDS = 5.0
"""A kill loses no more of the time that is used."""


class DurableOracle(keras_tuner.Oracle):
    """What all algorithms share here.

    Args:
        search: Where the state and the trials are kept.
        plan: What is searched; its budget of wall time is that of all sessions together.
        first: Values of the first trial; None leaves them to the algorithm.
        lease: Seconds after which a silent worker has died, if no process holds its trial.
        **arguments: As keras-tuner takes them.
    """

    ongoing_trials: dict[str, Trial]

    def __init__(
        self,
        *,
        search: SearchDirectory,
        plan: Plan,
        first: dict[str, Value] | None,
        lease: float = LEASE_SECONDS,
        **arguments: Any,
    ) -> None:
        super().__init__(max_consecutive_failed_trials=2**31, **arguments)
        self.verbose = 0  # tuning.table shows more
        self.search = search
        self.plan = plan
        self.first = first
        self.lease = lease
        self.seconds_before = 0.0
        self.began = self.written = time.monotonic()
        self.heard: dict[str, float] = {}
        self.mutex = threading.RLock()

    @property
    def seconds_used(self) -> float:
        """Wall time of the search so far."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def seconds_left(self) -> float:
        """Wall time that is left; infinite without a limit."""
        most = self.plan.method.seconds
        return math.inf if most is None else most - self.seconds_used

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the values of a trial: the recipe's own for the first, which the others must beat."""
        if not self.trials and self.first is not None:
            return {"status": TrialStatus.RUNNING, "values": dict(self.first)}
        return super().populate_space(trial_id)

    def create_trial(self, tuner_id: str) -> Trial:
        """Give a worker its next trial, one of status IDLE to ask again, or STOPPED at the end."""
        with self._alone():
            self.heard[tuner_id] = time.monotonic()
            self.give_back_lost()
            spent = len(self.trials) >= self.plan.method.trials or self.seconds_left <= 0
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
        """Take a trial's value, if it is finite."""
        with self._alone():
            self._known(trial_id)
            if not math.isfinite(metrics[self.objective.name]):
                return self.trials[trial_id]
            return super().update_trial(trial_id, metrics, step)

    def end_trial(self, trial: Trial) -> None:
        """Take a trial's end: without a value it has failed. A second end of the same is none."""
        with self._alone():
            self._known(trial.trial_id)
            if trial.trial_id in self.end_order:
                return
            if not self.trials[trial.trial_id].metrics.exists(self.objective.name):
                trial.status = TrialStatus.FAILED
            super().end_trial(trial)
            self.write()

    def get_trial(self, trial_id: str) -> Trial:
        """Return a trial. Workers ask for theirs as a sign of life."""
        with self._alone():
            self._known(trial_id)
            for tuner_id, trial in self.ongoing_trials.items():
                if trial.trial_id == trial_id:
                    self.heard[tuner_id] = time.monotonic()
            self._write_time()
            return super().get_trial(trial_id)

    def _known(self, trial_id: str) -> None:
        if trial_id not in self.trials:
            raise KeyError(f"There is no trial {trial_id!r} in this search")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one thread in. keras-tuner's own lock would stay locked for ever after an exception."""
        with self.mutex:
            try:
                yield
            except BaseException:
                if THREADS[self] == threading.current_thread().name:
                    THREADS[self] = None
                    LOCKS[self].release()
                raise

    def give_back_lost(self) -> None:
        """Queue the trials of workers that have died for the others."""
        with self.mutex:
            for tuner_id in list(self.tuner_ids):
                trial = self.ongoing_trials.get(tuner_id)
                silent = time.monotonic() - self.heard.get(tuner_id, self.began) > self.lease
                if not silent or (trial and self.search.is_held(int(trial.trial_id))):
                    continue
                self.tuner_ids.discard(tuner_id)
                if trial:
                    self._retry_queue.append(self.ongoing_trials.pop(tuner_id).trial_id)
                    self.write()
            self._write_time()

    def _write_time(self) -> None:
        """Write down how much time is used, now and then."""
        if time.monotonic() - self.written > WRITE_SECONDS:
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
        write_json(self.search.oracle_path, state)
        self.written = time.monotonic()

    def read(self, *, workers_live: bool) -> None:
        """Resume from what was written; how trials ended is in their own files.

        Args:
            workers_live: Whether the workers may have outlived this process, as those of a chief do:
                they keep their trials as long as they are heard of. Otherwise all are given back.

        Raises:
            UserError: The file is damaged.
        """
        path = self.search.oracle_path
        if not path.exists():
            return
        try:
            state = json.loads(path.read_text())
            self.seconds_before = state["seconds_used"]
            self.trials = {each["trial_id"]: Trial.from_state(each) for each in state["trials"]}
            self.set_state(state["oracle"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        if workers_live:
            self.tuner_ids |= self.ongoing_trials.keys()
        else:
            self._retry_queue += [trial.trial_id for trial in self.ongoing_trials.values()]
            self.ongoing_trials = {}
        for trial in self.search.trials():
            if f"{trial.number:04}" in self.trials:
                self._take(trial)

    def _take(self, ended: EndedTrial) -> None:
        """Take a trial for what its own file says."""
        trial = self.trials[f"{ended.number:04}"]
        if ended.status == "running":
            if trial.trial_id in self.end_order:
                self.end_order.remove(trial.trial_id)
                self._retry_queue.append(trial.trial_id)
            return
        trial.score = score(self.search, self.plan, ended)
        trial.status = TrialStatus.FAILED if trial.score is None else TrialStatus.COMPLETED
        self.ongoing_trials = {
            tuner_id: each for tuner_id, each in self.ongoing_trials.items() if each is not trial
        }
        if trial.trial_id in self._retry_queue:
            self._retry_queue.remove(trial.trial_id)
        if trial.trial_id not in self.end_order:
            self.end_order.append(trial.trial_id)
