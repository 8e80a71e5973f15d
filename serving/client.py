"""A gRPC client of TensorFlow Serving that does not import TensorFlow.

    client = Client("localhost:8500")
    client.predict("mnist", image=array)  # {"probabilities": (n, 10) float32, "label": (n,) int64}

`AsyncClient` is its twin for asyncio. Every call has a deadline. UNAVAILABLE is tried again with
growing pauses, by gRPC itself (gRFC A6); nothing else is: a request that was understood and
refused would be refused again.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

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
class _Method:
    """A remote method: its path and the class of its answer."""

    path: str
    answer: Any


_PREDICT = _Method(PREDICTION + "Predict", protocol.PredictResponse)
_METADATA = _Method(PREDICTION + "GetModelMetadata", protocol.GetModelMetadataResponse)
_STATUS = _Method(MODELS + "GetModelStatus", protocol.GetModelStatusResponse)
_RELOAD = _Method(MODELS + "HandleReloadConfigRequest", protocol.ReloadConfigResponse)


class _Messages:
    """Requests from arguments and results from answers: what both clients share."""

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
        self, spec: Mapping[str, Any], outputs: Sequence[str], inputs: Mapping[str, Any]
    ) -> list[Any]:
        requests = []
        for piece in self.pieces(inputs):
            request = protocol.PredictRequest(output_filter=outputs)
            _fill_spec(request.model_spec, **spec)
            for name, array in piece.items():
                fill_proto(request.inputs[name], array)
            requests.append(request)
        return requests

    def predictions(self, answers: Sequence[Any]) -> Arrays:
        parts = [{name: read_proto(proto) for name, proto in answer.outputs.items()} for answer in answers]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def metadata_request(self, spec: Mapping[str, Any]) -> Any:
        request = protocol.GetModelMetadataRequest(metadata_field=["signature_def"])
        _fill_spec(request.model_spec, **spec)
        return request

    def signatures(self, answer: Any) -> dict[str, Signature]:
        signatures = protocol.SignatureDefMap.FromString(answer.metadata["signature_def"].value)
        return {
            name: Signature(_tensor_specs(signature.inputs), _tensor_specs(signature.outputs))
            for name, signature in signatures.signature_def.items()
        }

    def status_request(self, spec: Mapping[str, Any]) -> Any:
        request = protocol.GetModelStatusRequest()
        _fill_spec(request.model_spec, **spec)
        return request

    def states(self, answer: Any) -> dict[int, VersionStatus]:
        return {
            status.version: VersionStatus(
                STATES.get(status.state, str(status.state)),
                status.status.error_code,
                status.status.error_message,
            )
            for status in answer.model_version_status
        }

    def reload_request(self, config: str) -> Any:
        request = protocol.ReloadConfigRequest()
        text_format.Parse(config, request.config)
        return request

    def check_reload(self, answer: Any) -> None:
        if answer.status.error_code:
            raise ServingError(_status_code(answer.status.error_code), answer.status.error_message)


def _remote_methods(channel: Any) -> dict[_Method, Any]:
    return {
        method: channel.unary_unary(
            method.path,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=method.answer.FromString,
        )
        for method in (_PREDICT, _METADATA, _STATUS, _RELOAD)
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


def _error(error: grpc.RpcError) -> ServingError:
    return ServingError(error.code(), error.details() or "")


class Client:
    """Calls a server, one call after the other; safe to share between threads.

    Args:
        address: "host:port", or "unix:path" of a socket.
        timeout: Deadline of each call in seconds, unless the call names another.
        tls: Certificates for an encrypted connection; None for a plain one.
        max_batch_size: Batches larger than this are sent in pieces and put together again.
    """

    def __init__(
        self, address: str, *, timeout: float = 10.0, tls: TLS | None = None, max_batch_size: int = 256
    ) -> None:
        self._messages = _Messages(max_batch_size, timeout)
        if tls:
            self._channel = grpc.secure_channel(address, tls.credentials(), CHANNEL_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        self._methods = _remote_methods(self._channel)

    def predict(
        self,
        model: str,
        *,
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        **inputs: Any,
    ) -> Arrays:
        """Run a signature.

        Args:
            model: Name of the model.
            signature: Name of the signature.
            version: Version number; None for the latest.
            label: Version label, instead of a number.
            outputs: Names of the outputs wanted; none for all.
            timeout: Deadline of each call in seconds; None for the client's.
            inputs: Arrays, by input name. bytes and str become string tensors.

        Raises:
            ServingError: With the server's code and text.
        """
        spec = {"model": model, "signature": signature, "version": version, "label": label}
        requests = self._messages.predict_requests(spec, outputs, inputs)
        return self._messages.predictions([self._call(_PREDICT, request, timeout) for request in requests])

    def metadata(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """Return a model's signatures, by name."""
        request = self._messages.metadata_request({"model": model, "version": version, "label": label})
        return self._messages.signatures(self._call(_METADATA, request, timeout))

    def status(
        self, model: str, *, version: int | None = None, timeout: float | None = None
    ) -> dict[int, VersionStatus]:
        """Return the state of each version of a model, or of one."""
        request = self._messages.status_request({"model": model, "version": version})
        return self._messages.states(self._call(_STATUS, request, timeout))

    def reload(self, config: str, *, timeout: float | None = None) -> None:
        """Give the server another model config, in TF Serving's text format; it takes the old one's place."""
        self._messages.check_reload(self._call(_RELOAD, self._messages.reload_request(config), timeout))

    def _call(self, method: _Method, request: Any, timeout: float | None) -> Any:
        try:
            return self._methods[method](request, timeout=timeout or self._messages.timeout)
        except grpc.RpcError as error:
            raise _error(error) from None

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited. The pieces of a large batch are sent at once."""

    def __init__(
        self, address: str, *, timeout: float = 10.0, tls: TLS | None = None, max_batch_size: int = 256
    ) -> None:
        self._messages = _Messages(max_batch_size, timeout)
        if tls:
            self._channel = grpc.aio.secure_channel(address, tls.credentials(), CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        self._methods = _remote_methods(self._channel)

    async def predict(
        self,
        model: str,
        *,
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        **inputs: Any,
    ) -> Arrays:
        """Run a signature; arguments and errors as in `Client.predict`."""
        spec = {"model": model, "signature": signature, "version": version, "label": label}
        requests = self._messages.predict_requests(spec, outputs, inputs)
        answers = await asyncio.gather(*(self._call(_PREDICT, request, timeout) for request in requests))
        return self._messages.predictions(answers)

    async def metadata(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """Return a model's signatures, by name."""
        request = self._messages.metadata_request({"model": model, "version": version, "label": label})
        return self._messages.signatures(await self._call(_METADATA, request, timeout))

    async def status(
        self, model: str, *, version: int | None = None, timeout: float | None = None
    ) -> dict[int, VersionStatus]:
        """Return the state of each version of a model, or of one."""
        request = self._messages.status_request({"model": model, "version": version})
        return self._messages.states(await self._call(_STATUS, request, timeout))

    async def reload(self, config: str, *, timeout: float | None = None) -> None:
        """Give the server another model config, in TF Serving's text format."""
        self._messages.check_reload(await self._call(_RELOAD, self._messages.reload_request(config), timeout))

    async def _call(self, method: _Method, request: Any, timeout: float | None) -> Any:
        try:
            return await self._methods[method](request, timeout=timeout or self._messages.timeout)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from None

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
