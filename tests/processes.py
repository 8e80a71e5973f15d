"""Commands as a user starts them, and processes as tests watch and end them.

Most of a command's time is the import of TensorFlow. Here it is forked from a process that has imported
TensorFlow and never used it, and starts in milliseconds.
"""

import contextlib
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import context, forkserver
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOWHERE = Path(os.devnull)

forkserver.set_forkserver_preload(
    # Not serving.export: it computes while it is imported, and a fork of that does not compute any more.
    [
        "recipes.tasks",
        "tuning.run",
        "tuning.training",
        "serving.server.app",
        "serving.client",
        "sklearn.metrics",
        "pytest",
    ]
)


class Forked(context.ForkServerProcess):
    """A function in a process of its own, in a folder, with changes to the environment and files as streams."""

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: object,
        cwd: Path = ROOT,
        stdin: Path = NOWHERE,
        stdout: Path = NOWHERE,
        stderr: Path = NOWHERE,
        **environment: str,
    ) -> None:
        super().__init__(target=function, args=arguments)
        self.cwd, self.environment, self.streams = (
            cwd,
            {**os.environ, "PYTHONPATH": str(ROOT), **environment},
            (stdin, stdout, stderr),
        )

    def start(self) -> None:
        with contextlib.chdir(ROOT):  # the first one starts the server, which imports our modules from here
            super().start()

    def run(self) -> None:
        os.chdir(self.cwd)
        os.environ.clear()
        os.environ.update(self.environment)
        modes = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor, (path, mode) in enumerate(zip(self.streams, modes, strict=True)):
            os.dup2(os.open(path, mode), descriptor)
        sys.stdin = os.fdopen(0)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
        super().run()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self.exitcode

    def wait(self, timeout: float = 240) -> int:
        """Return the exit status; a process that does not end in time (seconds) is killed.

        Raises:
            subprocess.TimeoutExpired: It did not end in time.
        """
        self.join(timeout)
        if self.exitcode is None:
            self.kill()
            self.join()
            raise subprocess.TimeoutExpired(self.name, timeout)
        return self.exitcode


def start_command(module: str, *arguments: object, **place: object) -> Forked:
    """Start `python -m MODULE ARGUMENTS`; `place` is what Forked takes."""
    process = Forked(_run_module, module, *map(str, arguments), **place)
    process.start()
    return process


def run_command(
    module: str, *arguments: object, timeout: float = 240, **place: object
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS` to its end; return its exit status and output."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        status = start_command(module, *arguments, stdout=out, stderr=err, **place).wait(timeout)
        return subprocess.CompletedProcess([module, *arguments], status, out.read_text(), err.read_text())


def _run_module(module: str, *arguments: str) -> None:
    sys.argv = [module, *arguments]
    sys.path.insert(0, os.getcwd())  # as python -m does
    runpy.run_module(module, run_name="__main__")


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """Check that a command refused its input in one or two lines, which say these words."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) <= 2, done.stderr
    assert lines[0].startswith("error: ")
    for words in said:
        assert words in done.stderr


def wait_until(holds: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def kill(pid: int) -> None:
    """End a process as a lost machine does."""
    os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def free_port() -> int:
    """Return a free port below those that the system gives to connections, so that none of them takes it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("", port))
            return port
