"""The REST API (https://www.tensorflow.org/tfx/serving/api_rest): HTTP ↔ calls; the metrics and the demo page."""

import asyncio
import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from serving.protocol import SignatureDefMap
from serving.server import completions_api, open_inference
from serving.server.calls import Calls
from serving.server.errors import StatusError, invalid_argument
from serving.server.examples import INPUT, classifications, regressions, serialize
from serving.server.http_calls import HttpCall, answer, error_response, json_response
from serving.server.json_body import parse, signature_of
from serving.server.json_examples import read_examples
from serving.server.json_outputs import as_columns, as_rows
from serving.server.json_tensors import read_tensors
from serving.server.manager import ModelManager
from serving.server.metrics import Metrics
from serving.tensors import Array, Arrays, Signature

DEMO_PAGE = Path(__file__).parents[1] / "demo" / "index.html"
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
WHICH = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
PATHS = {
    "POST": re.compile(
        rf"/v1/models/(?P<model>[^/:]+){WHICH}:(?P<verb>classify|regress|predict)", re.IGNORECASE
    ),
    "GET": re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{WHICH}(?P<metadata>/metadata)?", re.IGNORECASE),
}
"""The paths that a method has, in TF Serving's http_rest_api_util.cc."""
NOT_FOUND = """<HTML><HEAD>
<TITLE>404 Not Found</TITLE>
</HEAD><BODY>
<H1>Not Found</H1>
</BODY></HTML>
"""


def create_app(
    calls: Calls,
    manager: ModelManager,
    metrics: Metrics,
    *,
    metrics_path: str | None,
    timeout: float,
    middleware: Sequence[Middleware],
) -> Starlette:
    """Build the application.

    Args:
        calls: Answers the calls.
        manager: The models.
        metrics: Shown at metrics_path.
        metrics_path: Path of the metrics; None to turn them off.
        timeout: Deadline of a request in seconds.
        middleware: What stands before all paths.
    """

    async def handle(request: Request) -> Response:
        target = request.scope["raw_path"].decode("latin-1")
        if not re.match("/v1/", target, re.IGNORECASE):
            return HTMLResponse(NOT_FOUND, 404)
        if request.scope["query_string"]:  # TF Serving takes it for a part of the path
            target += f"?{request.scope['query_string'].decode('latin-1')}"
        try:
            call = RestCall(request, target, timeout)
        except StatusError as error:
            return error_response(error)
        return await answer(calls, call)

    routes = [Route("/", lambda _: FileResponse(DEMO_PAGE))]
    if metrics_path:
        routes.append(
            Route(metrics_path, lambda _: Response(metrics.text(), media_type="text/plain; version=0.0.4"))
        )
    routes += open_inference.create_routes(calls, manager, timeout=timeout)
    routes += completions_api.create_routes(calls, timeout=timeout)
    routes.append(Route("/{path:path}", handle, methods=METHODS))
    return Starlette(routes=routes, middleware=middleware)


class RestCall(HttpCall):
    """A call by TF Serving's REST API.

    Args:
        request: The HTTP request.
        target: Its path and query, not decoded.
        seconds: Time until the deadline.

    Raises:
        StatusError: INVALID_ARGUMENT for a path that the API does not have.
    """

    def __init__(self, request: Request, target: str, seconds: float) -> None:
        found = PATHS[request.method].fullmatch(target) if request.method in PATHS else None
        if found is None:
            raise invalid_argument(f"Malformed request: {request.method} {target}")
        parts = found.groupdict()
        if request.method == "POST":
            api = parts["verb"].capitalize()
        else:
            api = "GetModelMetadata" if parts["metadata"] else "GetModelStatus"
        if not parts["model"]:
            raise invalid_argument("Missing model name in request.")
        super().__init__(request, api, seconds, urllib.parse.unquote(parts["model"]))
        self.label = urllib.parse.unquote(parts["label"]) if parts["label"] else None
        self.version = _version(parts["version"]) if parts["version"] else None
        self._body: dict[str, Any] = {}
        self._examples: Array

    async def decode(self) -> None:
        """Parse the body, in a thread."""
        content = await self.content()
        if self._request.method == "POST":
            await asyncio.to_thread(self._parse, content)

    def _parse(self, content: bytes) -> None:
        self._body = parse(content, self._request.headers.get("content-encoding", ""), self.ended)
        self.signature = signature_of(self._body)
        if self.api != "Predict":
            self._examples = serialize(read_examples(self._body))

    async def read_inputs(self, signature: Signature, max_rows: int | None) -> Arrays:
        """Return the arrays of the tensors, read in a thread, or serialized tf.Examples."""
        if self.api == "Predict":
            return await asyncio.to_thread(read_tensors, self._body, signature, max_rows)
        return {INPUT: self._examples}

    async def encode(self, result: Any) -> Response:
        """Return the response; in a thread."""
        return await asyncio.to_thread(lambda: json_response(self._as_json(result)))

    def _as_json(self, result: Any) -> Any:
        match self.api:
            case "Predict" if "instances" in self._body:
                return {"predictions": as_rows(result.outputs)}
            case "Predict":
                return {"outputs": as_columns(result.outputs)}
            case "Classify":
                return {"results": classifications(result.outputs, result.rows)}
            case "Regress":
                return {"results": regressions(result.outputs, result.rows)}
            case "GetModelMetadata":
                signatures = SignatureDefMap.FromString(result.metadata["signature_def"].value)
                return {
                    "model_spec": _message_as_json(result.model_spec),
                    "metadata": {"signature_def": _message_as_json(signatures)},
                }
            case _:
                return _message_as_json(result)


def _version(digits: str) -> int:
    significant = digits.lstrip("0") or "0"
    if len(significant) > 19 or int(significant) > 2**63 - 1:  # Python parses at most 4,300 digits
        raise invalid_argument(f"Failed to convert version: {digits} to numeric.")
    return int(significant)


def _message_as_json(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
