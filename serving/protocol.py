"""The messages and methods of TensorFlow Serving's API, and our streaming service, without TensorFlow.

They have a descriptor pool of their own: in the default pool they would collide with TensorFlow's
in a process that imports both.
"""

import base64
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).with_name("protocol_descriptors.txt")
"""A FileDescriptorSet in zlib and base64, written by `python -m serving.generate_protocol`."""
PREDICTION = "/tensorflow.serving.PredictionService/"
MODELS = "/tensorflow.serving.ModelService/"
"""Paths of TensorFlow Serving's services."""
TEXTS = "/keras_recipes.serving.TextService/"
"""Path of the service that streams texts."""

POOL = descriptor_pool.DescriptorPool()
"""The descriptors of the messages and services."""


def read_descriptors() -> bytes:
    """Return the serialized FileDescriptorSet."""
    return zlib.decompress(base64.b64decode(DESCRIPTORS.read_bytes()))


for _file in descriptor_pb2.FileDescriptorSet.FromString(read_descriptors()).file:
    POOL.Add(_file)


@dataclass(frozen=True)
class Method:
    """A remote method: its path, the classes of its request and response, and whether it streams responses."""

    path: str
    request: Any
    response: Any
    streams: bool


def message(name: str) -> Any:
    """Return a message class by its full name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def _methods(service: str) -> dict[str, Method]:
    return {
        method.name: Method(
            service + method.name,
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            method.server_streaming,
        )
        for method in POOL.FindServiceByName(service.strip("/")).methods
    }


METHODS = _methods(PREDICTION) | _methods(MODELS) | _methods(TEXTS)
"""Methods of all services by name: Predict, Classify, ..., GetModelStatus, HandleReloadConfigRequest, Generate."""

GetModelMetadataRequest = message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = message("tensorflow.serving.GetModelMetadataResponse")
GetModelStatusRequest = message("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = message("tensorflow.serving.GetModelStatusResponse")
ModelServerConfig = message("tensorflow.serving.ModelServerConfig")
PredictionLog = message("tensorflow.serving.PredictionLog")
PredictRequest = message("tensorflow.serving.PredictRequest")
PredictResponse = message("tensorflow.serving.PredictResponse")
ReloadConfigRequest = message("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = message("tensorflow.serving.ReloadConfigResponse")
SavedModel = message("tensorflow.SavedModel")
SignatureDefMap = message("tensorflow.serving.SignatureDefMap")
TensorProto = message("tensorflow.TensorProto")
