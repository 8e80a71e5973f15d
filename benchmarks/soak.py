"""Print the soak table of docs/results: mixed load on the embedded server while its versions are swapped.

    python -m benchmarks.soak                                  30 minutes, with models trained for a moment
    python -m benchmarks.soak --models models --minutes 1      with exported models `mnist` and `lm`

Every request must be answered, and answered right: all versions are copies of one. Among the callers are some that
read slowly and some that leave within their request; among the versions some that are copied in two parts and some
that are deleted while they load. The memory must not grow by more than 5 % after the warm-up.
"""

import argparse
import contextlib
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.commands import ROOT, command
from benchmarks.soak_callers import Callers
from benchmarks.soak_versions import Versions
from benchmarks.tables import print_header, print_row

MAX_GROWTH = 0.05
"""Largest growth of the memory, as a part of the memory after the warm-up."""
WARM_UP = 0.2
"""Part of the time in which TensorFlow's allocator and thread pools grow to their working size."""
WINDOW = 0.1
"""Part of the time over which the memory is averaged, after the warm-up and at the end."""
SWAP_SECONDS = 10.0


@dataclass
class Tally:
    """The requests of a kind.

    Attributes:
        latencies: Seconds of each right answer.
        failures: What the others said.
    """

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def row(self) -> tuple[str, str, str, str]:
        """Return the cells of a table: requests, failed, p50 and p99 in ms."""
        requests = len(self.latencies) + len(self.failures)
        if len(self.latencies) < 2:
            return f"{requests:,}", f"{len(self.failures):,}", "", ""
        percentiles = statistics.quantiles(self.latencies, n=100, method="inclusive")
        p50, p99 = (f"{1000 * percentiles[part - 1]:,.1f}" for part in (50, 99))
        return f"{requests:,}", f"{len(self.failures):,}", p50, p99


def main() -> int:
    """Run the soak and return the exit status: 1 if a request failed or the memory grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the soak")
    parser.add_argument(
        "--models", type=Path, help="folder with exports `mnist` and `lm` (default: train them first)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = arguments.models or train(folder)
        address, rest = (f"localhost:{port}" for port in free_ports())
        with server(folder, source, address, rest) as process:
            versions = Versions(folder / "models", source, address)
            return soak(process, Callers(address, rest), versions, arguments.minutes)


def train(folder: Path) -> Path:
    """Train and export small models; return the folder of their exports."""
    for recipe, source in (("mnist-cnn", "digits"), ("lm-transformer-small", "pydoc")):
        flags = ["--run-dir", folder / recipe, "--data.source", source, "--training.epochs", "1"]
        if source == "pydoc":
            flags += ["--training.steps-per-epoch", "20"]
        command("recipes", "train", recipe, *flags)
        command("serving", "export", folder / recipe, "--models", folder / "exports")
    return folder / "exports"


def free_ports() -> list[int]:
    """Return two free ports."""
    with socket.create_server(("localhost", 0)) as first, socket.create_server(("localhost", 0)) as second:
        return [first.getsockname()[1], second.getsockname()[1]]


@contextlib.contextmanager
def server(folder: Path, source: Path, address: str, rest: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Serve copies of the models until the end of the context."""
    entries = []
    for model in ("mnist", "lm"):
        Versions.copy_first(source / model, folder / "models" / model)
        path = folder / "models" / model
        entries.append(f'config {{ name: "{model}" base_path: "{path}" model_platform: "tensorflow" }}')
    config = folder / "models.config"
    config.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    flags = [f"--port={address.split(':')[1]}", f"--rest_api_port={rest.split(':')[1]}"]
    flags += [f"--model_config_file={config}", "--load_retry_interval_micros=2000000"]
    flags += ["--enable_batching=true"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "serving", "serve", *flags], cwd=ROOT, stderr=log)
        try:
            Callers.wait_until_ready(rest)
            yield process
        finally:
            process.terminate()
            process.wait()
    for line in (folder / "log").read_text().splitlines():
        if "unexpected error" in line:
            print(line, file=sys.stderr)


def soak(process: "subprocess.Popen[bytes]", callers: Callers, versions: Versions, minutes: float) -> int:
    """Load a server, print the table, and return 1 if a request failed or the memory grew, else 0."""
    seconds, stopped = 60 * minutes, threading.Event()
    tallies = {kind: Tally() for kind in (*callers.kinds, "versions published")}
    threads = [
        threading.Thread(target=repeat, args=(ask, tallies[kind], stopped, callers.pause))
        for kind, ask in callers.kinds.items()
    ]
    swapping = (versions.publish_next, tallies["versions published"], stopped, SWAP_SECONDS)
    threads.append(threading.Thread(target=repeat, args=swapping))
    for thread in threads:
        thread.start()
    memory = watch(process, seconds)
    stopped.set()
    for thread in threads:
        thread.join()
    failed = report(tallies)
    before, after = (
        statistics.median(
            size for at, size in memory.items() if start * seconds <= at <= (start + WINDOW) * seconds
        )
        for start in (WARM_UP, 1 - WINDOW)
    )
    growth = after / before - 1
    print(
        f"\nMemory: {before / 2**20:,.0f} MiB after {WARM_UP * seconds:,.0f} s, {after / 2**20:,.0f} MiB after "
        f"{seconds:,.0f} s ({growth:+.1%}). {versions.summary()}"
    )
    return 1 if failed or growth > MAX_GROWTH or process.poll() is not None else 0


def watch(process: "subprocess.Popen[bytes]", seconds: float) -> dict[float, int]:
    """Return the resident memory of a process in bytes over a time, by seconds since now; less time if it ends."""
    started, memory = time.monotonic(), {}
    while (now := time.monotonic() - started) < seconds and process.poll() is None:
        memory[now] = 4096 * int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        time.sleep(1)
    return memory


def repeat(ask: Callable[[], None], tally: Tally, stopped: threading.Event, pause: float) -> None:
    """Ask again and again, with pauses, and tally the answers."""
    while not stopped.is_set():
        started = time.monotonic()
        try:
            ask()
            tally.latencies.append(time.monotonic() - started)
        except Exception as error:  # whatever happened, the request was not answered
            tally.failures.append(f"{type(error).__name__}: {error}")
        stopped.wait(max(started + pause * random.uniform(0.5, 1.5) - time.monotonic(), 0.0))


def report(tallies: dict[str, Tally]) -> int:
    """Print the table, and the first failures on standard error; return the number of failures."""
    print_header("requests", "number", "failed", "p50 ms", "p99 ms")
    for kind, tally in tallies.items():
        print_row(kind, *tally.row())
        for failure in tally.failures[:3]:
            print(json.dumps({kind: failure}), file=sys.stderr)
    return sum(len(tally.failures) for tally in tallies.values())


if __name__ == "__main__":
    sys.exit(main())
