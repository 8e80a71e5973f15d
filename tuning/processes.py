"""A process for each trial, forked from one that has imported TensorFlow and never used it.

So a trial starts at once, its memory is the system's again when it ends, and one that runs out of
memory takes nobody with it.
"""

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from tuning.plan import Order, SearchDirectory, Trial

CONTEXT = multiprocessing.get_context("forkserver")
TASKS = ("recipes.mnist", "recipes.language_model", "recipes.sequence_to_sequence", "recipes.table")
DEATHS = 2
"""Kills after which a trial has failed: one may have been meant for the search, as a lost machine is."""
POLL_SECONDS = 0.5

Tell = Callable[[int, float | None], None]


class Interrupted(Exception):  # noqa: N818 - no error
    """The search is to end, and the trial with it."""


def prepare() -> None:
    """Start the process that all trials are forked from."""
    # Threads of OpenBLAS would be lost in a fork.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    CONTEXT.set_forkserver_preload([*TASKS, "tuning.trial"])
    standard_error = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:  # TensorFlow's start-up messages; a trial has its log
            os.dup2(nowhere.fileno(), 2)
        forkserver.ensure_running()
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)


def run(order: Order, tell: Tell, alive: Callable[[], None], stop: threading.Event) -> Trial:
    """Train a trial in a process of its own and return what it came to.

    Args:
        order: The trial.
        tell: Takes the epochs done and the value of the weights that would be kept, after each epoch.
        alive: Called every half second while it trains.
        stop: Set when the search is to end.

    Raises:
        Interrupted: The search is to end; the trial can be gone on with.
    """
    for _ in range(DEATHS):
        ended, exit_code = _run_once(order, tell, alive, stop)
        if stop.is_set():
            raise Interrupted
        if ended is not None:
            return ended
    reason = f"its process exited with {exit_code}"
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        memory = ", as when memory runs out" if name == "SIGKILL" else ""
        reason = f"its process was ended by {name}{memory}, {DEATHS} times"
    return replace(order.trial, status="failed", reason=f"{reason}; see its log.txt")


def _run_once(
    order: Order, tell: Tell, alive: Callable[[], None], stop: threading.Event
) -> tuple[Trial | None, int]:
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_main, args=(order, theirs), daemon=True)
    process.start()
    theirs.close()
    ended: Trial | None = None
    try:
        while ended is None and not stop.is_set():
            ready = wait([ours, process.sentinel], POLL_SECONDS)
            alive()
            if ours in ready:
                message = ours.recv()
                if isinstance(message, Trial):
                    ended = message
                else:
                    tell(*message)
            elif process.sentinel in ready:
                break
    except EOFError:
        pass  # it was killed
    finally:
        if ended is None:
            process.terminate()
        process.join()
        ours.close()
    return ended, process.exitcode or 0


def _main(order: Order, connection: Connection) -> None:
    """Train in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the search ends its trials itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = SearchDirectory(order.search).trial_path(order.trial.number) / "log.txt"
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    train_trial: Any = importlib.import_module("tuning.trial").train_trial
    connection.send(train_trial(order, lambda *progress: connection.send(progress)))
    connection.close()


def _end_with_parent() -> None:
    """End this process when the search is killed, so that nobody writes its runs any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
