"""Write `serving/protocol_descriptors.txt` from the installed tensorflow-serving-api and our own service.

    python -m serving.generate_protocol

tensorflow-serving-api imports all of TensorFlow, which the client must not. So this project keeps the
descriptions of its messages in a file; a test fails when they are out of date.
"""

import base64
import zlib
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import model_service_pb2, predict_pb2, prediction_log_pb2, prediction_service_pb2

DESCRIPTORS = Path(__file__).with_name("protocol_descriptors.txt")
"""Not imported from `serving.protocol`, which can't be imported without what this writes."""
TEXT_SERVICE = descriptor_pb2.FileDescriptorProto(
    name="keras_recipes/serving/text_service.proto",
    package="keras_recipes.serving",
    syntax="proto3",
    dependency=[predict_pb2.DESCRIPTOR.name],
    service=[
        descriptor_pb2.ServiceDescriptorProto(
            name="TextService",
            method=[
                descriptor_pb2.MethodDescriptorProto(
                    name="Generate",
                    input_type=".tensorflow.serving.PredictRequest",
                    output_type=".tensorflow.serving.PredictResponse",
                    server_streaming=True,
                )
            ],
        )
    ],
)
"""Predict of the signature `generate` as a stream."""

ROOTS = (prediction_service_pb2, model_service_pb2, prediction_log_pb2, saved_model_pb2)


def file_descriptor_set() -> bytes:
    """Return a serialized FileDescriptorSet of the services: each file after the files it imports."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        if file.name in files:
            return
        for dependency in file.dependencies:
            add(dependency)
        files[file.name] = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)

    for root in ROOTS:
        add(root.DESCRIPTOR)
    files[TEXT_SERVICE.name] = TEXT_SERVICE
    return descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString(deterministic=True)


if __name__ == "__main__":
    DESCRIPTORS.write_bytes(base64.encodebytes(zlib.compress(file_descriptor_set(), 9)))
