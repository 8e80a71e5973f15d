"""A call, by gRPC or REST, and the one way to answer it: admission, deadline, errors, status, metrics."""

import abc
import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from serving.server.errors import StatusError, unavailable
from serving.server.metrics import Metrics
from serving.tensors import Arrays, Signature

log = logging.getLogger("serving")

REFUSAL_SECONDS = 0.5
"""Minimum time for which new calls are refused before the port is closed. A closing gRPC server cancels
what reaches it at that moment, and callers do not retry after CANCELLED; after UNAVAILABLE they do."""


@dataclass(eq=False)
class Call(abc.ABC):
    """A call. The gRPC and REST front ends translate to and from it.

    Attributes:
        entrypoint: GRPC or REST.
        api: Name of the method: Predict, Classify, Regress, MultiInference, GetModelMetadata,
            GetModelStatus, HandleReloadConfigRequest, Generate or ListModels.
        seconds: Time until the deadline; None without one.
        model: Name of the model.
        version: Version number; None for the latest.
        label: Version label, instead of a number.
        signature: Name of the signature; empty for the default.
        output_filter: Aliases of the requested outputs; empty for all.
        tasks: The calls that a MultiInference consists of.
        config: The ModelServerConfig of a HandleReloadConfigRequest.
    """

    entrypoint: str
    api: str
    seconds: float | None = None
    model: str = ""
    version: int | None = None
    label: str | None = None
    signature: str = ""
    output_filter: Sequence[str] = ()
    tasks: "Sequence[Call]" = ()
    config: Any = None

    @property
    def received(self) -> bool:
        """Whether the whole request has arrived."""
        return True

    @abc.abstractmethod
    async def decode(self) -> None:
        """Set the attributes that are in the body, once the call is admitted.

        Raises:
            StatusError: INVALID_ARGUMENT for a malformed request.
        """

    @abc.abstractmethod
    async def read_inputs(self, signature: Signature, max_rows: int | None) -> Arrays:
        """Return the arrays of the inputs by name.

        Raises:
            StatusError: INVALID_ARGUMENT for inputs that the signature or the limit of rows does not allow.
        """

    @abc.abstractmethod
    async def encode(self, result: Any) -> Any:
        """Return the response for a result of `Inference.run`."""


class GenerateCall(Call):
    """A call whose texts are sent while they are generated.

    Attributes:
        stop: Texts that end a text before them.
    """

    stop: Sequence[str] = ()

    @abc.abstractmethod
    async def send(self, part: Any) -> None:
        """Send the next part of the texts, a Prediction with the outputs of `text_batch.Generation`.

        While a slow reader makes it wait, generation continues, and the next part is longer.
        """


EndSpan = Callable[[grpc.StatusCode], None]


def no_span(_: Call) -> contextlib.AbstractContextManager[EndSpan]:
    """Give a function that ignores the status of a call."""
    return _NO_SPAN


_NO_SPAN: contextlib.AbstractContextManager[EndSpan] = contextlib.nullcontext(lambda _: None)


class Calls:
    """Answers calls.

    Args:
        run: Returns the result of a decoded call.
        metrics: Counts the answers.
        is_model: Whether a name is that of a model; calls of other names are not counted.
        limit: Most calls at the same time; 0 for any number.
        span: Gives what is told the status of a call.

    Attributes:
        closing: Whether new calls are refused.
    """

    def __init__(
        self,
        run: Callable[[Call], Awaitable[Any]],
        metrics: Metrics,
        is_model: Callable[[str], bool],
        limit: int = 0,
        span: Callable[[Call], contextlib.AbstractContextManager[EndSpan]] = no_span,
    ) -> None:
        self._run = run
        self._metrics = metrics
        self._is_model = is_model
        self._limit = limit
        self._span = span
        self._under_way: dict[asyncio.Task[Any], Call] = {}
        self._ended: set[asyncio.Task[Any]] = set()
        self.closing = False

    async def answer(self, call: Call) -> Any:
        """Return the response to a call, and count its status and latency.

        Raises:
            StatusError: The status of a call that is not answered: UNAVAILABLE while the server shuts down,
                RESOURCE_EXHAUSTED above the limit, DEADLINE_EXCEEDED, INTERNAL for an unexpected error, or
                what decoding, running or encoding raised.
            asyncio.CancelledError: The caller left.
        """
        with self._span(call) as end_span:
            return await self._count(call, end_span)

    async def _count(self, call: Call, end_span: EndSpan) -> Any:
        started = time.perf_counter()
        status = grpc.StatusCode.OK
        try:
            return await self._answer(call)
        except StatusError as error:
            status = error.code
            raise
        except asyncio.CancelledError:
            # gRPC cancels a call at its deadline too, and may notice it first.
            late = call.seconds is not None and time.perf_counter() - started >= call.seconds
            status = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        finally:
            end_span(status)
            if self._is_model(call.model):
                elapsed = time.perf_counter() - started
                self._metrics.request(call.model, call.entrypoint, call.api, status.name, elapsed)

    async def _answer(self, call: Call) -> Any:
        task: Any = asyncio.current_task()
        try:
            self._check_admission()
            self._under_way[task] = call
            async with asyncio.timeout(call.seconds):
                await call.decode()
                return await call.encode(await self._run(call))
        except StatusError:
            raise
        except asyncio.CancelledError:
            if task in self._ended:  # cancelled by `close`, not by the caller
                raise unavailable("the server is shutting down") from None
            raise
        except TimeoutError as error:
            raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out") from error
        except Exception as error:  # an unexpected error of one call must not affect others
            log.exception("unexpected error in %s", call.api)
            text = "the server failed unexpectedly; its log has the details"
            raise StatusError(grpc.StatusCode.INTERNAL, text) from error
        finally:
            self._under_way.pop(task, None)
            self._ended.discard(task)

    def _check_admission(self) -> None:
        if self.closing:
            raise unavailable("the server is shutting down")
        if 0 < self._limit <= len(self._under_way):
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

    async def close(self, seconds: float) -> None:
        """Refuse new calls with UNAVAILABLE, wait for those under way, then end the rest.

        A request that has not arrived completely is refused too.

        Args:
            seconds: Maximum time to wait.
        """
        self.closing = True
        self._end([task for task, call in self._under_way.items() if not call.received])
        until = time.monotonic() + seconds
        await asyncio.sleep(REFUSAL_SECONDS)
        while self._under_way and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self._end(self._under_way)

    def _end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        for task in tasks:
            self._ended.add(task)
            task.cancel()
