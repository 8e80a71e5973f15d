"""OpenAI's completions API: HTTP ↔ calls. A stream is sent as server-sent events.

The name of a model may choose a version, as TF Serving's paths do: `lm`, `lm/versions/2`, `lm/labels/stable`.
"""

import asyncio
import re
from typing import Any

import grpc
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from serving.server.calls import Calls, GenerateCall
from serving.server.completions import Completion, CompletionRequest
from serving.server.errors import StatusError, not_found
from serving.server.http_calls import HttpCall, answer, json_response
from serving.server.inputs import check_rows
from serving.server.json_body import parse
from serving.tensors import Arrays, Signature

MODEL = re.compile(r"(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]{1,18})|/labels/(?P<label>[^/:]+))?")
EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # otherwise nginx collects events
]
DONE = b"data: [DONE]\n\n"
ERROR_TYPES = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid_request_error",
    grpc.StatusCode.FAILED_PRECONDITION: "invalid_request_error",
    grpc.StatusCode.NOT_FOUND: "invalid_request_error",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "rate_limit_error",
}
"""OpenAI's types of errors by gRPC status code; server_error for all others."""


def create_routes(calls: Calls, *, timeout: float) -> list[Route]:
    """Return the routes of the API.

    Args:
        calls: Answers the calls.
        timeout: Deadline of a request in seconds, to the end of its stream.
    """

    async def list_models(request: Request) -> Response:
        return await answer(calls, ListModelsCall(request, "ListModels", timeout, ""))

    return [
        Route("/v1/completions", _Completions(calls, timeout), methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
    ]


class ListModelsCall(HttpCall):
    """A call that lists the models that complete prompts."""

    async def decode(self) -> None:
        """Read nothing."""

    async def read_inputs(self, signature: Signature, max_rows: int | None) -> Arrays:
        """Return nothing."""
        return {}

    async def encode(self, result: Any) -> Response:
        """Return OpenAI's list of models."""
        models = [
            {"id": name, "object": "model", "created": int(created), "owned_by": "keras-recipes"}
            for name, created in result.items()
        ]
        return json_response({"object": "list", "data": models})


class _Completions:
    """The ASGI application of completions: a stream is sent while its call is answered."""

    def __init__(self, calls: Calls, timeout: float) -> None:
        self._calls = calls
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = CompletionCall(Request(scope, receive), send, self._timeout)
        response = await answer(self._calls, call)
        await response(scope, receive, send)


class CompletionCall(HttpCall, GenerateCall):
    """A call that completes prompts.

    Args:
        request: The HTTP request.
        send: Sends the parts of its response.
        seconds: Time until the deadline.
    """

    def __init__(self, request: Request, send: Send, seconds: float) -> None:
        super().__init__(request, "Generate", seconds, "")
        self._send = send
        self._streaming = False
        self._completion_request: CompletionRequest
        self._completion: Completion

    async def decode(self) -> None:
        """Parse the body, in a thread."""
        content = await self.content()
        encoding = self._request.headers.get("content-encoding", "")
        body = await asyncio.to_thread(parse, content, encoding, self.ended)
        self._completion_request = request = CompletionRequest.from_body(body)
        self._completion = Completion(request)
        self.stop = request.stop
        found = MODEL.fullmatch(request.model)
        if found is None:
            raise not_found(f"Servable not found for request: Latest({request.model})")
        self.model, self.label = found["model"], found["label"]
        self.version = int(found["version"]) if found["version"] else None

    async def read_inputs(self, signature: Signature, max_rows: int | None) -> Arrays:
        """Return the inputs of the signature `generate`."""
        check_rows("prompt", self._completion_request.rows, max_rows)
        return self._completion_request.inputs()

    async def send(self, part: Any) -> None:
        """Send the events of a part, if the response is streamed."""
        events = self._completion.add(part.outputs)
        if self._completion_request.stream:
            await self._send_events(b"".join(map(_event, events)))

    async def encode(self, result: Any) -> Response:
        """Return the response, or the end of the stream."""
        if not self._completion_request.stream:
            return json_response(self._completion.whole())
        usage = self._completion.usage() if self._completion_request.include_usage else None
        return _StreamEnd(_event(usage) + DONE if usage else DONE)

    def failure(self, error: StatusError) -> Response:
        """Return an error in OpenAI's form, as an event if the stream has begun."""
        kind = ERROR_TYPES.get(error.code, "server_error")
        value = {"error": {"message": error.text, "type": kind, "param": None, "code": error.code.name}}
        return _StreamEnd(_event(value)) if self._streaming else json_response(value, error.http_status)

    async def _send_events(self, content: bytes) -> None:
        if not self._streaming:
            self._streaming = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(EVENT_STREAM)})
        await self._send({"type": "http.response.body", "body": content, "more_body": True})


class _StreamEnd(Response):
    """The last events of a stream that has begun."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": self.body})


def _event(value: Any) -> bytes:
    return b"data: %b\n\n" % bytes(json_response(value).body)
