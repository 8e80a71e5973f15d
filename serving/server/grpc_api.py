"""The gRPC services: bytes in, bytes out, every call answered with a status."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
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

from serving.server.errors import StatusError, invalid_argument, unavailable
from serving.server.inference import Inference
from serving.server.metrics import Metrics

log = logging.getLogger("serving")

REFUSING_SECONDS = 0.5
"""How long new calls are refused at least before the port is closed. A closing gRPC server cancels
what reaches it in that moment, and a caller does not ask again after CANCELLED: by then its
retries after UNAVAILABLE are spread out, or at another server."""

Answer = Callable[[Any], Any]


class Gate:
    """Counts the calls under way, refuses those over a limit, and all new ones once it is closed.

    Args:
        limit: Most calls at the same time; 0 for any number.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._closed = False
        self.under_way = 0

    async def close(self, seconds: float) -> None:
        """Refuse new calls with UNAVAILABLE, and wait until those under way are answered.

        Args:
            seconds: Longest time to wait.
        """
        self._closed = True
        until = time.monotonic() + seconds
        await asyncio.sleep(REFUSING_SECONDS)
        while self.under_way and time.monotonic() < until:
            await asyncio.sleep(0.01)

    def __enter__(self) -> None:
        if self._closed:
            raise unavailable("the server is shutting down")
        if self._limit and self.under_way >= self._limit:
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
        self.under_way += 1

    def __exit__(self, *_: object) -> None:
        self.under_way -= 1


def generic_handlers(
    inference: Inference, metrics: Metrics, known: Callable[[str], bool], gate: Gate
) -> list[Any]:
    """Return handlers of PredictionService and ModelService.

    Args:
        inference: Answers the messages.
        metrics: Counts the answers.
        known: Tells whether a name is a model's: other names are not counted.
        gate: Lets calls in.
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
        async def call(content: bytes, context: Any) -> bytes:
            started = time.perf_counter()
            model, status, text = "", grpc.StatusCode.OK, ""
            response = b""
            try:
                with gate:
                    request = _parse(kind, content)
                    model = _model_name(request)
                    answered = answer(request)
                    message = await answered if isinstance(answered, Awaitable) else answered
                    response = message.SerializeToString()
            except StatusError as error:
                status, text = error.code, error.text
            except Exception:  # one call's fault must not be another's: it is answered, logged and counted
                log.exception("fault in %s", api)
                status, text = grpc.StatusCode.INTERNAL, "the server has a fault; its log says more"
            if known(model):
                metrics.request(model, "GRPC", api, status.name, time.perf_counter() - started)
            if status is not grpc.StatusCode.OK:
                await context.abort(status, text)
            return response

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
