"""Start a server, and stop it without losing a request."""

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import tensorflow as tf
import uvicorn
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving.protocol import MODELS, PREDICTION, TEXTS
from serving.server.calls import Calls, no_span
from serving.server.configs import (
    read_auth_tokens,
    read_batching,
    read_channel_arguments,
    read_credentials,
    read_metrics_path,
    read_model_config,
)
from serving.server.errors import StatusError
from serving.server.grpc_api import generic_handlers
from serving.server.inference import Inference, Runner
from serving.server.manager import ModelManager
from serving.server.metrics import Metrics
from serving.server.middleware import create_interceptors, create_middleware
from serving.server.ports import listen
from serving.server.reflection import add_reflection
from serving.server.rest_api import create_app
from serving.server.servable import Servable
from serving.server.settings import ConfigError, ServerSettings
from serving.server.text_service import text_handlers
from serving.server.tracing import create_tracing

log = logging.getLogger("serving")

DEFAULT_REST_PORT = 8501
DRAIN_SECONDS = 25.0
"""Time that accepted requests have after SIGTERM: Kubernetes sends SIGKILL after 30 s."""
GRAPH_THREADS = 64
"""Graphs of all models that TensorFlow runs at the same time: see `servable.MAX_RUNS`."""
CLOSING_SECONDS = 0.5
"""Time that REST clients have to read their last response."""
TOKENS_POLL_SECONDS = 1.0
GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", 2**31 - 1),
    ("grpc.max_send_message_length", 2**31 - 1),
)


class ModelServer:
    """A server that is built, started and stopped in one event loop.

    Args:
        settings: TF Serving's flags. With `port` 0 the attribute `port` has the free port that was chosen.

    Raises:
        ConfigError: Invalid flags or config files; nothing is left open.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._config = read_model_config(settings)
        self.metrics = Metrics()
        self._loading_pool = ThreadPoolExecutor(1, "loading")
        self._runner = Runner(read_batching(settings), self.metrics)
        self.manager = ModelManager(
            self._load,
            self._loading_pool,
            self.metrics,
            self._runner.forget,
            retries=settings.max_num_load_retries,
            retry_seconds=settings.load_retry_interval_micros / 1e6,
            unavailable="any"
            if settings.force_allow_any_version_labels_for_unavailable_models
            else "new"
            if settings.allow_version_labels_for_unavailable_models
            else "none",
        )
        inference = Inference(
            self.manager,
            self._runner,
            check_methods=settings.enable_signature_method_name_check,
            can_reload=settings.workers == 1,
        )
        self._tracing = create_tracing()
        self.calls = Calls(
            self._tracing.describing(inference.run) if self._tracing else inference.run,
            self.metrics,
            self.manager.models.__contains__,
            settings.grpc_max_threads,
            self._tracing.span if self._tracing else no_span,
        )
        self._tokens = read_auth_tokens(settings)
        self._health = health.aio.HealthServicer()
        self._tasks: list[asyncio.Task[Any]] = []
        self._rest: uvicorn.Server | None = None
        self.port = 0
        self.rest_port = 0

    def _load(self, name: str, version: int, path: Path) -> Servable:
        settings = self._settings
        servable = Servable(name, version, path, settings.saved_model_tags.split(","))
        if settings.enable_model_warmup:
            try:
                servable.warm_up(max(settings.num_request_iterations_for_warmup, 1))
            except BaseException:  # whatever stops the warm-up, its threads end
                servable.close()
                raise
        gc.freeze()  # otherwise each full collection walks TensorFlow's objects and stops all calls for 0.2 s
        return servable

    async def start(self) -> None:
        """Take the ports, load the models, then serve.

        Raises:
            ConfigError: A port is in use, or a model's folder does not exist; nothing is left open.
        """
        settings = self._settings
        handlers = generic_handlers(self.calls, as_content=settings.enable_serialization_as_tensor_content)
        handlers += text_handlers(self.calls)
        # By default a second server could take the same port.
        shared = ("grpc.so_reuseport", int(settings.workers > 1))
        options = (*GRPC_OPTIONS, shared, *read_channel_arguments(settings))
        interceptors = create_interceptors(self._tokens, self._tracing)
        self._grpc = grpc.aio.server(options=options, handlers=handlers, interceptors=interceptors)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        add_reflection(self._grpc)
        rest_socket = None
        try:
            self._take_grpc_ports()
            rest_socket = self._take_rest_port()
            await self.manager.apply(self._config)
        except BaseException as error:  # a cancelled start releases its ports too
            await self._grpc.start()  # only a started server releases its port
            await self._grpc.stop(None)
            self._loading_pool.shutdown(wait=False)
            if rest_socket is not None:
                rest_socket.close()
            raise ConfigError(error.text) if isinstance(error, StatusError) else error from None
        await self._grpc.start()
        if rest_socket is not None:
            await self._start_rest(rest_socket)
        self._repeat(settings.file_system_poll_wait_seconds, self._poll)
        if self._tokens:
            self._repeat(TOKENS_POLL_SECONDS, self._tokens.poll)
        if settings.model_config_file:
            self._repeat(settings.model_config_file_poll_wait_seconds, self._read_config_again)
        await self._report_health()

    def _take_grpc_ports(self) -> None:
        settings, credentials = self._settings, read_credentials(self._settings)
        addresses = [f"unix:{settings.grpc_socket_path}"] if settings.grpc_socket_path else []
        if settings.port or not addresses:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            addresses.append(f"{host}:{settings.port}")
        for address in addresses:
            try:
                if credentials:
                    self.port = self._grpc.add_secure_port(address, credentials)
                else:
                    self.port = self._grpc.add_insecure_port(address)
            except RuntimeError as error:
                raise ConfigError(f"can't listen on {address}: it is in use or not allowed") from error

    def _take_rest_port(self) -> socket.socket | None:
        settings = self._settings
        if settings.rest_api_port == 0:
            return None
        if settings.rest_api_port is None and settings.ssl_config_file:
            log.info("no REST API, because it is not encrypted; --rest_api_port turns it on")
            return None
        try:
            default = dataclasses.replace(settings, rest_api_port=DEFAULT_REST_PORT)
            chosen = default if settings.rest_api_port is None else settings
            listener = listen(chosen, "rest_api_port", shared=settings.workers > 1)
        except ConfigError as error:
            if settings.rest_api_port is not None:
                raise
            log.warning("no REST API: %s", error)
            return None
        self.rest_port = listener.getsockname()[1]
        return listener

    async def _start_rest(self, listener: socket.socket) -> None:
        settings = self._settings
        metrics_path = read_metrics_path(settings)
        app = create_app(
            self.calls,
            self.manager,
            self.metrics,
            metrics_path=metrics_path,
            timeout=settings.rest_api_timeout_in_ms / 1000,
            middleware=create_middleware(
                self._tokens,
                self._tracing,
                metrics_path=metrics_path,
                cors=settings.rest_api_enable_cors_support,
            ),
        )
        self._rest = _UvicornServer(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self._rest_task = asyncio.create_task(self._rest.serve(sockets=[listener]))
        while not self._rest.started and not self._rest_task.done():
            await asyncio.sleep(0.01)

    def _repeat(self, seconds: float, action: Any) -> None:
        async def forever() -> None:
            while True:
                await asyncio.sleep(seconds)
                try:
                    await action()
                except Exception:  # nothing changes, and the next attempt may succeed
                    log.exception("unexpected error in %s", action.__name__)

        if seconds > 0:
            self._tasks.append(asyncio.create_task(forever()))

    async def _poll(self) -> None:
        await self.manager.poll()
        await self._report_health()

    async def _report_health(self) -> None:
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if self.manager.ready else states.NOT_SERVING
        for service in ("", *(path.strip("/") for path in (PREDICTION, MODELS, TEXTS))):
            await self._health.set(service, state)

    async def _read_config_again(self) -> None:
        try:
            config = read_model_config(self._settings)
            if config != self._config:
                await self.manager.apply(config)
                self._config = config
        except (ConfigError, StatusError) as error:
            log.error("the model config is not changed: %s", error)

    async def stop(self) -> None:
        """Report NOT_SERVING, complete accepted calls, end those that take longer than DRAIN_SECONDS, and close.

        New calls are refused with UNAVAILABLE, which clients retry at another server.
        """
        await self._health.enter_graceful_shutdown()
        for task in self._tasks:
            task.cancel()
        if self._rest is not None:
            self._rest.should_exit = True
        await self.calls.close(DRAIN_SECONDS)
        await self._grpc.stop(1.0)
        if self._rest is not None:
            await asyncio.wait((self._rest_task,), timeout=CLOSING_SECONDS)
            self._rest.force_exit = True  # do not wait for a client that does not read its response
            await self._rest_task
        self._loading_pool.shutdown(wait=False, cancel_futures=True)
        if self._tracing:
            await asyncio.to_thread(self._tracing.flush)


class _UvicornServer(uvicorn.Server):
    """Uvicorn without its signal handlers, because `serve` handles the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: ServerSettings, supervisor: Connection | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        settings: The server's flags.
        supervisor: Gets None once the server serves; its end ends the server as SIGTERM does.

    Raises:
        ConfigError: Invalid flags or config files.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    tf.config.threading.set_inter_op_parallelism_threads(GRAPH_THREADS)
    tf.config.threading.set_intra_op_parallelism_threads(
        settings.tensorflow_intra_op_parallelism
        or settings.tensorflow_session_parallelism
        or max(1, len(os.sched_getaffinity(0)) // settings.workers)
    )
    uvloop.run(_serve(settings, supervisor))  # a call takes half the time it takes in asyncio's own loop


async def _serve(settings: ServerSettings, supervisor: Connection | None) -> None:
    server = ModelServer(settings)
    await server.start()
    received: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received.put_nowait, number)
    if supervisor is not None:
        supervisor.send(None)
        loop.add_reader(supervisor.fileno(), _on_end_of, supervisor, received)
    rest = f", REST and the demo page on http://localhost:{server.rest_port}" if server.rest_port else ""
    log.info("gRPC on port %d%s; SIGTERM or Ctrl-C ends it", server.port, rest)
    first = await received.get()
    log.info("new requests are refused, accepted ones completed; a second signal ends the server at once")
    stopping = asyncio.ensure_future(server.stop())
    again = asyncio.ensure_future(received.get())
    await asyncio.wait((stopping, again), return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        stopping.result()
    logging.shutdown()
    # Do not wait for a thread that loads a model or runs a long operation.
    os._exit(0 if stopping.done() and first == signal.SIGTERM else 128 + first)


def _on_end_of(supervisor: Connection, received: "asyncio.Queue[int]") -> None:
    asyncio.get_running_loop().remove_reader(supervisor.fileno())
    received.put_nowait(signal.SIGTERM)
