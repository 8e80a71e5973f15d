"""The messages of TensorFlow Serving's API, without TensorFlow.

They live in a descriptor pool of their own: in the default one they would collide with
TensorFlow's, where a process imports both.
"""

import base64
import zlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from serving.protocol_descriptors import DESCRIPTORS

_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(zlib.decompress(base64.b64decode(DESCRIPTORS))).file:
    _POOL.Add(_file)


def message(name: str) -> Any:
    """Return a message class by its full name."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


PredictRequest = message("tensorflow.serving.PredictRequest")
PredictResponse = message("tensorflow.serving.PredictResponse")
GetModelMetadataRequest = message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = message("tensorflow.serving.GetModelMetadataResponse")
SignatureDefMap = message("tensorflow.serving.SignatureDefMap")
GetModelStatusRequest = message("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = message("tensorflow.serving.GetModelStatusResponse")
ReloadConfigRequest = message("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = message("tensorflow.serving.ReloadConfigResponse")
ModelServerConfig = message("tensorflow.serving.ModelServerConfig")
