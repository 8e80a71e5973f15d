"""The Open Inference Protocol, version 2, by REST: HTTP ↔ calls.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, with binary tensor data, as
Triton, KServe and their clients speak it. A model's signature is `serving_default`, or the one that the parameter
`signature_name` names. A version label can be in the place of a version.
"""

import asyncio
import importlib.metadata
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.protocol import SignatureDefMap
from serving.server.calls import Calls
from serving.server.errors import invalid_argument
from serving.server.http_calls import HttpCall, answer, json_response
from serving.server.json_body import decompress, parse, signature_of
from serving.server.json_text import show
from serving.server.manager import ModelManager
from serving.server.open_inference_tensors import datatype, read_tensors, write_tensor
from serving.server.servable import DEFAULT_SIGNATURE
from serving.tensors import Arrays, Signature, TensorSpec

HEADER_LENGTH = "Inference-Header-Content-Length"
"""HTTP header with the length of the JSON object, if binary data follow it."""
GZIP_OR_DEFLATE = 47
"""Both formats, as `wbits` of zlib."""
LIVE, READY = HEALTH_PATHS = ("/v2/health/live", "/v2/health/ready")
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"]


def create_routes(calls: Calls, manager: ModelManager, *, timeout: float) -> list[Route]:
    """Return the routes of the protocol.

    Args:
        calls: Answers the calls.
        manager: The models.
        timeout: Deadline of a request in seconds.
    """

    async def server(_: Request) -> Response:
        version = f"tensorflow-{importlib.metadata.version('tensorflow')}"
        return json_response(
            {"name": "keras-recipes", "version": version, "extensions": ["binary_tensor_data"]}
        )

    async def live(_: Request) -> Response:
        return json_response({"live": True})

    async def ready(_: Request) -> Response:
        is_ready = manager.ready and not calls.closing
        return json_response({"ready": is_ready}, 200 if is_ready else 503)

    async def metadata(request: Request) -> Response:
        return await answer(calls, MetadataCall(request, timeout, manager))

    async def model_ready(request: Request) -> Response:
        return await answer(calls, ReadyCall(request, timeout))

    async def infer(request: Request) -> Response:
        return await answer(calls, InferCall(request, timeout))

    async def unknown(request: Request) -> Response:
        return json_response({"error": f"Malformed request: {request.method} {request.url.path}"}, 404)

    routes = [Route("/v2", server), Route(LIVE, live), Route(READY, ready)]
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(model, metadata),
            Route(f"{model}/ready", model_ready),
            Route(f"{model}/infer", infer, methods=["POST"]),
        ]
    return [*routes, Route("/v2/{path:path}", unknown, methods=METHODS)]


class OpenInferenceCall(HttpCall):
    """A call of a model.

    Args:
        request: The HTTP request.
        api: Name of the method, as in `Call`.
        seconds: Time until the deadline.
    """

    def __init__(self, request: Request, api: str, seconds: float) -> None:
        super().__init__(request, api, seconds, request.path_params["model"])
        version = request.path_params.get("version")
        if version and re.fullmatch("[0-9]{1,19}", version):
            self.version = int(version)
        else:
            self.label = version

    async def decode(self) -> None:
        """Wait for the body, which is empty."""
        await self.content()

    async def read_inputs(self, signature: Signature, max_rows: int | None) -> Arrays:
        """Return no arrays: only an InferCall has inputs."""
        return {}


class ReadyCall(OpenInferenceCall):
    """Whether a model, or a version of it, can be called: if not, it has no metadata."""

    def __init__(self, request: Request, seconds: float) -> None:
        super().__init__(request, "GetModelMetadata", seconds)

    async def encode(self, result: Any) -> Response:
        """Return the response."""
        return json_response({"name": self.model, "ready": True})


class MetadataCall(OpenInferenceCall):
    """The inputs and outputs of a signature of a model, and its versions."""

    def __init__(self, request: Request, seconds: float, manager: ModelManager) -> None:
        super().__init__(request, "GetModelMetadata", seconds)
        self.signature = request.query_params.get("signature_name", DEFAULT_SIGNATURE)
        self._manager = manager

    async def encode(self, result: Any) -> Response:
        """Return the response.

        Raises:
            StatusError: INVALID_ARGUMENT for a signature that the model does not have.
        """
        definitions = SignatureDefMap.FromString(result.metadata["signature_def"].value).signature_def
        if self.signature not in definitions:
            raise invalid_argument(f'Serving signature name: "{self.signature}" not found in signature def')
        signature = Signature.from_definition(definitions[self.signature])
        return json_response(
            {
                "name": self.model,
                "versions": [str(number) for number in self._manager.models[self.model].available()],
                "platform": "tensorflow_savedmodel",
                "inputs": _describe(signature.inputs),
                "outputs": _describe(signature.outputs),
            }
        )


def _describe(tensors: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "datatype": datatype(name, spec.data_type),
            "shape": [-1] if spec.shape is None else list(spec.shape),
        }
        for name, spec in tensors.items()
    ]


class InferCall(OpenInferenceCall):
    """Runs a signature."""

    def __init__(self, request: Request, seconds: float) -> None:
        super().__init__(request, "Predict", seconds)
        self._body: dict[str, Any] = {}
        self._binary = memoryview(b"")
        self._in_binary: set[str] = set()

    async def decode(self) -> None:
        """Parse the body, in a thread."""
        await asyncio.to_thread(self._parse, await self.content())

    def _parse(self, content: bytes) -> None:
        headers = self._request.headers
        if headers.get("content-encoding", "identity") != "identity":
            content = decompress(content, GZIP_OR_DEFLATE)
        length = headers.get(HEADER_LENGTH, str(len(content)))
        if not (length.isascii() and length.isdecimal() and int(length[:20]) <= len(content)):
            raise invalid_argument(f"{HEADER_LENGTH} must be 0 to {len(content)}. Received: {length}")
        self._body = parse(content[: int(length)], "", self.ended)
        self._binary = memoryview(content)[int(length) :]
        if not isinstance(self._body.get("id", ""), str):
            raise invalid_argument(f"id must be a string. Received: {show(self._body['id'])}")
        parameters = _object(self._body, "parameters")
        self.signature = signature_of(parameters)
        self._read_outputs(in_binary=parameters.get("binary_data_output") is True)

    def _read_outputs(self, *, in_binary: bool) -> None:
        outputs = _list(self._body, "outputs")
        for output in outputs:
            name = output.get("name") if isinstance(output, dict) else None
            if not isinstance(name, str):
                raise invalid_argument(f"name is missing or invalid in {show(output)}")
            parameters = _object(output, "parameters")
            for parameter in parameters.keys() - {"binary_data"}:
                raise invalid_argument(f"output {name}: parameter {parameter} is not supported")
            if parameters.get("binary_data", in_binary) is True:
                self._in_binary.add(name)
        self.output_filter = [output["name"] for output in outputs]
        self._all_in_binary = in_binary and not outputs

    async def read_inputs(self, signature: Signature, max_rows: int | None) -> Arrays:
        """Return the arrays of the tensors; in a thread."""
        inputs = _list(self._body, "inputs")
        return await asyncio.to_thread(read_tensors, inputs, self._binary, signature, max_rows)

    async def encode(self, result: Any) -> Response:
        """Return the response; in a thread."""
        return await asyncio.to_thread(self._response, result)

    def _response(self, result: Any) -> Response:
        tensors, contents = [], []
        for name, array in result.outputs.items():
            as_binary = self._all_in_binary or name in self._in_binary
            tensor, content = write_tensor(name, array, as_binary=as_binary)
            tensors.append(tensor)
            contents.append(content)
        body: dict[str, Any] = {
            "model_name": result.model,
            "model_version": str(result.version),
            "outputs": tensors,
        }
        if "id" in self._body:
            body["id"] = self._body["id"]
        response = json_response(body)
        if not self._all_in_binary and not self._in_binary:
            return response
        headers = {HEADER_LENGTH: str(len(response.body))}
        return Response(
            b"".join((response.body, *contents)), headers=headers, media_type="application/octet-stream"
        )


def _object(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    member = value.get(name, {})
    if not isinstance(member, dict):
        raise invalid_argument(f"{name} must be an object. Received: {show(member)}")
    return member


def _list(value: Mapping[str, Any], name: str) -> list[Any]:
    member = value.get(name, [])
    if not isinstance(member, list):
        raise invalid_argument(f"{name} must be a list. Received: {show(member)}")
    return member
