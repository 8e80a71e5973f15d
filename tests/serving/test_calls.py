"""How calls end, by gRPC and REST alike: answered, refused, too late, left, or while the server shuts down."""

import contextlib
import functools
import json
import logging
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from serving import protocol
from serving.client import Client, ServingError
from serving.protocol import METHODS
from serving.server.servable import Servable
from tests.processes import wait_until
from tests.serving.conftest import in_process
from tests.serving.looping import (
    DEADLINE,
    ENDLESS,
    PREDICT,
    by_grpc,
    by_rest,
    counted,
    predict_request,
    rest,
    under_way,
)

HTTP_STATUS = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


@dataclass(frozen=True)
class Case:
    """A call of the looping model, and how it ends by gRPC and by REST alike.

    Attributes:
        status: Its gRPC status, for which REST has an HTTP status.
        text: Part of the response or of the error.
        server: Name of the server in `start`.
        steps: The input.
        model, version, label, signature: What the call asks for.
        error: Whether running the model fails unexpectedly.
        counted: Whether the metrics count the call.
    """

    status: str
    text: str
    server: str = "alone"
    steps: Any = (3,)
    model: str = "looping"
    version: int | None = None
    label: str | None = None
    signature: str = "serving_default"
    error: bool = False
    counted: bool = True


CASES = [
    Case("OK", "3"),
    Case("OK", "3", server="batching"),
    Case("OK", "3", version=1),
    Case("OK", "3", server="limited", steps=(3, 3)),
    Case("INVALID_ARGUMENT", "the batch is empty", steps=()),
    Case("INVALID_ARGUMENT", "the batch is empty", server="batching", steps=()),
    Case("INVALID_ARGUMENT", "must be a scalar", steps=((3,),)),  # shapes are left to the graph
    Case(
        "INVALID_ARGUMENT",
        "a request may have at most 2 rows. Received: 3",
        server="limited",
        steps=(3, 3, 3),
    ),
    Case("INVALID_ARGUMENT", "Task size 3 is larger than", server="small batches", steps=(3, 3, 3)),
    Case("INVALID_ARGUMENT", "Unrecognized servable version label: x", label="x"),
    Case("NOT_FOUND", "Servable not found for request: Specific(looping, 7)", version=7),
    Case("NOT_FOUND", "Servable not found for request: Latest(unknown)", model="unknown", counted=False),
    Case("DEADLINE_EXCEEDED", "", server="impatient", steps=(ENDLESS,)),
    Case("DEADLINE_EXCEEDED", "", server="impatient, batching", steps=(ENDLESS,)),
    Case("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", server="busy"),
    Case("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full", server="full"),
    Case("UNAVAILABLE", "the server is shutting down", server="closing"),
    Case("INTERNAL", "the server failed unexpectedly", error=True),
    Case("INTERNAL", "the server failed unexpectedly", server="batching", error=True),
]


UNDER_WAY = {"busy": [(ENDLESS,)], "full": [(ENDLESS,), (ENDLESS, ENDLESS)]}
"""Inputs of the calls under way at a server: of two at the full one, the second waits in the queue."""


@pytest.fixture(scope="module")
def start(looping, tmp_path_factory):
    """Give a server by its name, started once."""
    folder = tmp_path_factory.mktemp("servers")
    batching = folder / "batching.config"
    batching.write_text("max_batch_size { value: 2 } max_enqueued_batches { value: 1 }")
    limited = folder / "limited"
    shutil.copytree(looping / "1", limited / "1")
    (limited / "1" / "assets.extra").mkdir()
    (limited / "1" / "assets.extra" / "recipe.json").write_text('{"limits": {"rows": 2}}')
    small_batches = {"enable_batching": True, "batching_parameters_file": str(batching)}
    settings = {
        "alone": {},
        "batching": {"enable_batching": True},
        "limited": {"model_base_path": str(limited)},
        "small batches": small_batches,
        "impatient": {"rest_api_timeout_in_ms": int(1000 * DEADLINE)},
        "impatient, batching": {"rest_api_timeout_in_ms": int(1000 * DEADLINE), "enable_batching": True},
        "busy": {"grpc_max_threads": 1},
        "full": small_batches,
        "closing": {},
    }
    with contextlib.ExitStack() as servers:

        @functools.cache
        def by_name(name):
            flags = {"model_name": "looping", "model_base_path": str(looping), **settings[name]}
            server, await_ = servers.enter_context(in_process(**flags))
            if name == "closing":
                await_(server.calls.close(0))
            return server

        yield by_name


def answer_by_grpc(server, case):
    """Return the status of a case, and its response or error as text. Unlike the client, this never retries."""
    request = predict_request(case.steps, case.model, case.signature, case.version, case.label)
    timeout = DEADLINE if ENDLESS in case.steps else 60
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        try:
            content = channel.unary_unary(METHODS["Predict"].path)(
                request.SerializeToString(), timeout=timeout
            )
        except grpc.RpcError as error:
            return error.code().name, error.details()
    return "OK", str(protocol.PredictResponse.FromString(content))


def answer_by_rest(server, case):
    """Return the status of a case, by its HTTP status, and its response or error as text."""
    path = f"/v1/models/{case.model}"
    path += f"/versions/{case.version}" if case.version is not None else ""
    path += f"/labels/{case.label}" if case.label is not None else ""
    body = json.dumps({"inputs": case.steps, "signature_name": case.signature})
    status, answer = rest(server, f"{path}:predict", body)
    if status == HTTP_STATUS[case.status]:
        return case.status, answer.get("error", str(answer))
    return status, str(answer)


@pytest.mark.parametrize("entrypoint", ["GRPC", "REST"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.server}: {case.status} {case.text[:20]}")
def test_a_call_ends_with_the_same_status_text_and_metrics_by_grpc_and_rest(
    start, case, entrypoint, monkeypatch
):
    def fail(*_):
        raise ZeroDivisionError

    server = start(case.server)
    if case.error:
        monkeypatch.setattr(Servable, "run", fail)
    with contextlib.ExitStack() as others:
        for steps in UNDER_WAY.get(case.server, ()):
            others.enter_context(under_way(server, steps))
        before = counted(server, entrypoint, case.status)
        status, text = (answer_by_grpc if entrypoint == "GRPC" else answer_by_rest)(server, case)
        assert (status, case.text in text) == (case.status, True), text
        # gRPC tells a caller that its deadline has passed before the server knows.
        expected = (before[0] + case.counted, before[1] + case.counted)
        wait_until(lambda: counted(server, entrypoint, case.status) == expected)


@pytest.mark.parametrize("name", ["impatient", "impatient, batching"])
@pytest.mark.parametrize("way", [by_grpc, by_rest])
def test_calls_that_nobody_waits_for_free_their_place(start, way, name):
    impatient = start(name)
    with ThreadPoolExecutor(12) as callers:  # more than a model has places
        statuses = set(callers.map(lambda _: way(impatient, [ENDLESS]), range(12)))
    assert statuses == {"DEADLINE_EXCEEDED"}
    assert by_grpc(impatient, [3]) == "OK"


@pytest.mark.parametrize("way", ["GRPC", "REST"])
def test_a_caller_that_leaves_is_counted_and_its_work_ends(looping, way, caplog):
    with in_process(model_name="looping", model_base_path=str(looping)) as (server, _):
        version = server.manager.models["looping"].versions[1]
        if way == "GRPC":
            with under_way(server, [ENDLESS]):
                pass
        else:
            body = json.dumps({"instances": [ENDLESS]}).encode()
            with socket.create_connection(("127.0.0.1", server.rest_port)) as connection:
                connection.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\n" % PREDICT.encode())
                connection.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
                wait_until(lambda: version.users == 1)
        wait_until(lambda: counted(server, way, "CANCELLED") == (1, 1))
        assert version.users == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_empty_request_is_refused_beside_others_as_it_is_alone(looping, tmp_path):
    parameters = tmp_path / "batching"
    parameters.write_text("max_batch_size { value: 2 } batch_timeout_micros { value: 300000 }")
    with (
        in_process(
            model_name="looping",
            model_base_path=str(looping),
            enable_batching=True,
            batching_parameters_file=str(parameters),
        ) as (server, _),
        Client(f"localhost:{server.port}") as client,
        ThreadPoolExecutor() as callers,
    ):
        full = callers.submit(client.predict, "looping", steps=np.array([3], np.int32))
        with pytest.raises(ServingError, match="the batch is empty"):
            client.predict("looping", steps=np.array([], np.int32))
        assert full.result()["counted"].tolist() == [3]
