"""Requests from arguments and results from responses, for both clients."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
import numpy as np
from google.protobuf import text_format

from serving import protocol
from serving.tensors import Arrays, Signature, as_array, fill_proto, read_proto

STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
RETRIES = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": RETRIES}]})),
)

Result = TypeVar("Result")


class ServingError(Exception):
    """A call that the server refused or that did not reach it.

    Attributes:
        code: The gRPC status code.
        text: The server's message.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text

    @classmethod
    def from_grpc(cls, error: Any) -> "ServingError":
        """Return the error for a grpc.RpcError."""
        return cls(error.code(), error.details() or "")


@dataclass(frozen=True)
class TLS:
    """PEM files of an encrypted connection, as bytes.

    Attributes:
        root_certificates: Certificates to trust; None for those of gRPC.
        private_key: The client's key, for mutual TLS.
        certificate_chain: The client's certificate, for mutual TLS.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None


def open_channel(library: Any, address: str, tls: TLS | None) -> Any:
    """Return a channel of `grpc` or `grpc.aio`, encrypted if `tls` is given."""
    if tls is None:
        return library.insecure_channel(address, CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
    return library.secure_channel(address, credentials, CHANNEL_OPTIONS)


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with a token."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


def remote_methods(channel: Any, token: str | None) -> dict[str, Any]:
    """Return the functions that call the server's methods over a channel, with a token, by name."""
    return {
        name: functools.partial(
            (channel.unary_stream if method.streams else channel.unary_unary)(
                method.path,
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=method.response.FromString,
            ),
            metadata=bearer(token),
        )
        for name, method in protocol.METHODS.items()
    }


@dataclass(frozen=True)
class VersionStatus:
    """The state of a version of a model: AVAILABLE, LOADING, END, ...; and the error if it failed to load."""

    state: str
    error_code: int = 0
    error_text: str = ""


@dataclass(frozen=True)
class Exchange(Generic[Result]):
    """Requests to a method of the server.

    Attributes:
        method: Name of the method.
        requests: The messages to send.
        read: Returns the result for their responses.
    """

    method: str
    requests: Sequence[Any]
    read: Callable[[Sequence[Any]], Result]


def check_settings(timeout: float, max_batch_size: int) -> None:
    """Refuse settings of a client that are out of range."""
    if max_batch_size < 1 or timeout <= 0:
        raise ValueError(
            "max_batch_size must be at least 1 and timeout above 0. "
            f"Received: max_batch_size={max_batch_size}, timeout={timeout}"
        )


def predict(
    spec: Mapping[str, Any],
    inputs: Any,
    named: Mapping[str, Any],
    outputs: Sequence[str],
    max_batch_size: int,
) -> Exchange[Arrays]:
    """Run a signature, on a large batch in several requests.

    Args:
        spec: Model, signature, version and label.
        inputs: Arrays by input name; any other value is for the input called `inputs`.
        named: More of them.
        outputs: Names of the requested outputs; empty for all.
        max_batch_size: Largest batch of a request.
    """
    if inputs is not None:
        named = {**(inputs if isinstance(inputs, Mapping) else {"inputs": inputs}), **named}
    requests = [_predict_request(spec, piece, outputs) for piece in split(named, max_batch_size)]
    return Exchange("Predict", requests, _concatenate)


def generate(spec: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
    """Return the request that streams texts, for inputs of the signature `generate`."""
    return _predict_request({**spec, "signature": "generate"}, inputs)


def _predict_request(spec: Mapping[str, Any], inputs: Mapping[str, Any], outputs: Sequence[str] = ()) -> Any:
    request = protocol.PredictRequest(output_filter=outputs)
    _fill_spec(request.model_spec, **spec)
    for name, array in inputs.items():
        fill_proto(request.inputs[name], array)
    return request


def read_outputs(response: Any) -> Arrays:
    """Return the arrays of a PredictResponse by output name."""
    return {name: read_proto(proto) for name, proto in response.outputs.items()}


def split(inputs: Mapping[str, Any], max_batch_size: int) -> list[Arrays]:
    """Split a large batch along its first dimension; inputs without a common one are not split."""
    arrays = {name: as_array(value) for name, value in inputs.items()}
    sizes = {array.shape[0] if array.ndim else None for array in arrays.values()}
    size = sizes.pop() if len(sizes) == 1 else None
    if size is None or size <= max_batch_size:
        return [arrays]
    return [
        {name: array[start : start + max_batch_size] for name, array in arrays.items()}
        for start in range(0, size, max_batch_size)
    ]


def _concatenate(responses: Sequence[Any]) -> Arrays:
    parts = [read_outputs(response) for response in responses]
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def metadata(model: str, version: int | None, label: str | None) -> Exchange[dict[str, Signature]]:
    """Get the signatures of a model, by name."""

    def read(responses: Sequence[Any]) -> dict[str, Signature]:
        signatures = protocol.SignatureDefMap.FromString(responses[0].metadata["signature_def"].value)
        return {
            name: Signature.from_definition(definition)
            for name, definition in signatures.signature_def.items()
        }

    return Exchange("GetModelMetadata", [_metadata_request(model, version, label)], read)


def resolve(model: str, label: str | None) -> Exchange[int]:
    """Get the number of the version that answers."""
    request = _metadata_request(model, None, label)
    return Exchange("GetModelMetadata", [request], lambda each: int(each[0].model_spec.version.value))


def _metadata_request(model: str, version: int | None, label: str | None) -> Any:
    request = protocol.GetModelMetadataRequest(metadata_field=["signature_def"])
    _fill_spec(request.model_spec, model, version=version, label=label)
    return request


def status(model: str, version: int | None) -> Exchange[dict[int, VersionStatus]]:
    """Get the state of each version of a model, or of one."""
    request = protocol.GetModelStatusRequest()
    _fill_spec(request.model_spec, model, version=version)

    def read(responses: Sequence[Any]) -> dict[int, VersionStatus]:
        return {
            each.version: VersionStatus(
                STATES.get(each.state, str(each.state)), each.status.error_code, each.status.error_message
            )
            for each in responses[0].model_version_status
        }

    return Exchange("GetModelStatus", [request], read)


def reload(config: str) -> Exchange[None]:
    """Replace the server's model config by one in text format."""
    request = protocol.ReloadConfigRequest()
    text_format.Parse(config, request.config)

    def read(responses: Sequence[Any]) -> None:
        answered = responses[0].status
        if answered.error_code:
            code = next(code for code in grpc.StatusCode if code.value[0] == answered.error_code)
            raise ServingError(code, answered.error_message)

    return Exchange("HandleReloadConfigRequest", [request], read)


def _fill_spec(
    spec: Any, model: str, signature: str | None = None, version: int | None = None, label: str | None = None
) -> None:
    if version is not None and label is not None:
        raise ValueError(f"a version or a label, not both. Received: version={version}, label={label!r}")
    spec.name = model
    if signature is not None:
        spec.signature_name = signature
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
