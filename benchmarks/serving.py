"""Print the README's table of serving: requests per second and latencies of the MNIST CNN.

    python -m benchmarks.serving                           the embedded server, batching on and off
    python -m benchmarks.serving --address localhost:8500  another running server: a real TF Serving

Server and client share the machine. The last rows are the upper limit: the same client and requests with a
gRPC server in Python that has no model.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.commands import ROOT, command
from serving.client import Client, ServingError
from serving.load import measure, random_request
from serving.protocol import PREDICTION

PORT = 8599
ADDRESS = f"localhost:{PORT}"
LOADS = ((1, 1), (8, 1), (32, 1), (1, 100))
HEADER = "| server | clients | images per request | requests/s | images/s | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|"


def wait_until_available(address: str, model: str) -> None:
    """Wait until a version of a model is available."""
    with Client(address) as client:
        for _ in range(100):
            try:
                if any(version.state == "AVAILABLE" for version in client.status(model).values()):
                    return
            except ServingError:
                time.sleep(0.3)
    raise SystemExit(f"{address} does not serve {model}")


def measure_all(server: str, address: str, requests: dict[int, bytes], seconds: float) -> None:
    """Print a row for each load."""
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
    server.add_insecure_port(f"localhost:{PORT}")
    await server.start()
    await server.wait_for_termination()


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
    parser.add_argument("--ceiling", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ceiling:
        uvloop.run(serve_without_model())
        return
    print(HEADER, flush=True)
    if arguments.address:
        with Client(arguments.address) as client:
            signatures = client.metadata("mnist")
        requests = {size: random_request(signatures, "mnist", size) for _, size in LOADS}
        measure_all(arguments.address, arguments.address, requests, arguments.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.run or Path(folder) / "run"
        if not arguments.run:
            flags = ["--run-dir", str(path), "--data.source", "digits", "--training.epochs", "1"]
            command("recipes", "train", "mnist-cnn", *flags)
        command("serving", "export", str(path), "--models", f"{folder}/models")
        serve = [
            "serving",
            "serve",
            f"--port={PORT}",
            "--model_name=mnist",
            f"--model_base_path={folder}/models/mnist",
        ]
        requests = {}
        for name, flag in (
            ("batching on", "--enable_batching=true"),
            ("batching off", "--enable_batching=false"),
        ):
            process = subprocess.Popen(
                [sys.executable, "-m", *serve, flag], cwd=ROOT, stderr=subprocess.DEVNULL
            )
            try:
                wait_until_available(ADDRESS, "mnist")
                with Client(ADDRESS) as client:
                    signatures = client.metadata("mnist")
                requests = {size: random_request(signatures, "mnist", size) for _, size in LOADS}
                measure_all(f"embedded, {name}", ADDRESS, requests, arguments.seconds)
            finally:
                process.terminate()
                process.wait()
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.serving", "--ceiling"], cwd=ROOT)
        try:
            time.sleep(3)
            measure_all("no model", ADDRESS, requests, arguments.seconds)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
