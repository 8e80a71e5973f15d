"""A search on several machines: a chief that holds the search directory, and workers that train.

Chief and workers share the search directory. The chief answers `ask`, `tell` and `heartbeat` of
`tuning.search.Search` over gRPC, as JSON, and keeps no state: when it dies, another one is started with
--resume, and its workers, which wait for it, keep their trials.
"""

import contextlib
import json
import socket
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import asdict
from typing import Any

import grpc

from recipes.config import UserError
from tuning.search import Answer, Search
from tuning.trial import Trial, trial_from_json

NAME = "keras_recipes.Search"


class Chief:
    """The server side: a search for workers in other processes.

    Args:
        search: The search, whose directory this process holds.
        host: Address to listen on.
        port: Port to listen on.

    Raises:
        UserError: The address is in use.
    """

    def __init__(self, search: Search, host: str, port: int) -> None:
        _check_free(host, port)
        self.search = search
        self.ended = False
        self.last_asked = time.monotonic()
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        handlers = {
            "ask": _handler(self._ask),
            "tell": _handler(self._tell),
            "heartbeat": _handler(search.heartbeat),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
        self.server.add_insecure_port(f"{host}:{port}")

    def is_done(self, quiet_seconds: float) -> bool:
        """Return whether the search has ended and no worker has asked for some time: all know it."""
        over = self.ended or self.search.is_over()
        return over and time.monotonic() - self.last_asked > quiet_seconds

    def _ask(self, worker: str) -> Any:
        self.last_asked = time.monotonic()
        answer = self.search.ask(worker)
        self.ended = answer == "end"
        return asdict(answer) if isinstance(answer, Trial) else answer

    def _tell(self, trial: dict[str, Any]) -> None:
        self.search.tell(trial_from_json(trial))


class ChiefClient:
    """The worker side: `ask`, `tell` and `heartbeat` of a chief's search.

    A call waits for a chief that does not answer and is repeated if the chief dies. Repeated calls do no
    harm: a worker that asks again is given the same trial, and a second end of a trial is ignored.

    Args:
        address: HOST:PORT of the chief.
        timeout: Seconds to wait for a chief that does not answer.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.enable_http_proxy", 0),
        ]
        self.channel = grpc.insecure_channel(address, options)

    def connect(self) -> None:
        """Wait for the chief.

        Raises:
            UserError: It does not answer.
        """
        try:
            grpc.channel_ready_future(self.channel).result(timeout=self.timeout)
        except grpc.FutureTimeoutError:
            raise self._no_answer() from None

    def ask(self, worker: str) -> Answer:
        """Return the next trial of a worker, "wait" or "end"."""
        answer = self._call("ask", worker=worker)
        return trial_from_json(answer) if isinstance(answer, dict) else answer

    def heartbeat(self, number: int) -> None:
        """Send a sign of life of a trial's worker."""
        self._call("heartbeat", number=number)

    def tell(self, trial: Trial) -> None:
        """Send the end of a trial."""
        self._call("tell", trial=asdict(trial))

    def _call(self, method: str, **request: Any) -> Any:
        call = self.channel.unary_unary(
            f"/{NAME}/{method}", request_serializer=_to_bytes, response_deserializer=json.loads
        )
        while True:
            try:
                return call(request, timeout=self.timeout, wait_for_ready=True)["answer"]
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise self._no_answer() from None
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise

    def _no_answer(self) -> UserError:
        return UserError(f"No chief answers at {self.address} for {self.timeout:g} s")


def _handler(method: Callable[..., Any]) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        lambda request, _: {"answer": method(**request)},
        request_deserializer=json.loads,
        response_serializer=_to_bytes,
    )


def _to_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def _check_free(host: str, port: int) -> None:
    """Refuse a port that is in use: gRPC would share it and give each process a part of the calls."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"--address {host}:{port}: {error.strerror}") from error
