"""The client whose calls are awaited."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from serving.client import messages
from serving.client.messages import TLS, Exchange, Result, ServingError, VersionStatus
from serving.tensors import Arrays, Signature


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited. The requests of a large batch are sent at once."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 10.0,
        tls: TLS | None = None,
        token: str | None = None,
        max_batch_size: int = 256,
    ) -> None:
        messages.check_settings(timeout, max_batch_size)
        self._timeout = timeout
        self._max_batch_size = max_batch_size
        self._channel = messages.open_channel(grpc.aio, address, tls)
        self._methods = messages.remote_methods(self._channel, token)

    async def predict(
        self,
        model: str,
        inputs: Any = None,
        *,
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        **named: Any,
    ) -> Arrays:
        """Run a signature; arguments and errors as in `Client.predict`."""
        spec = {"model": model, "signature": signature, "version": version, "label": label}
        return await self._call(messages.predict(spec, inputs, named, outputs, self._max_batch_size), timeout)

    async def generate(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> AsyncIterator[Arrays]:
        """Stream texts; arguments, parts and errors as in `Client.generate`."""
        request = messages.generate({"model": model, "version": version, "label": label}, inputs)
        responses = self._methods["Generate"](request, timeout=timeout or self._timeout)
        try:
            async for response in responses:
                yield messages.read_outputs(response)
        except grpc.aio.AioRpcError as error:
            raise ServingError.from_grpc(error) from None
        finally:
            responses.cancel()  # no effect on a stream that has ended

    async def metadata(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """Return the signatures of a model, by name."""
        return await self._call(messages.metadata(model, version, label), timeout)

    async def resolve(self, model: str, *, label: str | None = None, timeout: float | None = None) -> int:
        """Return the number of the version that answers: the latest, or the one with the label."""
        return await self._call(messages.resolve(model, label), timeout)

    async def status(
        self, model: str, *, version: int | None = None, timeout: float | None = None
    ) -> dict[int, VersionStatus]:
        """Return the state of each version of a model, or of one version."""
        return await self._call(messages.status(model, version), timeout)

    async def reload(self, config: str, *, timeout: float | None = None) -> None:
        """Replace the server's model config by one in TF Serving's text format."""
        await self._call(messages.reload(config), timeout)

    async def _call(self, exchange: Exchange[Result], timeout: float | None) -> Result:
        method, seconds = self._methods[exchange.method], timeout or self._timeout
        try:
            responses = await asyncio.gather(
                *(method(request, timeout=seconds) for request in exchange.requests)
            )
        except grpc.aio.AioRpcError as error:
            raise ServingError.from_grpc(error) from None
        return exchange.read(responses)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
