"""Several processes that share the ports, because one Python process uses little more than one core."""

import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from serving.server.settings import ConfigError, ServerSettings

log = logging.getLogger("serving")

FORK = multiprocessing.get_context("fork")
"""TensorFlow has been imported when a worker is forked, and not been used: it starts within milliseconds."""


@dataclass(frozen=True)
class Worker:
    """A process that serves.

    Attributes:
        process: The process.
        connection: The process sends None once it serves, and ends when this end of the pipe is closed: no worker
            outlives a supervisor that is killed.
    """

    process: BaseProcess
    connection: Connection


class Supervisor:
    """Starts workers, starts another one for each that dies, and ends them all.

    The system shares new connections out among the workers. Each loads the models and looks for new versions by
    itself, as replicas do.

    Args:
        work: Serves in a worker, with the same flags. It takes the worker's end of the pipe.
        workers: Number of processes.
    """

    def __init__(self, work: Callable[[Connection], None], workers: int) -> None:
        self._work = work
        self._number = workers
        self._workers: list[Worker] = []
        self._status: int | None = None

    def run(self) -> int:
        """Serve until SIGTERM or Ctrl-C, or until a worker ends that never served; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        for _ in range(self._number):
            self._start()
        while self._workers:
            ended = wait([worker.process.sentinel for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.process.sentinel in ended]:
                self._workers.remove(worker)
                worker.process.join()
                self._on_end(worker)
        return self._status or 0

    def _start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        process = FORK.Process(target=self._run_worker, args=(theirs, ours))
        process.start()
        theirs.close()
        self._workers.append(Worker(process, ours))
        if self._status is not None:  # a signal came meanwhile
            process.terminate()

    def _run_worker(self, theirs: Connection, ours: Connection) -> None:
        os.setpgrp()  # Ctrl-C in a terminal reaches the supervisor only, which passes one signal on
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for connection in (ours, *(worker.connection for worker in self._workers)):
            connection.close()  # otherwise the pipe of another worker stays open when the supervisor dies
        try:
            self._work(theirs)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    def _on_signal(self, number: int, _: Any) -> None:
        self._end(0 if number == signal.SIGTERM else 128 + number)

    def _end(self, status: int) -> None:
        """Pass a signal on to all workers: the first lets them complete accepted requests, a second one does not."""
        if self._status is None:
            self._status = status
        for worker in self._workers:
            worker.process.terminate()

    def _on_end(self, worker: Worker) -> None:
        status = worker.process.exitcode
        if self._status is not None:
            self._status = self._status or (128 + signal.SIGTERM if status else 0)
        elif worker.connection.poll():
            log.error("worker %d ended with status %s; another one is started", worker.process.pid, status)
            self._start()
        else:
            self._end(status or 1)


def serve(settings: ServerSettings, run: Callable[[ServerSettings, Connection], None]) -> int:
    """Serve in several processes and return the exit status.

    Args:
        settings: The server's flags; `workers` is the number of processes.
        run: Serves in one process.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    return Supervisor(functools.partial(run, settings), settings.workers).run()


@contextlib.contextmanager
def shared_metrics() -> Iterator[None]:
    """Let prometheus-client add up what the processes count. It reads the variable when it is imported."""
    with tempfile.TemporaryDirectory(prefix="serving-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield
