"""The gRPC services: messages ↔ calls."""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.protocol import METHODS, MODELS, PREDICTION, Method
from serving.server.calls import Call, Calls
from serving.server.errors import StatusError, invalid_argument
from serving.server.examples import METHOD_NAMES, classifications, regressions, serialize
from serving.server.inference import Prediction
from serving.server.inputs import read_inputs
from serving.tensors import Array, Signature, fill_proto


def generic_handlers(calls: Calls) -> list[Any]:
    """Return the handlers of PredictionService and ModelService.

    Args:
        calls: Answers the calls.
    """

    def handler(api: str, method: Method) -> Any:
        async def handle(content: bytes, context: Any) -> bytes:
            call = GrpcCall(api, method, content, context.time_remaining())
            try:
                response: bytes = await calls.answer(call)
            except StatusError as error:
                await context.abort(error.code, error.text)
                raise
            return response

        return grpc.unary_unary_rpc_method_handler(handle)

    return [
        grpc.method_handlers_generic_handler(
            service.strip("/"),
            {api: handler(api, method) for api, method in METHODS.items() if method.path.startswith(service)},
        )
        for service in (PREDICTION, MODELS)
    ]


class GrpcCall(Call):
    """A call by gRPC.

    Args:
        api: Name of the method.
        method: Classes of its messages.
        content: The serialized request.
        seconds: Time until the deadline; None without one.

    Attributes:
        request: The request message.
    """

    def __init__(self, api: str, method: Method, content: bytes, seconds: float | None) -> None:
        super().__init__("GRPC", api, seconds)
        self._method = method
        self._content = content
        self.request: Any = None

    def identify(self) -> None:
        """Parse the message, which has all attributes."""
        kind = self._method.request
        try:
            request = self.request = kind.FromString(self._content)
        except DecodeError as error:
            raise invalid_argument(f"the request is not a {kind.DESCRIPTOR.name}: {error}") from error
        if self.api == "HandleReloadConfigRequest":
            self.config = request.config
        elif self.api == "MultiInference":
            self._read_tasks(request.tasks)
        elif not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        else:
            self.read_spec(request.model_spec)
        if self.api == "Predict":
            self.output_filter = request.output_filter
        elif self.api == "GetModelMetadata":
            _check_metadata_fields(request.metadata_field)

    def read_spec(self, spec: Any) -> None:
        """Set model, version, label and signature from a ModelSpec."""
        self.model, self.signature = spec.name, spec.signature_name
        choice = spec.WhichOneof("version_choice")
        self.version = spec.version.value if choice == "version" else None
        self.label = spec.version_label if choice == "version_label" else None

    def _read_tasks(self, tasks: Sequence[Any]) -> None:
        if not tasks:
            raise invalid_argument("Inference request must have at least one task.")
        self.model = tasks[0].model_spec.name
        if any(task.model_spec.name != self.model for task in tasks):
            raise invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        self.tasks = [self._task(task) for task in tasks]

    def _task(self, task: Any) -> Call:
        api = next((api for api, name in METHOD_NAMES.items() if name == task.method_name), None)
        if api is None:
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
            )
        call = GrpcCall(api, METHODS[api], b"", None)
        call.request = self.request
        call.read_spec(task.model_spec)
        return call

    async def read_inputs(self, signature: Signature, max_rows: int | None) -> list[Array]:
        """Return the arrays of the tensors, or serialized tf.Examples."""
        if self.api == "Predict":
            return read_inputs(signature, self.request.inputs, max_rows)
        return [serialize(_examples(self.request.input))]

    async def encode(self, result: Any) -> bytes:
        """Return the serialized response."""
        message = self._method.response()
        if self.api == "Predict":
            _fill_spec(message.model_spec, result)
            for alias, array in result.outputs.items():
                fill_proto(message.outputs[alias], array, as_values=True)
        elif self.api == "Classify":
            _fill_classification(message.model_spec, message.result, result)
        elif self.api == "Regress":
            _fill_regression(message.model_spec, message.result, result)
        elif self.api == "MultiInference":
            for task, prediction in zip(self.tasks, result, strict=True):
                part = message.results.add()
                if task.api == "Classify":
                    _fill_classification(part.model_spec, part.classification_result, prediction)
                else:
                    _fill_regression(part.model_spec, part.regression_result, prediction)
        else:
            message = result
        serialized: bytes = message.SerializeToString()
        return serialized


def _check_metadata_fields(names: Sequence[str]) -> None:
    if not names:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for name in names:
        if name != "signature_def":
            raise invalid_argument(f"Metadata field {name} is not supported")


def _examples(message: Any) -> list[Any]:
    """Return the tf.Examples of an Input message, each with the features of its context."""
    kind = message.WhichOneof("kind")
    examples = list(getattr(message, kind).examples) if kind else []
    if kind == "example_list_with_context":
        for example in examples:
            for name, feature in message.example_list_with_context.context.features.feature.items():
                if name not in example.features.feature:
                    example.features.feature[name].CopyFrom(feature)
    return examples


def _fill_spec(spec: Any, prediction: Prediction) -> None:
    spec.name = prediction.model
    spec.version.value = prediction.version
    spec.signature_name = prediction.signature


def _fill_classification(spec: Any, message: Any, prediction: Prediction) -> None:
    _fill_spec(spec, prediction)
    for row in classifications(prediction.outputs):
        classes = message.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)


def _fill_regression(spec: Any, message: Any, prediction: Prediction) -> None:
    _fill_spec(spec, prediction)
    for value in regressions(prediction.outputs):
        message.regressions.add(value=value)
