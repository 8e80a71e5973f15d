"""The keras-tuner tuner whose trials are recipes, each trained in a process of its own."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial as OracleTrial
from keras_tuner.errors import FailedTrialError, FatalError
from keras_tuner.src import config as keras_tuner_config

from recipes.config import UserError
from recipes.runs.lock import only_writer
from tuning import processes
from tuning.curves import score
from tuning.oracles.durable import DurableOracle
from tuning.plan import Order, SearchDirectory, Trial

keras_tuner_config.DEBUG = False  # it would print a traceback of each failed trial
ASK_AGAIN_SECONDS = 0.2
HEARTBEAT_SECONDS = 5.0
ENOUGH_REFUSED = 3
"""Trials that are refused for one reason, with none that is not, before the search gives up."""

Tell = Callable[[int, int, float | None], None]


class SearchEndedError(FatalError):
    """The search ends with this trial unfinished: keras-tuner lets no other exception through."""


class SearchFaultError(FatalError):
    """The search itself has a fault: keras-tuner would call it a failure of the trial."""


class RecipeTuner(BaseTuner):
    """Train the trials that an oracle asks for, in this process or at a chief.

    Args:
        oracle: The search's oracle.
        search: The search.
        threads: Threads of a trial.
        stop: Set when the search is to end.
        tell: Takes a trial's number, the epochs done and its value so far, after each epoch.
    """

    def __init__(
        self,
        oracle: DurableOracle,
        search: SearchDirectory,
        *,
        threads: int,
        stop: threading.Event,
        tell: Tell,
    ) -> None:
        super().__init__(oracle=oracle, directory=str(search.path.parent), project_name=search.path.name)
        self.search_directory = search
        self.plan = search.read_plan()
        self.threads = threads
        self.stop = stop
        self.tell = tell

    def save(self) -> None:
        """Do nothing: the oracle keeps the search."""

    def pre_create_trial(self) -> None:
        """Wait a little between two questions: an oracle that has nothing to do yet says so at once."""
        if self.stop.wait(ASK_AGAIN_SECONDS):
            raise SearchEndedError

    def run_trial(self, trial: OracleTrial) -> dict[str, float]:
        """Train a trial, or go on with it.

        Returns:
            The objective's value; of a trial that was stopped, what it would have reached.

        Raises:
            FailedTrialError: It failed; `trial.json` says why.
            SearchEndedError: The search ends before it.
            SearchFaultError: The search can't go on.
        """
        try:
            ended = self._train(trial)
        except processes.Interrupted:
            raise SearchEndedError from None
        except Exception as error:
            raise SearchFaultError from error
        value = score(self.search_directory, self.plan, ended)
        if value is None:
            raise FailedTrialError(ended.reason)
        return {self.plan.objective: value}

    def _train(self, trial: OracleTrial) -> Trial:
        with self._held(int(trial.trial_id)):
            order = self._order(trial)
            ended = order.trial
            if ended.status == "running":  # else it was given to two, or a kill came between its end and this
                self.search_directory.write_trial(ended)
                ended = processes.run(
                    order,
                    lambda epochs, value: self.tell(order.trial.number, epochs, value),
                    self._heartbeat(trial.trial_id),
                    self.stop,
                )
                self.search_directory.write_trial(replace(ended, ended=time.time()))
                self._check_possible()
        return ended

    @contextlib.contextmanager
    def _held(self, number: int) -> Iterator[None]:
        """Hold a trial as long as this process lives: however long it is stopped, nobody else takes it."""
        folder = self.search_directory.trial_path(number)
        folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(only_writer(folder))
                    break
                except UserError:  # whom it was given to meanwhile trains it
                    if self.stop.wait(ASK_AGAIN_SECONDS):
                        raise processes.Interrupted from None
            yield

    def _check_possible(self) -> None:
        """End a search whose trials are all refused for one reason: it is not in what is varied."""
        trials = self.search_directory.trials()
        reasons = {trial.reason for trial in trials}
        if len(trials) >= ENOUGH_REFUSED and all(trial.refused for trial in trials) and len(reasons) == 1:
            raise UserError(f"all of {len(trials)} trials failed: {reasons.pop()}")

    def _order(self, trial: OracleTrial) -> Order:
        chosen = trial.hyperparameters.values
        number = int(trial.trial_id)
        values = {dimension.name: chosen[dimension.name] for dimension in self.plan.dimensions}
        follows = chosen.get("tuner/trial_id")  # of Hyperband, as tuner/epochs
        return Order(
            self.search_directory.path,
            self.search_directory.read_trial(number) or Trial(number=number, values=values),
            self.threads,
            chosen.get("tuner/epochs"),
            int(follows) if follows else None,
        )

    def _heartbeat(self, trial_id: str) -> Callable[[], None]:
        """Return a function that asks the oracle for the trial now and then: a sign of life."""
        last = time.monotonic()

        def beat() -> None:
            nonlocal last
            if time.monotonic() - last > HEARTBEAT_SECONDS:
                last = time.monotonic()
                self.oracle.get_trial(trial_id)

        return beat
