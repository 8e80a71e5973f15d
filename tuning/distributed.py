"""A search on several machines, over keras-tuner's own service: a chief that asks, workers that train.

Chief and workers share the search directory. A worker that dies is not heard of any more, and its
trial goes to another; a chief that dies is started again with --resume, and its workers, who wait for
it, keep their trials.
"""

import contextlib
import functools
import os
import socket
import threading
import uuid
from collections.abc import Callable
from typing import Any

import grpc

from recipes.command_line import shell_command
from recipes.config import UserError
from tuning import processes
from tuning.oracles import build_oracle
from tuning.plan import SearchDirectory
from tuning.search import finish, watch
from tuning.table import Table
from tuning.tuner import RecipeTuner


def lead(search: SearchDirectory, host: str, port: int) -> None:
    """Lead a search to its end: say which trial is next, and take their values.

    Args:
        search: The search, which this process holds.
        host: The address to listen on.
        port: Its port.

    Raises:
        UserError: The address is taken, or no trial came to a value.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what is done is kept.
    """
    _check_free(host, port)
    plan = search.read_plan()
    table = Table(search, plan)
    oracle = build_oracle(plan, search)
    oracle.read(workers_live=True)
    oracle.write()
    _join_service("chief", host, port)
    tuner = RecipeTuner(oracle, search, threads=1, stop=threading.Event(), tell=table.tell)
    server = threading.Thread(target=tuner.search, daemon=True)

    def lead_until_stopped(stop: threading.Event) -> None:
        server.start()
        while server.is_alive() and not stop.is_set():
            oracle.give_back_lost()
            server.join(1)

    worker = shell_command("tuning", "worker", "--search-dir", search.path, "--address", f"{host}:{port}")
    print(f"waiting for workers: {worker}")
    watch(search, plan, table, [lead_until_stopped])
    finish(search, plan)


def work(search: SearchDirectory, host: str, port: int, *, threads: int, patience: float) -> None:
    """Train trials for a chief until it has no more.

    Args:
        search: The chief's search.
        host: Where the chief is.
        port: Its port.
        threads: Threads of a trial.
        patience: Seconds to wait for a chief that does not answer.

    Raises:
        UserError: The chief can't be reached, or the search directory is not there.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the trial is left to others.
    """
    chief = Chief(f"{host}:{port}", patience)
    chief.reach()
    plan = search.read_plan()
    processes.prepare()
    _join_service(f"worker-{socket.gethostname()}-{uuid.uuid4().hex[:8]}", host, port)
    table = Table(search, plan)

    def work_until_stopped(stop: threading.Event) -> None:
        oracle = build_oracle(plan, search)
        tuner = RecipeTuner(oracle, search, threads=threads, stop=stop, tell=table.tell)
        tuner.oracle = PatientOracle(tuner.oracle, chief)
        tuner.search()

    watch(search, plan, table, [work_until_stopped])


def _join_service(name: str, host: str, port: int) -> None:
    """Say who this process is, where keras-tuner looks for it."""
    os.environ["KERASTUNER_TUNER_ID"] = name
    os.environ["KERASTUNER_ORACLE_IP"] = host
    os.environ["KERASTUNER_ORACLE_PORT"] = str(port)


def _check_free(host: str, port: int) -> None:
    """Refuse a port that is taken: gRPC would share it and give each process a part of the calls."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"--address {host}:{port}: {error.strerror}") from error


class Chief:
    """The chief, as a worker sees it.

    Args:
        address: HOST:PORT.
        patience: Seconds to wait for it.
    """

    def __init__(self, address: str, patience: float) -> None:
        self.address = address
        self.patience = patience
        self.channel = grpc.insecure_channel(address)

    def reach(self) -> None:
        """Wait for the chief, but not for an hour, as keras-tuner's client would.

        Raises:
            UserError: It can't be reached.
        """
        ready = grpc.channel_ready_future(self.channel)
        try:
            ready.result(timeout=self.patience)
        except grpc.FutureTimeoutError:
            raise UserError(f"No chief answers at {self.address} for {self.patience:g} s") from None
        finally:
            ready.cancel()


class PatientOracle:
    """A chief's oracle, asked again when the chief dies in the middle of an answer.

    What is asked twice is done once: a worker is given the trial it has, and a trial's second end is none.

    Args:
        client: keras-tuner's client.
        chief: The chief.
    """

    def __init__(self, client: Any, chief: Chief) -> None:
        self.client = client
        self.chief = chief

    def __getattr__(self, name: str) -> Any:
        """Return what the client has; its methods wait for the chief."""
        value = getattr(self.client, name)
        return functools.partial(self._ask, value) if callable(value) else value

    def _ask(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        while True:
            self.chief.reach()
            try:
                return method(*arguments, **named)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
