"""A closed-loop load on a server: callers that ask again as soon as they are answered."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc.aio
import numpy as np

from serving import protocol
from serving.client import PREDICTION, TLS, ServingError, Signature, open_channel
from serving.tensors import DATA_TYPES, fill_proto

HEADER = "callers  batch  requests/s  examples/s  p50 ms  p95 ms  p99 ms"


@dataclass(frozen=True)
class Measured:
    """What a load measured.

    Attributes:
        callers: Callers at the same time.
        seconds: Length of the measurement.
        latencies: Seconds from each request to its answer, sorted.
    """

    callers: int
    seconds: float
    latencies: list[float]

    @property
    def requests_per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, part: float) -> float:
        """Return the latency in milliseconds that a part of the requests stays under."""
        return 1000 * self.latencies[min(int(part * len(self.latencies)), len(self.latencies) - 1)]

    def row(self, batch_size: int) -> str:
        """Return a line under HEADER."""
        p50, p95, p99 = (self.percentile(part) for part in (0.5, 0.95, 0.99))
        rate = self.requests_per_second
        return f"{self.callers:7}  {batch_size:5}  {rate:10,.0f}  {rate * batch_size:10,.0f}  {p50:6.2f}  {p95:6.2f}  {p99:6.2f}"


def made_up_request(signatures: Mapping[str, Signature], model: str, batch_size: int) -> bytes:
    """Return a PredictRequest for `serving_default`: random numbers from 0 to 255, or a short text."""
    request = protocol.PredictRequest()
    request.model_spec.name = model
    random = np.random.default_rng(0)
    for name, spec in signatures["serving_default"].inputs.items():
        shape = [batch_size if size == -1 else size for size in spec.shape]
        dtype = DATA_TYPES[spec.data_type].dtype
        array = (
            np.full(shape, b"ROMEO:", np.object_)
            if dtype is np.object_
            else random.uniform(0, 255, shape).astype(dtype)
        )
        fill_proto(request.inputs[name], array)
    content: bytes = request.SerializeToString()
    return content


def measure(address: str, request: bytes, callers: int, seconds: float, tls: TLS | None = None) -> Measured:
    """Let callers send one request over and over.

    The request is serialised once and answers are not read, so that it is the server that is
    measured. A second of warm-up comes before.

    Raises:
        ServingError: The first answer that is not OK.
    """
    return asyncio.run(_measure(address, request, callers, seconds, tls))


async def _measure(address: str, request: bytes, callers: int, seconds: float, tls: TLS | None) -> Measured:
    async with open_channel(grpc.aio, address, tls) as channel:
        predict = channel.unary_unary(PREDICTION + "Predict")

        async def caller(until: float, latencies: list[float]) -> None:
            while (started := time.perf_counter()) < until:
                await predict(request, timeout=60)
                latencies.append(time.perf_counter() - started)

        async def all_callers(length: float) -> tuple[float, list[float]]:
            latencies: list[float] = []
            started = time.perf_counter()
            await asyncio.gather(*(caller(started + length, latencies) for _ in range(callers)))
            return time.perf_counter() - started, latencies

        try:
            await all_callers(1.0)
            elapsed, latencies = await all_callers(seconds)
        except grpc.aio.AioRpcError as error:
            raise ServingError(error.code(), error.details() or "") from None
    return Measured(callers, elapsed, sorted(latencies))
