"""The REST API (https://www.tensorflow.org/tfx/serving/api_rest): HTTP ↔ calls; the metrics and the demo page."""

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from serving.protocol import SignatureDefMap
from serving.server.calls import Call, Calls
from serving.server.errors import StatusError, invalid_argument, too_large
from serving.server.examples import classifications, regressions, serialize
from serving.server.json_body import MAX_BODY_BYTES, parse, text_of
from serving.server.json_tensors import as_columns, as_rows, read_examples, read_tensors
from serving.server.metrics import Metrics
from serving.tensors import Array, Signature

DEMO_PAGE = Path(__file__).parents[1] / "demo" / "index.html"
MODEL_PATHS = (
    "/v1/models/{model}",
    "/v1/models/{model}/versions/{version}",
    "/v1/models/{model}/labels/{label}",
)
CLIENT_CLOSED_REQUEST = 499
"""HTTP status of a response that nobody reads."""


def create_app(
    calls: Calls, metrics: Metrics, *, metrics_path: str | None, timeout: float, cors: bool
) -> Starlette:
    """Build the application.

    Args:
        calls: Answers the calls.
        metrics: Shown at metrics_path.
        metrics_path: Path of the metrics; None to turn them off.
        timeout: Deadline of a request in seconds.
        cors: Whether pages of other origins may call.
    """

    def endpoint(api: str) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            return await _answer(calls, api, request, timeout)

        return handle

    routes = [Route("/", lambda _: FileResponse(DEMO_PAGE))]
    for path in MODEL_PATHS:
        for api in ("Predict", "Classify", "Regress"):
            routes.append(Route(f"{path}:{api.lower()}", endpoint(api), methods=["POST"]))
        routes.append(Route(f"{path}/metadata", endpoint("GetModelMetadata")))
    # Last, because {label} would match "NAME:predict" too.
    routes += [Route(path, endpoint("GetModelStatus")) for path in MODEL_PATHS]
    if metrics_path:
        routes.append(
            Route(metrics_path, lambda _: Response(metrics.text(), media_type="text/plain; version=0.0.4"))
        )
    allow = Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    return Starlette(
        routes=routes,
        middleware=[allow] if cors else [],
        exception_handlers={404: _no_such_path, 405: _no_such_path},
    )


def _malformed(request: Request) -> StatusError:
    return invalid_argument(f"Malformed request: {request.method} {request.url.path}")


def _no_such_path(request: Request, _: Exception) -> Response:
    status = 400 if request.url.path.startswith("/v1/models") else 404
    return _json({"error": _malformed(request).text}, status)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")


async def _answer(calls: Calls, api: str, request: Request, timeout: float) -> Response:
    """Answer a call in a task of its own, which is cancelled when the caller leaves, as gRPC does."""
    call = RestCall(api, timeout, request)
    answering = asyncio.create_task(calls.answer(call))
    receiving = asyncio.create_task(call.receive())
    try:
        await asyncio.wait((answering, receiving), return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()  # no effect on a task that is done
        response: Response = await answering
    except StatusError as error:
        return _json({"error": error.text}, error.http_status)
    except asyncio.CancelledError:
        if not receiving.done():  # the server cancelled this request, the caller did not leave
            raise
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        answering.cancel()
        receiving.cancel()
        call.ended.set()
    return response


class RestCall(Call):
    """A call by REST.

    Args:
        api: Name of the method.
        seconds: Time until the deadline.
        request: The HTTP request.

    Attributes:
        ended: Set when nobody waits for the response any more.
    """

    def __init__(self, api: str, seconds: float, request: Request) -> None:
        super().__init__("REST", api, seconds, request.path_params["model"])
        self.ended = threading.Event()
        self._request = request
        self._content: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._body: dict[str, Any] = {}
        self._examples: Array

    @property
    def received(self) -> bool:
        """Whether the whole body has arrived."""
        return self._content.done()

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

    def identify(self) -> None:
        """Read the label or version of the path."""
        self.label = self._request.path_params.get("label")
        version = self._request.path_params.get("version")
        if version is None:
            return
        if not re.fullmatch("[0-9]+", version):
            raise _malformed(self._request)
        digits = version.lstrip("0") or "0"
        if len(digits) > 19 or int(digits) > 2**63 - 1:  # Python parses at most 4,300 digits
            raise invalid_argument(f"Failed to convert version: {version} to numeric.")
        self.version = int(digits)

    async def decode(self) -> None:
        """Parse the body, in a thread."""
        content = await self._content
        if content is None:
            raise too_large(MAX_BODY_BYTES)
        if self._request.method == "POST":
            await asyncio.to_thread(self._parse, content)

    def _parse(self, content: bytes) -> None:
        encoding = self._request.headers.get("content-encoding", "")
        self._body = parse(content, encoding, self.ended)
        self.signature = text_of(self._body, "signature_name")
        if self.api != "Predict":
            self._examples = serialize(read_examples(self._body))
        elif ("instances" in self._body) == ("inputs" in self._body):
            raise invalid_argument("Request body must have either 'instances' or 'inputs', and not both")

    async def read_inputs(self, signature: Signature, max_rows: int | None) -> list[Array]:
        """Return the arrays of the tensors, read in a thread, or serialized tf.Examples."""
        if self.api == "Predict":
            return await asyncio.to_thread(read_tensors, self._body, signature, max_rows)
        return [self._examples]

    async def encode(self, result: Any) -> Response:
        """Return the response; in a thread."""
        return await asyncio.to_thread(lambda: _json(self._as_json(result)))

    def _as_json(self, result: Any) -> Any:
        match self.api:
            case "Predict" if "instances" in self._body:
                return {"predictions": as_rows(result.outputs)}
            case "Predict":
                return {"outputs": as_columns(result.outputs)}
            case "Classify":
                return {"results": classifications(result.outputs)}
            case "Regress":
                return {"results": regressions(result.outputs)}
            case "GetModelMetadata":
                signatures = SignatureDefMap.FromString(result.metadata["signature_def"].value)
                metadata = {"signature_def": _message_as_json(signatures)}
                return {
                    "model_spec": json_format.MessageToDict(
                        result.model_spec, preserving_proto_field_name=True
                    ),
                    "metadata": metadata,
                }
            case _:
                return _message_as_json(result)


def _message_as_json(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
