"""Run a search: workers that train trials, a table of how it goes, and the files about it."""

import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from recipes.command_line import shell_command
from recipes.config import UserError
from tuning import processes
from tuning.oracles import build_oracle
from tuning.plan import Plan, SearchDirectory
from tuning.report import remarks, write_report, write_tables
from tuning.table import Table
from tuning.tuner import RecipeTuner, SearchEndedError, SearchFaultError

REFRESH_SECONDS = 0.5

Job = Callable[[threading.Event], None]


def run_search(search: SearchDirectory, *, workers: int, threads: int) -> None:
    """Search to the end with workers in this process; each trains its trials in processes of their own.

    Args:
        search: The search, which this process holds.
        workers: Trials at once.
        threads: Threads of each.

    Raises:
        UserError: All trials are refused alike, or none has a value.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what is done is kept.
    """
    plan = search.read_plan()
    table = Table(search, plan)
    processes.prepare()
    oracle = build_oracle(plan, search)
    oracle.read(workers_live=False)
    oracle.write()

    def work(number: int, stop: threading.Event) -> None:
        tuner = RecipeTuner(oracle, search, threads=threads, stop=stop, tell=table.tell)
        tuner.tuner_id = f"worker-{number}"
        tuner.search()

    watch(search, plan, table, [functools.partial(work, number) for number in range(workers)])
    finish(search, plan)


def watch(search: SearchDirectory, plan: Plan, table: Table, jobs: list[Job]) -> None:
    """Run jobs in threads until all have ended, and show meanwhile how the search goes.

    Args:
        search: The search.
        plan: What it is to do.
        table: What shows it.
        jobs: What runs; each ends soon after its event is set.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    stop = threading.Event()
    faults: list[BaseException] = []
    threads = [threading.Thread(target=_guarded, args=(job, stop, faults)) for job in jobs]
    with table, _terminated_like_interrupted():
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                time.sleep(REFRESH_SECONDS)
                if table.refresh():
                    write_tables(search, plan)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        table.refresh()
    if faults:
        raise faults[0]


def _guarded(job: Job, stop: threading.Event, faults: list[BaseException]) -> None:
    """Run a job; with a fault in one, all end."""
    try:
        job(stop)
    except SearchEndedError:
        pass
    except SearchFaultError as fault:
        faults.append(fault.__cause__ or fault)
        stop.set()
    except BaseException as error:
        faults.append(error)
        stop.set()


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Treat SIGTERM, as a cluster sends it, like Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def finish(search: SearchDirectory, plan: Plan) -> None:
    """Write the tables and the report of a search, and say what came out.

    Raises:
        UserError: No trial came to a value.
    """
    trials = search.trials()
    best = write_tables(search, plan)
    if best is None:
        reasons = [trial.reason for trial in trials if trial.reason]
        raise UserError(f"none of {len(trials)} trials came to a value. The last: {(reasons or ['?'])[-1]}")
    write_report(search, plan)
    values = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in best.values.items()
    )
    print(f"best {plan.objective} {best.value:.6g} in trial {best.number} of {len(trials)}: {values}")
    print("\n".join(remarks(plan, trials, best)))
    print(f"settings: {search.best_path}\nreport: {search.report_path}")
    command = shell_command("recipes", "train", plan.name, "--settings", search.best_path)
    print(f"train with them: {command}")
