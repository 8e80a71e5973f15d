"""The client whose calls are awaited."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from serving.client.messages import (
    METADATA,
    PREDICT,
    RELOAD,
    STATUS,
    TLS,
    Arrays,
    Messages,
    Method,
    Signature,
    VersionStatus,
    as_serving_error,
    open_channel,
    remote_methods,
)


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited. The pieces of a large batch are sent at once."""

    def __init__(
        self, address: str, *, timeout: float = 10.0, tls: TLS | None = None, max_batch_size: int = 256
    ) -> None:
        self._messages = Messages(max_batch_size, timeout)
        self._channel = open_channel(grpc.aio, address, tls)
        self._methods = remote_methods(self._channel)

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
        requests = self._messages.predict_requests(spec, outputs, inputs, named)
        answers = await asyncio.gather(*(self._call(PREDICT, request, timeout) for request in requests))
        return self._messages.predictions(answers)

    async def metadata(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """Return a model's signatures, by name."""
        request = self._messages.metadata_request({"model": model, "version": version, "label": label})
        return self._messages.signatures(await self._call(METADATA, request, timeout))

    async def resolve(self, model: str, *, label: str | None = None, timeout: float | None = None) -> int:
        """Return the number of the version that answers: the latest, or the one with a label."""
        request = self._messages.metadata_request({"model": model, "label": label})
        return self._messages.version(await self._call(METADATA, request, timeout))

    async def status(
        self, model: str, *, version: int | None = None, timeout: float | None = None
    ) -> dict[int, VersionStatus]:
        """Return the state of each version of a model, or of one."""
        request = self._messages.status_request({"model": model, "version": version})
        return self._messages.states(await self._call(STATUS, request, timeout))

    async def reload(self, config: str, *, timeout: float | None = None) -> None:
        """Give the server another model config, in TF Serving's text format."""
        self._messages.check_reload(await self._call(RELOAD, self._messages.reload_request(config), timeout))

    async def _call(self, method: Method, request: Any, timeout: float | None) -> Any:
        try:
            return await self._methods[method](request, timeout=timeout or self._messages.timeout)
        except grpc.aio.AioRpcError as error:
            raise as_serving_error(error) from None

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
