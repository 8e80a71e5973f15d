"""Requests from arguments and results from answers: what both clients share."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
from google.protobuf import text_format

from serving import protocol
from serving.tensors import as_array, fill_proto, read_proto

Arrays = dict[str, npt.NDArray[Any]]

PREDICTION = "/tensorflow.serving.PredictionService/"
MODELS = "/tensorflow.serving.ModelService/"
STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [{}],
                        "retryPolicy": {
                            "maxAttempts": 5,
                            "initialBackoff": "0.1s",
                            "maxBackoff": "2s",
                            "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE"],
                        },
                    }
                ]
            }
        ),
    ),
)


class ServingError(Exception):
    """A call that the server refused or that did not reach it.

    Attributes:
        code: The gRPC status code.
        text: What the server says.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text


@dataclass(frozen=True)
class TLS:
    """Files for an encrypted connection, as PEM bytes.

    Attributes:
        root_certificates: Whom to trust; None trusts what the system trusts.
        private_key: The client's own key, where the server asks for it (mutual TLS).
        certificate_chain: The client's own certificate.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return gRPC's form of it."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)


def open_channel(library: Any, address: str, tls: TLS | None) -> Any:
    """Return a channel of `grpc` or `grpc.aio`, encrypted where there are certificates."""
    if tls is None:
        return library.insecure_channel(address, CHANNEL_OPTIONS)
    return library.secure_channel(address, tls.credentials(), CHANNEL_OPTIONS)


@dataclass(frozen=True)
class VersionStatus:
    """The state of a version of a model: AVAILABLE, LOADING, END, ..., and why where it failed."""

    state: str
    error_code: int = 0
    error_text: str = ""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a signature: its DataType number and its shape, -1 where any size goes."""

    data_type: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """A signature's inputs and outputs, by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Method:
    """A remote method: its path and the class of its answer."""

    path: str
    answer: Any


PREDICT = Method(PREDICTION + "Predict", protocol.PredictResponse)
METADATA = Method(PREDICTION + "GetModelMetadata", protocol.GetModelMetadataResponse)
STATUS = Method(MODELS + "GetModelStatus", protocol.GetModelStatusResponse)
RELOAD = Method(MODELS + "HandleReloadConfigRequest", protocol.ReloadConfigResponse)


class Messages:
    """Builds requests and reads answers.

    Args:
        max_batch_size: Largest batch that is sent in one piece.
        timeout: Deadline of a call that names none, in seconds.
    """

    def __init__(self, max_batch_size: int, timeout: float) -> None:
        if max_batch_size < 1 or timeout <= 0:
            raise ValueError(
                "max_batch_size must be at least 1 and timeout above 0. "
                f"Received: max_batch_size={max_batch_size}, timeout={timeout}"
            )
        self.max_batch_size = max_batch_size
        self.timeout = timeout

    def pieces(self, inputs: Mapping[str, Any]) -> list[Arrays]:
        """Cut a large batch along its first dimension; inputs without a common one stay whole."""
        arrays = {name: as_array(value) for name, value in inputs.items()}
        sizes = {array.shape[0] if array.ndim else None for array in arrays.values()}
        size = sizes.pop() if len(sizes) == 1 else None
        if size is None or size <= self.max_batch_size:
            return [arrays]
        starts = range(0, size, self.max_batch_size)
        return [
            {name: array[start : start + self.max_batch_size] for name, array in arrays.items()}
            for start in starts
        ]

    def predict_requests(
        self, spec: Mapping[str, Any], outputs: Sequence[str], inputs: Any, named: Mapping[str, Any]
    ) -> list[Any]:
        """Return the PredictRequests of a batch, one a piece.

        Args:
            spec: Model, signature, version and label.
            outputs: Names of the outputs wanted.
            inputs: Arrays by input name; anything but a mapping is the input that is called `inputs`.
            named: More of them.
        """
        if inputs is not None:
            named = {**(inputs if isinstance(inputs, Mapping) else {"inputs": inputs}), **named}
        requests = []
        for piece in self.pieces(named):
            request = protocol.PredictRequest(output_filter=outputs)
            _fill_spec(request.model_spec, **spec)
            for name, array in piece.items():
                fill_proto(request.inputs[name], array)
            requests.append(request)
        return requests

    def predictions(self, answers: Sequence[Any]) -> Arrays:
        """Put the answers to the pieces together again, by output name."""
        parts = [{name: read_proto(proto) for name, proto in answer.outputs.items()} for answer in answers]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def metadata_request(self, spec: Mapping[str, Any]) -> Any:
        """Return a GetModelMetadataRequest for the signatures."""
        request = protocol.GetModelMetadataRequest(metadata_field=["signature_def"])
        _fill_spec(request.model_spec, **spec)
        return request

    def signatures(self, answer: Any) -> dict[str, Signature]:
        """Read the signatures out of a GetModelMetadataResponse, by name."""
        signatures = protocol.SignatureDefMap.FromString(answer.metadata["signature_def"].value)
        return {
            name: Signature(_tensor_specs(signature.inputs), _tensor_specs(signature.outputs))
            for name, signature in signatures.signature_def.items()
        }

    def version(self, answer: Any) -> int:
        """Read the number of the version out of a GetModelMetadataResponse."""
        return int(answer.model_spec.version.value)

    def status_request(self, spec: Mapping[str, Any]) -> Any:
        """Return a GetModelStatusRequest."""
        request = protocol.GetModelStatusRequest()
        _fill_spec(request.model_spec, **spec)
        return request

    def states(self, answer: Any) -> dict[int, VersionStatus]:
        """Read the states out of a GetModelStatusResponse, by version number."""
        return {
            status.version: VersionStatus(
                STATES.get(status.state, str(status.state)),
                status.status.error_code,
                status.status.error_message,
            )
            for status in answer.model_version_status
        }

    def reload_request(self, config: str) -> Any:
        """Return a ReloadConfigRequest with a config in text format."""
        request = protocol.ReloadConfigRequest()
        text_format.Parse(config, request.config)
        return request

    def check_reload(self, answer: Any) -> None:
        """Raise the ServingError that a ReloadConfigResponse holds, if it holds one."""
        if answer.status.error_code:
            raise ServingError(_status_code(answer.status.error_code), answer.status.error_message)


def remote_methods(channel: Any) -> dict[Method, Any]:
    """Return what calls each remote method over a channel."""
    return {
        method: channel.unary_unary(
            method.path,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=method.answer.FromString,
        )
        for method in (PREDICT, METADATA, STATUS, RELOAD)
    }


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


def _tensor_specs(tensors: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(info.dtype, tuple(dim.size for dim in info.tensor_shape.dim))
        for name, info in tensors.items()
    }


def _status_code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def as_serving_error(error: grpc.RpcError) -> ServingError:
    """Return gRPC's error as this client's."""
    return ServingError(error.code(), error.details() or "")
