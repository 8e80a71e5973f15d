"""A closed-loop load on a server: each client sends its next request as soon as it is answered."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc.aio
import numpy as np

from serving import protocol
from serving.client import TLS, ServingError, bearer, open_channel
from serving.tensors import DATA_TYPES, Signature, fill_proto

HEADER = "clients  batch  requests/s  examples/s  p50 ms  p95 ms  p99 ms"


@dataclass(frozen=True)
class Measured:
    """The result of a load.

    Attributes:
        clients: Number of clients.
        seconds: Length of the measurement.
        latencies: Seconds from each request to its response, sorted.
    """

    clients: int
    seconds: float
    latencies: list[float]

    @property
    def requests_per_second(self) -> float:
        """Responses per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, part: float) -> float:
        """Return a percentile of the latencies in milliseconds; `part` is 0 to 1."""
        return 1000 * self.latencies[min(int(part * len(self.latencies)), len(self.latencies) - 1)]

    def row(self, batch_size: int) -> str:
        """Return the line of a table with HEADER."""
        p50, p95, p99 = (self.percentile(part) for part in (0.5, 0.95, 0.99))
        rate = self.requests_per_second
        return f"{self.clients:7}  {batch_size:5}  {rate:10,.0f}  {rate * batch_size:10,.0f}  {p50:6.2f}  {p95:6.2f}  {p99:6.2f}"


def random_request(signatures: Mapping[str, Signature], model: str, batch_size: int) -> bytes:
    """Return a serialized PredictRequest for `serving_default`: random numbers from 0 to 255, or a short text."""
    request = protocol.PredictRequest()
    request.model_spec.name = model
    random = np.random.default_rng(0)
    for name, spec in signatures["serving_default"].inputs.items():
        shape = [batch_size if size == -1 else size for size in spec.shape or ()]
        dtype = DATA_TYPES[spec.data_type].dtype
        array = (
            np.full(shape, b"ROMEO:", np.object_)
            if dtype is np.object_
            else random.uniform(0, 255, shape).astype(dtype)
        )
        fill_proto(request.inputs[name], array)
    content: bytes = request.SerializeToString()
    return content


def measure(
    address: str,
    request: bytes,
    clients: int,
    seconds: float,
    tls: TLS | None = None,
    token: str | None = None,
) -> Measured:
    """Send one request again and again from several clients, after a second of warm-up.

    The request is serialized once and responses are not parsed, so that the server is measured and not
    the client.

    Raises:
        ServingError: The first response that is not OK.
    """
    return asyncio.run(_measure(address, request, clients, seconds, tls, token))


async def _measure(
    address: str, request: bytes, clients: int, seconds: float, tls: TLS | None, token: str | None
) -> Measured:
    async with open_channel(grpc.aio, address, tls) as channel:
        predict = channel.unary_unary(protocol.METHODS["Predict"].path)

        async def client(until: float, latencies: list[float]) -> None:
            while (started := time.perf_counter()) < until:
                await predict(request, timeout=60, metadata=bearer(token))
                latencies.append(time.perf_counter() - started)

        async def all_clients(length: float) -> tuple[float, list[float]]:
            latencies: list[float] = []
            started = time.perf_counter()
            await asyncio.gather(*(client(started + length, latencies) for _ in range(clients)))
            return time.perf_counter() - started, latencies

        try:
            await all_clients(1.0)
            elapsed, latencies = await all_clients(seconds)
        except grpc.aio.AioRpcError as error:
            raise ServingError.from_grpc(error) from None
    return Measured(clients, elapsed, sorted(latencies))
