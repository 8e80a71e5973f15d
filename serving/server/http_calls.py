"""Calls by HTTP, of every REST API: their body, their end, their JSON."""

import asyncio
import json
import re
import threading
from typing import Any

import grpc
from starlette.requests import Request
from starlette.responses import Response

from serving.server.calls import Call, Calls
from serving.server.errors import StatusError, too_large
from serving.server.json_body import MAX_BODY_BYTES

CLIENT_CLOSED_REQUEST = 499
"""HTTP status of a response that nobody reads."""


def json_response(value: Any, status: int = 200) -> Response:
    """Return a response with a JSON body."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        content = text.encode()
    except UnicodeEncodeError:  # an error shows bytes of the request that are not UTF-8
        content = re.sub("[\ud800-\udfff]", "\ufffd", text).encode()
    return Response(content, status, media_type="application/json")


def error_response(error: StatusError) -> Response:
    """Return the response to a call that is not answered: {"error": ...}."""
    return json_response({"error": error.text}, error.http_status)


async def answer(calls: Calls, call: "HttpCall") -> Response:
    """Answer a call in a task of its own, which is cancelled when the caller leaves, as gRPC does."""
    answering = asyncio.create_task(calls.answer(call))
    receiving = asyncio.create_task(call.receive())
    try:
        await asyncio.wait((answering, receiving), return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()  # no effect on a task that is done
        response: Response = await answering
    except StatusError as error:
        return call.failure(error)
    except asyncio.CancelledError:
        if not receiving.done():  # the server cancelled this request, the caller did not leave
            raise
        return call.failure(StatusError(grpc.StatusCode.CANCELLED, "the caller left", CLIENT_CLOSED_REQUEST))
    finally:
        answering.cancel()
        receiving.cancel()
        call.ended.set()
    return response


class HttpCall(Call):
    """A call by HTTP.

    Args:
        request: The HTTP request.
        api: Name of the method, as in `Call`.
        seconds: Time until the deadline.
        model: Name of the model.

    Attributes:
        ended: Set when nobody waits for the response any more.
    """

    def __init__(self, request: Request, api: str, seconds: float, model: str) -> None:
        super().__init__("REST", api, seconds, model)
        self.ended = threading.Event()
        self._request = request
        self._content: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    @property
    def received(self) -> bool:
        """Whether the whole body has arrived."""
        return self._content.done()

    def failure(self, error: StatusError) -> Response:
        """Return the response to this call if it is not answered."""
        return error_response(error)

    async def receive(self) -> None:
        """Receive the body, then return when the caller has left."""
        content = bytearray()
        length = int(self._request.headers.get("content-length", 0))
        more = True
        while more and max(length, len(content)) <= MAX_BODY_BYTES:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                return
            content += message.get("body", b"")
            more = message.get("more_body", False)
        if not self._content.done():  # it is cancelled with a call that has ended
            complete = max(length, len(content)) <= MAX_BODY_BYTES
            self._content.set_result(bytes(content) if complete else None)
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    async def content(self) -> bytes:
        """Return the body once it has arrived.

        Raises:
            StatusError: INVALID_ARGUMENT (413) for a body of more than MAX_BODY_BYTES.
        """
        content = await self._content
        if content is None:
            raise too_large(MAX_BODY_BYTES)
        return content
