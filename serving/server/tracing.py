"""OpenTelemetry spans of calls, if the process has a tracer provider, such as `opentelemetry-instrument` makes.

A call is a child of the span that its caller names by `traceparent`, in the gRPC metadata or the HTTP header
(https://www.w3.org/TR/trace-context/). Without the library or a provider nothing of this runs.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.server.calls import Call, EndSpan
from serving.server.inference import Prediction

try:
    from opentelemetry import context, propagate, trace
except ImportError:  # the extra `tracing` is not installed
    trace = None  # type: ignore[assignment]

FLUSH_MILLISECONDS = 2000
"""Longest time that the last spans have to be exported."""
SERVER_ERRORS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
"""Statuses that make a span an error, as OpenTelemetry's conventions for servers have it."""
Run = Callable[[Call], Awaitable[Any]]


def create_tracing() -> "Tracing | None":
    """Return the spans of this process's tracer provider; None without the library or a provider."""
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return Tracing(trace.get_tracer_provider())


class Tracing:
    """Spans of calls.

    Args:
        provider: The tracer provider.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = trace.get_tracer("serving", tracer_provider=provider)
        logging.getLogger("serving").addFilter(add_trace_id)

    @contextlib.contextmanager
    def span(self, call: Call) -> Iterator[EndSpan]:
        """Give a function that sets the status of a call's span."""
        with self._tracer.start_as_current_span(
            call.api, kind=trace.SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:

            def end(status: grpc.StatusCode) -> None:
                span.set_attribute("serving.entrypoint", call.entrypoint)
                span.set_attribute("serving.model", call.model)
                span.set_attribute("serving.status", status.name)
                if status in SERVER_ERRORS:
                    span.set_status(trace.StatusCode.ERROR)

            yield end

    def describing(self, run: Run) -> Run:
        """Return `run`, which also says in the span what answered."""

        async def run_and_describe(call: Call) -> Any:
            result = await run(call)
            if isinstance(result, Prediction):
                span = trace.get_current_span()
                span.set_attribute("serving.version", result.version)
                span.set_attribute("serving.signature", result.signature)
                span.set_attribute("serving.rows", result.rows)
            return result

        return run_and_describe

    def flush(self) -> None:
        """Export the spans that have ended: the process ends without Python's own end."""
        if hasattr(self._provider, "force_flush"):  # the API's own providers export nothing
            self._provider.force_flush(FLUSH_MILLISECONDS)


def add_trace_id(record: logging.LogRecord) -> bool:
    """Add the trace of the current call to a line of the log."""
    span_context = trace.get_current_span().get_span_context()
    if span_context.is_valid:
        record.msg = f"{record.msg} [trace {trace.format_trace_id(span_context.trace_id)}]"
    return True


class ParentInterceptor(grpc.aio.ServerInterceptor):
    """Makes the span that a gRPC call names the parent of its span."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Return the handler of a call, which runs in the same task as this."""
        context.attach(propagate.extract(dict(handler_call_details.invocation_metadata)))
        return await continuation(handler_call_details)


class ParentMiddleware:
    """Makes the span that an HTTP request names the parent of its span.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, in the task that Uvicorn has made for it."""
        context.attach(propagate.extract(dict(Headers(scope=scope))))
        await self._app(scope, receive, send)
