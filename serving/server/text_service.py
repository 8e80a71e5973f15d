"""Our gRPC service: Predict of the signature `generate`, with a response for each part of the texts.

Messages are those of Predict. The outputs of a response are what is new: see `text_batch.Generation.parts`.
"""

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.protocol import METHODS, TEXTS
from serving.server.calls import Calls, GenerateCall
from serving.server.errors import StatusError, failed_precondition, invalid_argument
from serving.server.grpc_api import GrpcCall
from serving.server.servable import GENERATE


def text_handlers(calls: Calls) -> list[Any]:
    """Return the handlers of TextService."""

    async def generate(content: bytes, context: Any) -> None:
        try:
            await calls.answer(GrpcGenerateCall(METHODS["Generate"].request.FromString(content), context))
        except DecodeError:
            await context.abort(grpc.StatusCode.INTERNAL, "")  # as gRPC answers in C++
        except StatusError as error:
            await context.abort(error.code, error.text)

    methods = {"Generate": grpc.unary_stream_rpc_method_handler(generate)}
    return [grpc.method_handlers_generic_handler(TEXTS.strip("/"), methods)]


class GrpcGenerateCall(GrpcCall, GenerateCall):
    """A call of Generate.

    Args:
        request: The message.
        context: Sends the responses.
    """

    def __init__(self, request: Any, context: Any) -> None:
        super().__init__("Generate", request, request.model_spec, context.time_remaining())
        self._context = context

    async def decode(self) -> None:
        """Refuse what Predict has and this method does not."""
        await super().decode()
        if self.signature not in ("", GENERATE):
            raise failed_precondition(f"Generate runs the signature {GENERATE}. Received: {self.signature}")
        if self._request.output_filter:
            raise invalid_argument("Generate has no output_filter")

    async def send(self, part: Any) -> None:
        """Send the response of a part."""
        await self._context.write(await super().encode(part))

    async def encode(self, result: Any) -> bytes:
        """Return nothing: all parts are sent."""
        return b""
