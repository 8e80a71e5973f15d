"""The REST API (https://www.tensorflow.org/tfx/serving/api_rest), the metrics and the demo page."""

import asyncio
import base64
import binascii
import json
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from serving.server.calls import Call, Calls, unless
from serving.server.errors import StatusError, TooLargeError, invalid_argument, unavailable
from serving.server.inference import Inference
from serving.server.json_body import parse
from serving.server.limits import check_rows
from serving.server.metrics import Metrics
from serving.server.servable import Signature, check_names, order_inputs
from serving.tensors import DATA_TYPES, DT_STRING

DEMO_PAGE = Path(__file__).parents[1] / "demo" / "index.html"
HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
MODEL_PATHS = (
    "/v1/models/{model}",
    "/v1/models/{model}/versions/{version}",
    "/v1/models/{model}/labels/{label}",
)
MAX_BODY_BYTES = 16 * 2**20
"""Largest body. One example of this size holds Python's lock, and with it all calls, for half a second."""
Arrays = dict[str, npt.NDArray[Any]]
Endpoint = Callable[[Any, dict[str, Any]], Awaitable[Any]]


def create_app(
    inference: Inference,
    calls: Calls,
    metrics: Metrics,
    *,
    metrics_path: str | None,
    timeout: float,
    cors: bool,
) -> Starlette:
    """Build the application.

    Args:
        inference: Answers the messages.
        calls: Lets calls in, and counts them.
        metrics: What metrics_path shows.
        metrics_path: Where the metrics are shown; None for nowhere.
        timeout: Longest time of a request in seconds.
        cors: Whether pages of other origins may call.
    """
    api = _Api(inference, calls, timeout)
    routes = [Route("/", _demo_page)]
    for path in MODEL_PATHS:
        for verb, endpoint in (
            ("predict", api.predict),
            ("classify", api.classify),
            ("regress", api.regress),
        ):
            routes.append(Route(f"{path}:{verb}", api.post(verb.title(), endpoint), methods=["POST"]))
        routes.append(Route(f"{path}/metadata", api.get("GetModelMetadata", api.metadata)))
    # Last, for {label} would swallow "NAME:predict".
    routes += [Route(path, api.get("GetModelStatus", api.status)) for path in MODEL_PATHS]
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


def _demo_page(_: Request) -> Response:
    return FileResponse(DEMO_PAGE)


def _malformed(request: Request) -> StatusError:
    return invalid_argument(f"Malformed request: {request.method} {request.url.path}")


def _no_such_path(request: Request, _: Exception) -> Response:
    status = 400 if request.url.path.startswith("/v1/models") else 404
    return _json({"error": _malformed(request).text}, status)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")


class _Api:
    def __init__(self, inference: Inference, calls: Calls, timeout: float) -> None:
        self._inference = inference
        self._calls = calls
        self._timeout = timeout

    def post(self, api: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """Turn a function of a model spec and a JSON body into one that always answers."""

        async def work(request: Request) -> Response:
            # What has not arrived when the server is told to end was not accepted: it does not wait for it.
            reading, refusal = _read_body(request), unavailable("the server is shutting down")
            body = await unless(reading, self._calls.closing.wait(), refusal)
            gone = StatusError(grpc.StatusCode.CANCELLED, "the caller left")
            return await unless(answer(request, body), _disconnected(request), gone)

        async def answer(request: Request, content: bytes) -> Response:
            spec, left = _spec(request), threading.Event()
            try:
                encoding = request.headers.get("content-encoding", "")
                body = await asyncio.to_thread(parse, content, encoding, MAX_BODY_BYTES, left)
                spec.signature_name = _text(body, "signature_name")
                return await asyncio.to_thread(_json, await endpoint(spec, body))
            finally:
                left.set()

        return self._answering(api, work)

    def get(self, api: str, endpoint: Callable[[Any], Any]) -> Callable[[Request], Awaitable[Response]]:
        """Turn a function of a model spec into one that always answers."""

        async def work(request: Request) -> Response:
            return _json(endpoint(_spec(request)))

        return self._answering(api, work)

    def _answering(
        self, api: str, work: Callable[[Request], Coroutine[Any, Any, Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def call(request: Request) -> Response:
            this = Call("REST", api, self._timeout, request.path_params["model"])
            try:
                return await self._calls.answer(this, work(request))
            except TooLargeError as error:
                return _json({"error": error.text}, 413)
            except StatusError as error:
                return _json({"error": error.text}, HTTP_STATUS.get(error.code, 500))

        return call

    async def predict(self, spec: Any, body: dict[str, Any]) -> Any:
        if ("instances" in body) == ("inputs" in body):
            raise invalid_argument("Request body must have either 'instances' or 'inputs', and not both")
        rows = "instances" in body

        def read(signature: Signature) -> list[npt.NDArray[Any]]:
            return order_inputs(signature, (_read_rows if rows else _read_columns)(body, signature))

        outputs = await self._inference.run_arrays(spec, read)
        return {"predictions": _as_rows(outputs)} if rows else {"outputs": _as_columns(outputs)}

    async def classify(self, spec: Any, body: dict[str, Any]) -> Any:
        message = classification_pb2.ClassificationRequest(model_spec=spec)
        _read_examples(body, message.input.example_list.examples)
        result = (await self._inference.classify(message)).result
        return {"results": [[[c.label, c.score] for c in row.classes] for row in result.classifications]}

    async def regress(self, spec: Any, body: dict[str, Any]) -> Any:
        message = regression_pb2.RegressionRequest(model_spec=spec)
        _read_examples(body, message.input.example_list.examples)
        result = (await self._inference.regress(message)).result
        return {"results": [row.value for row in result.regressions]}

    def metadata(self, spec: Any) -> Any:
        message = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        answer = self._inference.metadata(message)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        written = json_format.MessageToDict(answer.model_spec, preserving_proto_field_name=True)
        definitions = json_format.MessageToDict(
            signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return {"model_spec": written, "metadata": {"signature_def": definitions}}

    def status(self, spec: Any) -> Any:
        answer = self._inference.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
        return json_format.MessageToDict(
            answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )


def _spec(request: Request) -> Any:
    spec = model_pb2.ModelSpec(name=request.path_params["model"])
    if "version" in request.path_params:
        version = request.path_params["version"]
        if not re.fullmatch("[0-9]+", version):
            raise _malformed(request)
        digits = version.lstrip("0") or "0"
        if len(digits) > 19 or int(digits) > 2**63 - 1:  # Python reads 4,300 digits at most
            raise invalid_argument(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(digits)
    if "label" in request.path_params:
        spec.version_label = request.path_params["label"]
    return spec


async def _read_body(request: Request) -> bytes:
    if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
        raise TooLargeError(MAX_BODY_BYTES)
    if request.headers.get("content-encoding", "") not in ("", "identity", "gzip"):
        raise invalid_argument("Content-Encoding must be gzip, or none")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise TooLargeError(MAX_BODY_BYTES)
    except ClientDisconnect as error:
        raise StatusError(grpc.StatusCode.CANCELLED, "the caller left") from error
    return bytes(body)


async def _disconnected(request: Request) -> None:
    """Return once the caller of a request whose body was read is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or not _is_unicode(value):
        raise invalid_argument(f"JSON Value: {name} must be a string")
    return value


def _is_unicode(text: str) -> bool:
    """Tell whether a text has no half of a surrogate pair, which JSON can write and UTF-8 can't."""
    return text.encode(errors="ignore").decode() == text


def _read_rows(body: dict[str, Any], signature: Signature) -> Arrays:
    """Read `instances`: a list with an object of all inputs, or the only input's value, an example."""
    rows = body["instances"]
    if not isinstance(rows, list) or not rows:
        raise invalid_argument("JSON Value: 'instances' must be a list with at least one example")
    names = list(signature.inputs)
    if all(isinstance(row, dict) and set(row) != {"b64"} for row in rows):
        given = set(rows[0])
        if any(set(row) != given for row in rows):
            raise invalid_argument("JSON Value: every example must have the same inputs")
        check_names(signature, sorted(given))
        columns = {name: [row[name] for row in rows] for name in names}
    elif len(names) == 1:
        columns = {names[0]: rows}
    else:
        check_names(signature, [])
        columns = {}
    return _arrays(columns, signature)


def _read_columns(body: dict[str, Any], signature: Signature) -> Arrays:
    """Read `inputs`: an object of all inputs, or the only input's value, for all examples."""
    value = body["inputs"]
    names = list(signature.inputs)
    if isinstance(value, dict) and set(value) != {"b64"}:
        check_names(signature, sorted(value))
        columns = value
    else:
        if len(names) != 1:
            check_names(signature, [])
        columns = {names[0]: value}
    return _arrays(columns, signature)


def _arrays(columns: Mapping[str, Any], signature: Signature) -> Arrays:
    for name, column in columns.items():
        check_rows(name, len(column) if isinstance(column, list | np.ndarray) else 0, signature.max_rows)
    return {name: _array(column, signature.inputs[name].data_type, name) for name, column in columns.items()}


def _array(value: Any, data_type: int, name: str) -> npt.NDArray[Any]:
    """Return a JSON value as an array of a signature's type."""
    kind = DATA_TYPES[data_type]
    try:
        if data_type == DT_STRING:
            return np.array(_encode_strings(value), np.object_)
        for item in value if isinstance(value, list) else []:
            if not isinstance(item, int | float | np.ndarray):
                raise ValueError(f"{type(item).__name__} where numbers of one shape belong")
        array = np.array(value)
        if array.dtype.kind not in ("biuf" if np.dtype(kind.dtype).kind == "f" else "biu") and array.size:
            raise ValueError(f"{array.dtype} where {kind.name} belongs")
        if np.dtype(kind.dtype).kind in "iu" and array.size:
            limits = np.iinfo(kind.dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise ValueError(f"numbers outside of {kind.name}")
        return array.astype(kind.dtype)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise invalid_argument(f"JSON Value: input {name} is not a tensor of {kind.name}: {error}") from error


def _encode_strings(value: Any) -> Any:
    if isinstance(value, list):
        return [_encode_strings(item) for item in value]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"b64: {error}") from error
    raise ValueError(f"{type(value).__name__} where a string or {{'b64': ...}} belongs")


def _as_rows(outputs: Arrays) -> list[Any]:
    sizes = {array.shape[0] if array.ndim else None for array in outputs.values()}
    if None in sizes or len(sizes) != 1:
        raise invalid_argument(
            "The outputs have no common first dimension: use 'inputs' instead of 'instances'"
        )
    columns = {name: _plain(array, name) for name, array in outputs.items()}
    if len(columns) == 1:
        return list(next(iter(columns.values())))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _as_columns(outputs: Arrays) -> Any:
    columns = {name: _plain(array, name) for name, array in outputs.items()}
    return next(iter(columns.values())) if len(columns) == 1 else columns


def _plain(array: npt.NDArray[Any], name: str) -> Any:
    """Return an array as JSON values; an output named *_bytes in base64, other strings as text."""
    if array.dtype != np.object_:
        return array.tolist()

    def text(item: bytes) -> Any:
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(item).decode()}
        return item.decode(errors="replace")

    return np.vectorize(text, otypes=[np.object_])(array).tolist() if array.size else []


def _read_examples(body: dict[str, Any], messages: Any) -> None:
    """Read the body of :classify and :regress into tf.Examples."""
    examples = body.get("examples")
    if not isinstance(examples, list) or not examples:
        raise invalid_argument("JSON Value: 'examples' must be a list with at least one example")
    for values in examples:
        _fill_example(messages.add(), values)


def _fill_example(example: Any, values: Any) -> None:
    if not isinstance(values, dict):
        raise invalid_argument("JSON Value: an example must be an object of features")
    for name, value in values.items():
        items: Sequence[Any] = np.atleast_1d(value).tolist() if isinstance(value, np.ndarray) else [value]
        items = value if isinstance(value, list) else items
        try:
            feature = example.features.feature[name]
            if all(isinstance(item, int) for item in items):
                feature.int64_list.value.extend(items)
            elif all(isinstance(item, int | float) for item in items):
                feature.float_list.value.extend(items)
            else:
                feature.bytes_list.value.extend(_encode_strings(list(items)))
        except (ValueError, TypeError) as error:
            raise invalid_argument(f"JSON Value: feature {name}: {error}") from error
