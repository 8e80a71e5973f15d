"""gRPC server reflection: tools such as grpcurl ask the server for its services and messages."""

from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving.protocol import MODELS, POOL, PREDICTION, TEXTS

SERVICES = (
    PREDICTION.strip("/"),
    MODELS.strip("/"),
    TEXTS.strip("/"),
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    reflection.SERVICE_NAME,
)


def add_reflection(server: Any) -> None:
    """Add the reflection service to a gRPC server."""
    # A reflection service has one pool, and the health service is described in Python's default pool.
    POOL.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
    POOL.AddSerializedFile(reflection_pb2.DESCRIPTOR.serialized_pb)
    reflection.enable_server_reflection(SERVICES, server, POOL)
