"""Run a search to its end: workers in threads, a live table, then the tables and the report."""

import contextlib
import functools
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from types import FrameType

from recipes.command_line import shell_command
from recipes.config import UserError
from tuning.directory import SearchDirectory
from tuning.report.live_table import LiveTable
from tuning.report.page import remarks, write_report, write_tables
from tuning.search import Search
from tuning.service import Chief, ChiefClient
from tuning.trial import common_refusal
from tuning.worker import start_fork_server, work

REFRESH_SECONDS = 0.5
FAREWELL_SECONDS = 5.0
"""A chief ends when the search is over and no worker has asked for this long."""

Job = Callable[[threading.Event], None]


def run_search(directory: SearchDirectory, *, workers: int, threads: int) -> None:
    """Search with workers in this process; each trains its trials in processes of their own.

    Args:
        directory: The search directory, which this process holds.
        workers: Trials at once.
        threads: Threads of each.

    Raises:
        UserError: All trials are refused for one reason, or none has a value.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the search can be resumed.
    """
    start_fork_server()
    search = Search(directory)

    def run_worker(number: int, stop: threading.Event) -> None:
        work(search, directory, f"worker-{number}", threads=threads, stop=stop)

    watch(directory, [functools.partial(run_worker, number) for number in range(workers)])
    finish(directory)


def run_chief(directory: SearchDirectory, host: str, port: int) -> None:
    """Search with workers in other processes.

    Args:
        directory: The search directory, which this process holds.
        host: Address to listen on.
        port: Port to listen on.

    Raises:
        UserError: The address is in use, all trials are refused for one reason, or none has a value.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the search can be resumed.
    """
    chief = Chief(Search(directory, remote_workers=True), host, port)
    command = shell_command("tuning", "worker", "--search-dir", directory.path, "--address", f"{host}:{port}")
    print(f"waiting for workers: {command}")

    def serve(stop: threading.Event) -> None:
        chief.server.start()
        while not stop.wait(REFRESH_SECONDS) and not chief.is_done(FAREWELL_SECONDS):
            pass
        chief.server.stop(grace=1).wait()

    watch(directory, [serve])
    finish(directory)


def run_worker(directory: SearchDirectory, address: str, *, threads: int, timeout: float) -> None:
    """Train trials for a chief until its search ends.

    Args:
        directory: The chief's search directory.
        address: HOST:PORT of the chief.
        threads: Threads of a trial.
        timeout: Seconds to wait for a chief that does not answer.

    Raises:
        UserError: The chief does not answer, or the search directory does not exist.
        KeyboardInterrupt: Ctrl-C or SIGTERM; another worker resumes the trial.
    """
    client = ChiefClient(address, timeout)
    client.connect()
    _ = directory.plan
    start_fork_server()
    name = f"worker-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    jobs: list[Job] = [lambda stop: work(client, directory, name, threads=threads, stop=stop)]
    watch(directory, jobs, reported=False)  # the chief writes the report


def watch(directory: SearchDirectory, jobs: list[Job], *, reported: bool = True) -> None:
    """Run jobs in threads to their end and show the trials meanwhile.

    Args:
        directory: The search directory.
        jobs: Functions that return soon after their event is set. If one fails, all are ended.
        reported: Whether tables and report are written again whenever a trial has ended.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    stop = threading.Event()
    with LiveTable(directory) as table, _sigterm_as_interrupt(), ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job, stop) for job in jobs]
        try:
            while wait(futures, REFRESH_SECONDS).not_done:
                if any(future.done() and future.exception() for future in futures):
                    stop.set()
                if table.show() and reported and write_tables(directory):
                    write_report(directory, running=True)
            table.show()
        finally:
            stop.set()
    for future in futures:
        future.result()


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM, which a cluster sends, like Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def finish(directory: SearchDirectory) -> None:
    """Write the tables and the report of a search, and print its best trial.

    Raises:
        UserError: All trials are refused for one reason, or none has a value.
    """
    trials, plan = directory.trials(), directory.plan
    if reason := common_refusal(trials):
        raise UserError(f"all of {len(trials)} trials failed: {reason}")
    best = write_tables(directory)
    if best is None:
        reasons = [trial.reason for trial in trials if trial.reason]
        raise UserError(
            f"none of {len(trials)} trials has a value. The last reason: {(reasons or ['?'])[-1]}"
        )
    write_report(directory)
    values = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in best.values.items()
    )
    print(f"best {plan.objective} {best.value:.6g} in trial {best.number} of {len(trials)}: {values}")
    print("\n".join(remarks(plan, trials, best)))
    print(f"settings: {directory.best_path}\nreport: {directory.report_path}")
    command = shell_command("recipes", "train", plan.name, "--settings", directory.best_path)
    print(f"train with them: {command}")
