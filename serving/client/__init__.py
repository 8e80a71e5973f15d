"""A gRPC client of TensorFlow Serving that does not import TensorFlow.

    client = Client("localhost:8500")
    client.predict("mnist", image=array)  # {"probabilities": (n, 10) float32, "label": (n,) int64}
    client.predict("mnist", {"image": array}, label="stable")

`AsyncClient` is the same for asyncio. Every call has a deadline. gRPC itself retries after UNAVAILABLE,
with growing pauses (gRFC A6), and after no other status: the server would refuse the request again.
"""

from serving.client.awaiting import AsyncClient
from serving.client.blocking import Client
from serving.client.messages import TLS, ServingError, VersionStatus, bearer, open_channel

__all__ = ["TLS", "AsyncClient", "Client", "ServingError", "VersionStatus", "bearer", "open_channel"]
