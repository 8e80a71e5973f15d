"""A gRPC client of TensorFlow Serving that does not import TensorFlow.

    client = Client("localhost:8500")
    client.predict("mnist", image=array)  # {"probabilities": (n, 10) float32, "label": (n,) int64}

`AsyncClient` is its twin for asyncio. Every call has a deadline. UNAVAILABLE is tried again with
growing pauses, by gRPC itself (gRFC A6); nothing else is: a request that was understood and
refused would be refused again.
"""

from serving.client.awaiting import AsyncClient
from serving.client.blocking import Client
from serving.client.messages import (
    CHANNEL_OPTIONS,
    MODELS,
    PREDICTION,
    TLS,
    ServingError,
    Signature,
    TensorSpec,
    VersionStatus,
    open_channel,
)

__all__ = [
    "CHANNEL_OPTIONS",
    "MODELS",
    "PREDICTION",
    "TLS",
    "AsyncClient",
    "Client",
    "ServingError",
    "Signature",
    "TensorSpec",
    "VersionStatus",
    "open_channel",
]
