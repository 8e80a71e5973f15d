"""Authentication by bearer tokens (RFC 6750), in front of every gRPC method and REST path.

Open to all are the health checks, the metrics and the demo page, which say nothing about requests.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

import grpc
import grpc.aio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.server.http_calls import json_response
from serving.server.tokens import INVALID, Tokens

OPEN_METHODS = "/grpc.health.v1.Health/"


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses gRPC calls without a token, before their request is read.

    Args:
        tokens: The valid tokens.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Return the handler of a call, or one that aborts it with UNAUTHENTICATED."""
        if not handler_call_details.method.startswith(OPEN_METHODS):
            metadata = dict(handler_call_details.invocation_metadata)
            refusal = self._tokens.refusal(metadata.get("authorization"))
            if refusal:
                return _refuse(refusal)
        return await continuation(handler_call_details)


def _refuse(text: str) -> Any:
    async def abort(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

    return grpc.stream_unary_rpc_method_handler(abort)


class TokenMiddleware:
    """Refuses HTTP requests without a token, before their body is read.

    Args:
        app: The application.
        tokens: The valid tokens.
        open_paths: Paths that need none.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, open_paths: Collection[str]) -> None:
        self._app = app
        self._tokens = tokens
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with 401, or leave it to the application."""
        if scope["path"] not in self._open_paths:
            refusal = self._tokens.refusal(Headers(scope=scope).get("authorization"))
            if refusal:
                response = json_response({"error": refusal}, 401)
                response.headers["WWW-Authenticate"] = (
                    'Bearer error="invalid_token"' if refusal == INVALID else "Bearer"
                )
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
