"""A worker: asks for trials, trains each in a process of its own, and tells its result.

The processes are forked from one that has imported TensorFlow and never used it. A trial starts at once,
its memory is free when it ends, and one that runs out of memory ends alone.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path

from recipes.command_line import quiet_tensorflow
from recipes.config import UserError
from recipes.runs.lock import only_writer
from tuning.directory import SearchDirectory
from tuning.search import Search
from tuning.service import ChiefClient
from tuning.trial import Trial

CONTEXT = multiprocessing.get_context("forkserver")
TASKS = ("recipes.mnist", "recipes.language_model", "recipes.sequence_to_sequence", "recipes.table")
DEATHS = 2
"""Kills after which a trial has failed: the first may have come from outside."""
POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 5.0
ASK_AGAIN_SECONDS = 0.5


def start_fork_server() -> None:
    """Start the process from which all trials are forked."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a fork loses its threads
    CONTEXT.set_forkserver_preload([*TASKS, "tuning.training"])
    with quiet_tensorflow():
        forkserver.ensure_running()


def work(
    search: Search | ChiefClient,
    directory: SearchDirectory,
    name: str,
    *,
    threads: int,
    stop: threading.Event,
) -> None:
    """Train trials until the search ends.

    Args:
        search: Gives the trials and takes their results.
        directory: The search directory.
        name: Name of this worker, which no other worker has.
        threads: Threads of a trial.
        stop: Set to end this worker; its trial stays as it is, to be resumed.
    """
    while not stop.is_set():
        answer = search.ask(name)
        if answer == "end":
            return
        if answer == "wait":
            stop.wait(ASK_AGAIN_SECONDS)
            continue
        with _held(directory, answer.number, stop):
            trial = directory.read_trial(answer.number)
            if stop.is_set() or trial.status != "running":
                continue  # another worker trained it while this one was stopped
            ended = train_in_process(search, directory, trial, threads=threads, stop=stop)
            if ended is not None:
                search.tell(ended)


@contextlib.contextmanager
def _held(directory: SearchDirectory, number: int, stop: threading.Event) -> Iterator[None]:
    """Hold the lock of a trial, so that no other worker is given it while this process lives."""
    with contextlib.ExitStack() as stack:
        while not stop.is_set():
            try:
                stack.enter_context(only_writer(directory.trial_path(number)))
                break
            except UserError:  # another worker trains it
                stop.wait(ASK_AGAIN_SECONDS)
        yield


def train_in_process(
    search: Search | ChiefClient,
    directory: SearchDirectory,
    trial: Trial,
    *,
    threads: int,
    stop: threading.Event,
) -> Trial | None:
    """Train a trial in a process of its own; return it with its result, or None if `stop` was set."""
    for _ in range(DEATHS):
        ended, exit_code = _train_once(search, directory, trial, threads, stop)
        if stop.is_set():
            return None
        if ended is not None:
            return ended
    reason = f"its process exited with {exit_code}"
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        memory = ", as when memory runs out" if name == "SIGKILL" else ""
        reason = f"its process was ended by {name}{memory}, {DEATHS} times"
    return replace(trial, status="failed", reason=f"{reason}; see its log.txt")


def _train_once(
    search: Search | ChiefClient,
    directory: SearchDirectory,
    trial: Trial,
    threads: int,
    stop: threading.Event,
) -> tuple[Trial | None, int]:
    """Return the ended trial, None if its process died or was stopped, and the exit code of the process."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_main, args=(directory.path, trial, threads, theirs), daemon=True)
    process.start()
    theirs.close()
    ended: Trial | None = None
    last = time.monotonic()
    try:
        while not stop.is_set():
            ready = wait([ours, process.sentinel], POLL_SECONDS)
            if ours in ready:
                with contextlib.suppress(EOFError):  # it was killed
                    ended = ours.recv()
            if ready:
                break
            if time.monotonic() - last >= HEARTBEAT_SECONDS:
                search.heartbeat(trial.number)
                last = time.monotonic()
    finally:
        if ended is None:
            process.terminate()
        process.join()
        ours.close()
    return ended, process.exitcode or 0


def _main(path: Path, trial: Trial, threads: int, connection: Connection) -> None:
    """Train in the process of a trial."""
    directory = SearchDirectory(path)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes: the worker ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with (directory.trial_path(trial.number) / "log.txt").open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    from tuning.training import train_trial  # imports TensorFlow

    connection.send(train_trial(directory, trial, threads=threads))
    connection.close()


def _end_with_parent() -> None:
    """End this process when its worker is killed, so that it does not write the runs of the trial any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
