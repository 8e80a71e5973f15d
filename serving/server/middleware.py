"""What stands before every gRPC method and every HTTP path: other origins, tokens, traces."""

import grpc.aio
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from serving.server.authentication import TokenInterceptor, TokenMiddleware
from serving.server.open_inference import HEALTH_PATHS
from serving.server.tokens import Tokens
from serving.server.tracing import ParentInterceptor, ParentMiddleware, Tracing


def create_interceptors(tokens: Tokens | None, tracing: Tracing | None) -> list[grpc.aio.ServerInterceptor]:
    """Return what stands before the gRPC methods, the first one first.

    Args:
        tokens: The valid tokens; None to let everybody call.
        tracing: The spans; None without.
    """
    interceptors: list[grpc.aio.ServerInterceptor] = [TokenInterceptor(tokens)] if tokens else []
    return [*interceptors, ParentInterceptor()] if tracing else interceptors


def create_middleware(
    tokens: Tokens | None, tracing: Tracing | None, *, metrics_path: str | None, cors: bool
) -> list[Middleware]:
    """Return what stands before the HTTP paths, the first one first.

    Args:
        tokens: The valid tokens; None to let everybody call.
        tracing: The spans; None without.
        metrics_path: Path of the metrics, which need no token; None if they are off.
        cors: Whether pages of other origins may call.
    """
    middleware = []
    if cors:  # first, because a browser asks without a token whether it may call
        middleware.append(
            Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
        )
    if tokens:
        open_paths = {"/", *HEALTH_PATHS, metrics_path or "/"}
        middleware.append(Middleware(TokenMiddleware, tokens=tokens, open_paths=open_paths))
    if tracing:
        middleware.append(Middleware(ParentMiddleware))
    return middleware
