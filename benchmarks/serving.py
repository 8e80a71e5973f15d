"""Print the table of serving in docs/results: requests per second and latencies of the MNIST CNN.

    python -m benchmarks.serving                                    the embedded server
    python -m benchmarks.serving --address HOST:8500 --rest HOST:8501    another running server: a real TF Serving

The client is h2load of nghttp2, in C (`apt-get install nghttp2-client`): each of its connections sends the next request
once the last one is answered. Server and client share the machine.
"""

import argparse
import contextlib
import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.commands import ROOT, command
from benchmarks.tables import print_header, print_row
from serving.client import Client, ServingError
from serving.load import random_request
from serving.protocol import PREDICTION, PredictRequest
from serving.tensors import read_proto

MODEL = "mnist"
ADDRESS, REST = "127.0.0.1:8599", "127.0.0.1:8598"
CONFIGURATIONS = {
    "embedded": [],
    "embedded, batching": ["--enable_batching=true"],
    "embedded, batching, 2 workers": ["--enable_batching=true", "--workers=2"],
}
"""Flags of the servers that are measured."""
CLIENTS = (1, 8, 32)
LARGE = 100
"""Images of a large request."""
COLUMNS = ("server", "API", "clients", "images per request", "requests/s", "images/s", "p50 ms", "p99 ms")


@dataclass(frozen=True)
class Load:
    """A request that clients send again and again.

    Attributes:
        api: gRPC or REST.
        images: Images in the request.
        arguments: What h2load needs for the protocol, and the URL.
        body: Body of the request.
    """

    api: str
    images: int
    arguments: tuple[str, ...]
    body: bytes


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="gRPC of a running server, instead of starting one")
    parser.add_argument("--rest", help="its REST API (default: not measured)")
    parser.add_argument(
        "--run", type=Path, help="the run to export (default: train mnist-cnn for an epoch on digits)"
    )
    parser.add_argument("--seconds", type=int, default=5, help="length of each measurement")
    arguments = parser.parse_args()
    if not shutil.which("h2load"):
        raise SystemExit("h2load is missing: apt-get install nghttp2-client")
    print_header(*COLUMNS)
    if arguments.address:
        measure_all(arguments.address, arguments.address, arguments.rest, arguments.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        export(arguments.run, Path(folder))
        for name, flags in CONFIGURATIONS.items():
            with server(f"--model_base_path={folder}/models/{MODEL}", *flags):
                measure_all(name, ADDRESS, REST, arguments.seconds)


def export(run: Path | None, folder: Path) -> None:
    """Export a run to `models/` in a folder; train one first if none is given."""
    if run is None:
        run = folder / "run"
        flags = ["--run-dir", run, "--data.source", "digits", "--training.epochs", "1"]
        command("recipes", "train", "mnist-cnn", *flags)
    command("serving", "export", run, "--models", folder / "models")


@contextlib.contextmanager
def server(*flags: str, model: str = MODEL) -> Iterator[None]:
    """Run the embedded server until the end of the context."""
    ports = (f"--port={ADDRESS.split(':')[1]}", f"--rest_api_port={REST.split(':')[1]}")
    arguments = [sys.executable, "-m", "serving", "serve", *ports, f"--model_name={model}", *flags]
    started = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_until_available(ADDRESS, model)
        yield
    finally:
        started.terminate()
        started.wait()


def wait_until_available(address: str, model: str = MODEL) -> None:
    """Wait until a version of a model is available."""
    with Client(address) as client:
        for _ in range(100):
            try:
                if any(version.state == "AVAILABLE" for version in client.status(model).values()):
                    return
            except ServingError:
                time.sleep(0.3)
    raise SystemExit(f"{address} does not serve {model}")


def loads(address: str, rest: str | None) -> list[Load]:
    """Return the requests to measure: one image and many by gRPC, one image by REST."""
    with Client(address) as client:
        signatures = client.metadata(MODEL)
    grpc = ("-Hcontent-type: application/grpc", "-Hte: trailers", f"http://{address}{PREDICTION}Predict")
    messages = {size: random_request(signatures, MODEL, size) for size in (1, LARGE)}
    found = [
        Load("gRPC", size, grpc, struct.pack(">?I", False, len(message)) + message)
        for size, message in messages.items()
    ]
    if rest:
        (image,) = PredictRequest.FromString(messages[1]).inputs.values()
        instances = np.rint(read_proto(image)).tolist()
        body = json.dumps({"instances": instances}).encode()
        found.append(Load("REST", 1, ("--h1", f"http://{rest}/v1/models/{MODEL}:predict"), body))
    return found


def measure_all(name: str, address: str, rest: str | None, seconds: int) -> None:
    """Print a row for each load and number of clients.

    Args:
        name: Name of the server in the table.
        address: Its gRPC address.
        rest: Its REST address; None to leave REST out.
        seconds: Length of each measurement.
    """
    for load in loads(address, rest):
        for clients in CLIENTS if load.images == 1 else (1,):
            rate, p50, p99 = measure(load, clients, seconds)
            cells = (f"{rate:,.0f}", f"{rate * load.images:,.0f}", f"{p50:.2f}", f"{p99:.2f}")
            print_row(name, load.api, clients, load.images, *cells)


def measure(load: Load, clients: int, seconds: int) -> tuple[float, float, float]:
    """Return requests per second, and the median and the 99th percentile of the latencies in milliseconds.

    Raises:
        SystemExit: A request was not answered with HTTP status 200.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(load.body)
        flags = [f"--clients={clients}", f"--duration={seconds}", "--warm-up-time=1", f"--log-file={log}"]
        done = subprocess.run(
            ["h2load", *flags, f"--data={body}", *load.arguments], check=True, capture_output=True, text=True
        )
        _, status, microseconds = np.loadtxt(log, np.int64, ndmin=2).T
    found = re.search(r"finished in [0-9.]+s, ([0-9.]+) req/s", done.stdout)
    if found is None or (status != 200).any():
        raise SystemExit(f"h2load failed:\n{done.stdout}{done.stderr}")
    p50, p99 = np.percentile(microseconds, (50, 99)) / 1000
    return float(found[1]), p50, p99


if __name__ == "__main__":
    main()
