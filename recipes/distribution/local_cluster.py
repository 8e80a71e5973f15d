"""A cluster on one machine: several training processes, all restarted from the last checkpoint when one dies.

Each process gets the TF_CONFIG that a launcher of real clusters would set.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from recipes.command_line import LOST_WORKER_STATUS, shell_command
from recipes.config import LostWorkerError

RESTARTS = 5
PATIENCE = 20.0
"""Seconds that the chief has after Ctrl-C to write its checkpoint."""


def train(count: int, name: str, path: Path, flags: Sequence[str]) -> None:
    """Train a recipe with several processes until the chief is done; otherwise print how to resume it.

    Args:
        count: Number of processes; the first is the chief.
        name: The recipe's name.
        path: The run directory.
        flags: The flags of `train`, with that directory.

    Raises:
        LostWorkerError: Processes died more often than they are restarted.
        KeyboardInterrupt: Ctrl-C; the chief wrote a checkpoint.
        SystemExit: A process failed for another reason; with its exit status.
    """
    try:
        _train(count, name, path, flags)
    except (KeyboardInterrupt, LostWorkerError):
        if _created(path) is not None:
            again = shell_command("recipes", "workers", count, name, "--resume", "--run-dir", path)
            print(f"Resume with {count} processes: {again}", file=sys.stderr)
        raise


def _train(count: int, name: str, path: Path, flags: Sequence[str]) -> None:
    """Start the processes until the chief is done, `RESTARTS` times again at most."""
    before = _created(path)
    for restart in range(RESTARTS + 1):
        if restart:
            message = f"A process died: restarting all {count} from the last checkpoint"
            print(message, file=sys.stderr, flush=True)
        resume = ["--run-dir", str(path), "--resume"]  # the run has recorded the settings of the flags
        status = _train_once(count, [name, *(flags if _created(path) == before else resume)])
        if status == 0:
            return
        if status > 0 and status != LOST_WORKER_STATUS:
            raise SystemExit(status)
    raise LostWorkerError(f"a process died {RESTARTS + 1} times")


def _created(path: Path) -> int | None:
    """Return when the run in a directory was created, in ns; None if there is none."""
    config = path / "config.json"
    return config.stat().st_mtime_ns if config.exists() else None


def _train_once(count: int, arguments: Sequence[str]) -> int:
    """Return the exit status of the process that ended the training: the chief, or one that failed."""
    addresses = free_addresses(count)
    processes = [_start(index, addresses, arguments) for index in range(count)]
    try:
        while True:
            statuses = [process.poll() for process in processes]
            failed = [status for status in statuses if status]
            if statuses[0] == 0:
                return 0
            if failed:
                return next((each for each in failed if each > 0 and each != LOST_WORKER_STATUS), failed[0])
            time.sleep(0.2)
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            processes[0].wait(PATIENCE)
        raise
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start(index: int, addresses: Sequence[str], arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    config = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return subprocess.Popen(
        [sys.executable, "-m", "recipes", "train", *arguments],
        env={**os.environ, "TF_CONFIG": json.dumps(config)},
        stdout=None if index == 0 else subprocess.DEVNULL,
        start_new_session=index > 0,  # Ctrl-C reaches only the chief, and the others end with it
    )


def free_addresses(count: int) -> list[str]:
    """Return free addresses of this machine."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
