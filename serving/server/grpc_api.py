"""The gRPC services: messages ↔ calls."""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.protocol import METHODS, MODELS, PREDICTION, Method, message
from serving.server.calls import Call, Calls
from serving.server.errors import StatusError, invalid_argument
from serving.server.examples import INPUT, METHOD_NAMES, classifications, merge, regressions, serialize
from serving.server.inference import Prediction
from serving.server.inputs import read_protos
from serving.tensors import Arrays, Signature, fill_proto

ModelSpec = message("tensorflow.serving.ModelSpec")


def generic_handlers(calls: Calls, *, as_content: bool) -> list[Any]:
    """Return the handlers of PredictionService and ModelService.

    Args:
        calls: Answers the calls.
        as_content: Whether responses have numbers in `tensor_content` instead of value lists.
    """

    def handler(api: str, method: Method) -> Any:
        async def handle(content: bytes, context: Any) -> bytes:
            try:
                request = method.request.FromString(content)
                call = GrpcCall(api, request, _spec_of(request), context.time_remaining(), as_content)
                response: bytes = await calls.answer(call)
            except DecodeError:
                await context.abort(grpc.StatusCode.INTERNAL, "")  # as gRPC answers in C++
                raise
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
        request: The message.
        spec: The ModelSpec of the model that is called.
        seconds: Time until the deadline; None without one.
        as_content: Whether the response has numbers in `tensor_content`.
    """

    def __init__(
        self, api: str, request: Any, spec: Any, seconds: float | None = None, as_content: bool = False
    ) -> None:
        super().__init__("GRPC", api, seconds, spec.name, signature=spec.signature_name)
        self._request = request
        self._as_content = as_content
        choice = spec.WhichOneof("version_choice")
        self.version = spec.version.value if choice == "version" else None
        self.label = spec.version_label if choice == "version_label" else None

    async def decode(self) -> None:
        """Read what the message has beside the model and the inputs."""
        request = self._request
        if self.api == "HandleReloadConfigRequest":
            self.config = request.config
        elif self.api == "MultiInference":
            self.tasks = [self._task(task) for task in request.tasks]
        elif not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if self.api == "Predict":
            self.output_filter = request.output_filter
        elif self.api == "GetModelMetadata":
            _check_metadata_fields(request.metadata_field)

    def _task(self, task: Any) -> Call:
        api = next((api for api, name in METHOD_NAMES.items() if name == task.method_name), None)
        if api is None:
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
            )
        return GrpcCall(api, self._request, task.model_spec)

    async def read_inputs(self, signature: Signature, max_rows: int | None) -> Arrays:
        """Return the arrays of the tensors, or serialized tf.Examples."""
        if self.api in ("Predict", "Generate"):
            return read_protos(signature, self._request.inputs, max_rows)
        return {INPUT: serialize(_examples(self._request.input))}

    async def encode(self, result: Any) -> bytes:
        """Return the serialized response."""
        response = METHODS[self.api].response()
        if self.api in ("Predict", "Generate"):
            _fill_spec(response.model_spec, result)
            for alias, array in result.outputs.items():
                fill_proto(response.outputs[alias], array, as_values=not self._as_content)
        elif self.api == "Classify":
            _fill_classification(response.model_spec, response.result, result)
        elif self.api == "Regress":
            _fill_regression(response.model_spec, response.result, result)
        elif self.api == "MultiInference":
            for task, prediction in zip(self.tasks, result, strict=True):
                part = response.results.add()
                if task.api == "Classify":
                    _fill_classification(part.model_spec, part.classification_result, prediction)
                else:
                    _fill_regression(part.model_spec, part.regression_result, prediction)
        else:
            response = result
        serialized: bytes = response.SerializeToString()
        return serialized


def _spec_of(request: Any) -> Any:
    """Return the ModelSpec of a request: that of the first task, or an empty one."""
    if hasattr(request, "tasks"):
        return request.tasks[0].model_spec if request.tasks else ModelSpec()
    return request.model_spec if hasattr(request, "model_spec") else ModelSpec()


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
        merge(message.example_list_with_context.context, examples)
    return examples


def _fill_spec(spec: Any, prediction: Prediction) -> None:
    spec.name = prediction.model
    spec.version.value = prediction.version
    spec.signature_name = prediction.signature


def _fill_classification(spec: Any, message: Any, prediction: Prediction) -> None:
    _fill_spec(spec, prediction)
    for row in classifications(prediction.outputs, prediction.rows):
        classes = message.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)


def _fill_regression(spec: Any, message: Any, prediction: Prediction) -> None:
    _fill_spec(spec, prediction)
    for value in regressions(prediction.outputs, prediction.rows):
        message.regressions.add(value=value)
