"""The gRPC services: bytes in, bytes out, every call answered with a status."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server.calls import Call, Calls
from serving.server.errors import StatusError, invalid_argument
from serving.server.inference import Inference

Answer = Callable[[Any], Any]


def generic_handlers(inference: Inference, calls: Calls) -> list[Any]:
    """Return handlers of PredictionService and ModelService.

    Args:
        inference: Answers the messages.
        calls: Lets calls in, and counts them.
    """
    services: dict[str, dict[str, tuple[Any, Answer]]] = {
        "PredictionService": {
            "Predict": (predict_pb2.PredictRequest, inference.predict),
            "Classify": (classification_pb2.ClassificationRequest, inference.classify),
            "Regress": (regression_pb2.RegressionRequest, inference.regress),
            "MultiInference": (inference_pb2.MultiInferenceRequest, inference.multi_inference),
            "GetModelMetadata": (get_model_metadata_pb2.GetModelMetadataRequest, inference.metadata),
        },
        "ModelService": {
            "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, inference.status),
            "HandleReloadConfigRequest": (model_management_pb2.ReloadConfigRequest, inference.reload),
        },
    }

    def handler(api: str, kind: Any, answer: Answer) -> Any:
        async def work(call: Call, content: bytes) -> bytes:
            request = _parse(kind, content)
            call.model = _model_name(request)
            answered = answer(request)
            message = await answered if isinstance(answered, Awaitable) else answered
            serialized: bytes = message.SerializeToString()
            return serialized

        async def call(content: bytes, context: Any) -> bytes:
            this = Call("GRPC", api, context.time_remaining())
            try:
                return await calls.answer(this, work(this, content))
            except StatusError as error:
                await context.abort(error.code, error.text)
                raise

        return grpc.unary_unary_rpc_method_handler(call)

    return [
        grpc.method_handlers_generic_handler(
            f"tensorflow.serving.{service}", {api: handler(api, *parts) for api, parts in methods.items()}
        )
        for service, methods in services.items()
    ]


def _parse(kind: Any, content: bytes) -> Any:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise invalid_argument(f"the request is not a {kind.DESCRIPTOR.name}: {error}") from error


def _model_name(request: Any) -> str:
    if "model_spec" in request.DESCRIPTOR.fields_by_name:
        return str(request.model_spec.name)
    return str(request.tasks[0].model_spec.name) if getattr(request, "tasks", None) else ""
