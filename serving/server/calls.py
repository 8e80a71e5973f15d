"""What happens to every call, by gRPC or REST: it is let in, timed, ended, counted, and answered with a status."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from serving.server.errors import StatusError, unavailable
from serving.server.metrics import Metrics

log = logging.getLogger("serving")

REFUSING_SECONDS = 0.5
"""How long new calls are refused at least before the port is closed. A closing gRPC server cancels
what reaches it in that moment, and a caller does not ask again after CANCELLED: by then its
retries after UNAVAILABLE are spread out, or at another server."""

Answer = TypeVar("Answer")


@dataclass
class Call:
    """A call under way.

    Attributes:
        entrypoint: GRPC or REST.
        api: Predict, Classify, ...
        seconds: How long its caller waits; None for as long as it takes.
        model: Name of the model, once it is known.
    """

    entrypoint: str
    api: str
    seconds: float | None
    model: str = ""


class Calls:
    """Lets calls in, ends those that nobody waits for, and counts all.

    Args:
        metrics: Counts the answers.
        known: Tells whether a name is a model's: other names are not counted.
        limit: Most calls by gRPC at the same time; 0 for any number.
    """

    def __init__(self, metrics: Metrics, known: Callable[[str], bool], limit: int = 0) -> None:
        self._metrics = metrics
        self._known = known
        self._limit = limit
        self._under_way: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._out_of_time = False
        self.closing = asyncio.Event()

    async def answer(self, call: Call, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Await a call's work and count how it ended.

        Raises:
            StatusError: The work's own; UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED or INTERNAL
                for what the call met here.
            asyncio.CancelledError: The caller left.
        """
        started = time.perf_counter()
        status = grpc.StatusCode.OK
        try:
            return await self._run(call, work)
        except StatusError as error:
            status = error.code
            raise
        except asyncio.CancelledError:
            # gRPC cancels at the deadline too, and may be the first to notice it.
            late = call.seconds is not None and time.perf_counter() - started >= call.seconds
            status = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        finally:
            work.close()  # of a call that was refused it has not begun
            if self._known(call.model):
                elapsed = time.perf_counter() - started
                self._metrics.request(call.model, call.entrypoint, call.api, status.name, elapsed)

    async def _run(self, call: Call, work: Coroutine[Any, Any, Answer]) -> Answer:
        if self.closing.is_set():
            raise unavailable("the server is shutting down")
        if call.entrypoint == "GRPC" and 0 < self._limit <= self._under_way["GRPC"]:
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
        task: Any = asyncio.current_task()
        self._tasks.add(task)
        self._under_way[call.entrypoint] += 1
        try:
            async with asyncio.timeout(call.seconds):
                return await work
        except StatusError:
            raise
        except asyncio.CancelledError:
            if self._out_of_time:  # nobody left: it is the server that goes
                raise unavailable("the server is shutting down") from None
            raise
        except TimeoutError as error:
            raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out") from error
        except Exception as error:  # one call's fault must not be another's: it is answered, logged, counted
            log.exception("fault in %s", call.api)
            text = "the server has a fault; its log says more"
            raise StatusError(grpc.StatusCode.INTERNAL, text) from error
        finally:
            self._under_way[call.entrypoint] -= 1
            self._tasks.discard(task)

    async def close(self, seconds: float) -> None:
        """Refuse new calls with UNAVAILABLE, wait until those under way are answered, and end the rest.

        Args:
            seconds: Longest time to wait.
        """
        self.closing.set()
        until = time.monotonic() + seconds
        await asyncio.sleep(REFUSING_SECONDS)
        while self._tasks and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self._out_of_time = True
        for task in self._tasks:
            task.cancel()


async def unless(
    work: Coroutine[Any, Any, Answer], ends: Coroutine[Any, Any, object], error: StatusError
) -> Answer:
    """Return what work gives, or raise an error where something else ends first; both are over then."""
    working, ending = asyncio.ensure_future(work), asyncio.ensure_future(ends)
    try:
        await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise error
        return working.result()
    finally:
        working.cancel()
        ending.cancel()
