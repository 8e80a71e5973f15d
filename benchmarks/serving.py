"""Print the table of serving in docs/results: requests per second and latencies of the MNIST CNN.

    python -m benchmarks.serving                           the embedded server, batching on and off
    python -m benchmarks.serving --address localhost:8500  another running server: a real TF Serving

Server and client share the machine. The last rows are the upper limit: the same client and requests with a
gRPC server in Python that has no model.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.commands import ROOT, command
from serving.client import Client, ServingError
from serving.load import measure, random_request
from serving.protocol import PREDICTION

MODEL = "mnist"
PORT = 8599
ADDRESS = f"localhost:{PORT}"
LOADS = ((1, 1), (8, 1), (32, 1), (1, 100))
"""Numbers of clients and images per request."""
HEADER = "| server | clients | images per request | requests/s | images/s | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="measure this server instead of starting one")
    parser.add_argument(
        "--run", type=Path, help="the run to export (default: train mnist-cnn for an epoch on digits)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--without-model", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.without_model:
        uvloop.run(serve_without_model())
        return
    print(HEADER, flush=True)
    if arguments.address:
        measure_all(arguments.address, arguments.address, requests_of(arguments.address), arguments.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        export(arguments.run, Path(folder))
        flags = [f"--port={PORT}", f"--model_name={MODEL}", f"--model_base_path={folder}/models/{MODEL}"]
        for batching in ("on", "off"):
            flag = f"--enable_batching={'true' if batching == 'on' else 'false'}"
            with process("serving", "serve", *flags, flag):
                wait_until_available(ADDRESS)
                requests = requests_of(ADDRESS)
                measure_all(f"embedded, batching {batching}", ADDRESS, requests, arguments.seconds)
        with process("benchmarks.serving", "--without-model"):
            time.sleep(3)
            measure_all("no model", ADDRESS, requests, arguments.seconds)


def export(run: Path | None, folder: Path) -> None:
    """Export a run to `models/` in a folder; train one first if none is given."""
    if run is None:
        run = folder / "run"
        flags = ["--run-dir", run, "--data.source", "digits", "--training.epochs", "1"]
        command("recipes", "train", "mnist-cnn", *flags)
    command("serving", "export", run, "--models", folder / "models")


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[None]:
    """Run `python -m ARGUMENTS` until the end of the context."""
    started = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        started.terminate()
        started.wait()


def wait_until_available(address: str) -> None:
    """Wait until a version of the model is available."""
    with Client(address) as client:
        for _ in range(100):
            try:
                if any(version.state == "AVAILABLE" for version in client.status(MODEL).values()):
                    return
            except ServingError:
                time.sleep(0.3)
    raise SystemExit(f"{address} does not serve {MODEL}")


def requests_of(address: str) -> dict[int, bytes]:
    """Return a request for each number of images in LOADS."""
    with Client(address) as client:
        signatures = client.metadata(MODEL)
    return {size: random_request(signatures, MODEL, size) for _, size in LOADS}


def measure_all(server: str, address: str, requests: Mapping[int, bytes], seconds: float) -> None:
    """Print a row for each load.

    Args:
        server: Name of the server in the table.
        address: Its address.
        requests: Requests by number of images.
        seconds: Length of each measurement.
    """
    for clients, batch_size in LOADS:
        result = measure(address, requests[batch_size], clients, seconds)
        rate = result.requests_per_second
        print(
            f"| {server} | {clients} | {batch_size} | {rate:,.0f} | {rate * batch_size:,.0f} "
            f"| {result.percentile(0.5):.2f} | {result.percentile(0.99):.2f} |",
            flush=True,
        )


async def serve_without_model() -> None:
    """Answer Predict with the first 100 bytes of the request, until the process ends."""

    async def call(content: bytes, context: object) -> bytes:
        return content[:100]

    server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1),))
    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(call)}
    path = PREDICTION.strip("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(path, handlers),))
    server.add_insecure_port(ADDRESS)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    main()
