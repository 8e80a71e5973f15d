"""How calls end, by gRPC and REST alike: answered, refused, too late, left, or while the server shuts down."""

import contextlib
import functools
import gzip
import http.client
import json
import logging
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from serving import load, protocol
from serving.client import TLS, Client, ServingError
from serving.protocol import METHODS
from serving.server import app, rest_api
from serving.server.errors import ConfigError
from serving.server.servable import Servable
from serving.tensors import fill_proto
from tests.serving.conftest import free_port, in_process
from tests.serving.test_server import Load, certificates, ssl_config, wait_for

ENDLESS = 2**31 - 1
DEADLINE = 0.3
PREDICT = "/v1/models/looping:predict"


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
    Case("INVALID_ARGUMENT", "Shape of tensor steps [1,1] is not compatible", steps=((3,),)),
    Case(
        "INVALID_ARGUMENT",
        "a request may have at most 2 rows. Received: 3",
        server="limited",
        steps=(3, 3, 3),
    ),
    Case("INVALID_ARGUMENT", "Task size 3 is larger than", server="small batches", steps=(3, 3, 3)),
    Case("INVALID_ARGUMENT", "Unrecognized servable version label: x", label="x"),
    Case("FAILED_PRECONDITION", 'Serving signature key "x" not found.', signature="x"),
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


@contextlib.contextmanager
def under_way(server, steps):
    """Keep a call running."""
    users = server.manager.models["looping"].versions[1]
    before = users.users
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        call = channel.unary_unary(METHODS["Predict"].path).future(predict_request(steps).SerializeToString())
        wait_for(lambda: users.users == before + 1)
        yield
        call.cancel()
        wait_for(lambda: users.users == before)


def predict_request(steps, model="looping", signature="serving_default", version=None, label=None):
    request = protocol.PredictRequest(model_spec={"name": model, "signature_name": signature})
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    fill_proto(request.inputs["steps"], np.array(steps, np.int32))
    return request


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
        wait_for(lambda: counted(server, entrypoint, case.status) == expected)


@pytest.fixture(scope="module")
def served(start):
    """A server without batching."""
    return start("alone")


def by_grpc(server, steps):
    """Return the status of a call by gRPC."""
    with Client(f"localhost:{server.port}", timeout=DEADLINE if ENDLESS in steps else 60) as client:
        try:
            client.predict("looping", steps=np.array(steps, np.int32))
        except ServingError as error:
            return error.code.name
    return "OK"


def by_rest(server, steps):
    """Return the status of a call by REST."""
    status, _ = rest(server, PREDICT, json.dumps({"inputs": steps}))
    return {200: "OK", 504: "DEADLINE_EXCEEDED"}[status]


def rest(server, path, body=None, method="POST", **headers):
    """Return the HTTP status and the decoded body of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def counted(server, entrypoint, status):
    """Return how many calls of all APIs have a status, and how many an entrypoint, by the metrics."""

    def total(metric, label):
        lines = server.metrics.text().decode().splitlines()
        found = [
            line for line in lines if line.startswith(f":tensorflow:serving:{metric}{{") and label in line
        ]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    return total("request_count", f'status="{status}"'), total(
        "request_latency_count", f'entrypoint="{entrypoint}"'
    )


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
                wait_for(lambda: version.users == 1)
        wait_for(lambda: counted(server, way, "CANCELLED") == (1, 1))
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


def test_draining_completes_accepted_calls_and_refuses_new_ones_by_grpc_and_rest(looping, monkeypatch):
    monkeypatch.setattr(app, "DRAIN_SECONDS", 20.0)
    with in_process(model_name="looping", model_base_path=str(looping)) as (server, await_):
        version = server.manager.models["looping"].versions[1]
        address = f"localhost:{server.port}"
        with Client(address, timeout=60) as client, ThreadPoolExecutor() as callers:
            accepted = callers.submit(client.predict, "looping", steps=np.array([300_000], np.int32))
            wait_for(lambda: version.users == 1)
            half_sent = socket.create_connection(("127.0.0.1", server.rest_port))
            half_sent.sendall(
                b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{" % PREDICT.encode()
            )
            kept_alive = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
            kept_alive.request("GET", "/v1/models/looping")
            with kept_alive.getresponse() as answer:
                assert (answer.status, answer.read() != b"") == (200, True)
            stopped = callers.submit(await_, server.stop())
            # It was not accepted: it is refused at once, and does not hold the server.
            assert half_sent.recv(1000).startswith(b"HTTP/1.1 503")
            half_sent.close()
            assert by_grpc(server, [1]) in (
                "UNAVAILABLE",
                "DEADLINE_EXCEEDED",
            )  # tried again until its deadline
            with pytest.raises(OSError, match="refused|reset"):
                rest(server, "/v1/models/looping", method="GET")
            kept_alive.close()
            assert accepted.result()["counted"].tolist() == [300_000]
            stopped.result()


@pytest.mark.parametrize("way", ["GRPC", "REST"])
def test_draining_ends_calls_that_take_too_long(looping, monkeypatch, way, caplog):
    monkeypatch.setattr(app, "DRAIN_SECONDS", 0.1)
    with (
        in_process(model_name="looping", model_base_path=str(looping)) as (server, await_),
        Client(f"localhost:{server.port}", timeout=60) as client,
        ThreadPoolExecutor() as callers,
    ):
        if way == "GRPC":
            running = callers.submit(client.predict, "looping", steps=np.array([ENDLESS], np.int32))
        else:
            running = callers.submit(rest, server, PREDICT, json.dumps({"instances": [ENDLESS]}))
        wait_for(lambda: server.manager.models["looping"].versions[1].users == 1)
        await_(server.stop())
        if way == "GRPC":
            with pytest.raises(ServingError, match="UNAVAILABLE"):
                running.result()
        else:
            assert running.result() == (503, {"error": "the server is shutting down"})
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def config_of(**paths):
    models = "".join(f'config {{ name: "{name}" base_path: "{path}" }} ' for name, path in paths.items())
    return f"model_config_list {{ {models} }}"


def test_a_config_is_applied_whole_or_not_at_all(looping, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    config = tmp_path / "models.config"
    config.write_text(config_of(a=looping, b=looping))
    with (
        in_process(model_config_file=str(config)) as (server, _),
        Client(f"localhost:{server.port}", timeout=30) as client,
    ):

        def served():
            return {name for name in ("a", "b", "c") if is_served(client, name)}

        label = 'version_labels { key: "x" value: 9 } }'
        mislabelled = config_of(a=looping, c=looping).removesuffix("}  }") + label + "}"
        for refused, text in (
            (mislabelled, "Request to assign label to version 9 of model c"),
            (config_of(a=empty), f"No version of model a under base path {empty} could be loaded"),
            ("", "ServerModelConfig type not supported by HandleReloadConfigRequest."),
            ("custom_model_config {}", "ServerModelConfig type not supported"),
        ):
            with pytest.raises(ServingError, match=text):
                client.reload(refused)
            assert served() == {"a", "b"}
        client.reload(config_of(c=looping))
        assert served() == {"c"}
        client.reload("model_config_list {}")
        assert served() == set()


def is_served(client, name):
    try:
        client.predict(name, steps=np.array([1], np.int32))
    except ServingError as error:
        if error.code is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return True


def test_a_model_moves_to_another_folder_without_a_failed_call(looping, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "00000007").symlink_to(looping / "1")

    class Counting(Load):
        def run(self):
            while not self.done.is_set():
                try:
                    self.client.predict("looping", steps=np.array([1], np.int32))
                    self.answers += 1
                except ServingError as error:
                    self.failures.append(error)

    with in_process(model_name="looping", model_base_path=str(looping)) as (server, _):
        callers = [Counting(f"localhost:{server.port}", None) for _ in range(4)]
        for caller in callers:
            caller.start()
        with Client(f"localhost:{server.port}", timeout=30) as client:
            for folder in (moved, looping, moved):
                client.reload(config_of(looping=folder))
            assert list(client.status("looping")) == [7]
        for caller in callers:
            caller.end()
    assert [caller.failures for caller in callers] == [[]] * 4
    assert all(caller.answers for caller in callers)


GZIPPED = {"Content-Encoding": "gzip"}
ONE = json.dumps({"instances": [1]}).encode()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "text"),
    [
        ("POST", PREDICT, gzip.compress(ONE, mtime=0), GZIPPED, 200, "predictions"),
        ("POST", PREDICT, b"not gzip", GZIPPED, 400, "not gzip"),
        ("POST", PREDICT, gzip.compress(ONE, mtime=0)[:-9], GZIPPED, 400, "cut short"),
        ("POST", PREDICT, gzip.compress(bytes(17 * 2**20), mtime=0), GZIPPED, 413, "at most 16777216 bytes"),
        ("POST", PREDICT, ONE, {"Content-Encoding": "br"}, 400, "Content-Encoding must be gzip"),
        ("POST", PREDICT, b"{}", {"Content-Length": "28000000"}, 413, "at most 16777216 bytes"),
        ("POST", PREDICT, b'{"instances":' + b"[" * 100_000, {}, 400, "nested too deeply"),
        ("POST", PREDICT, b'{"a":' * 100_000, {}, 400, "nested too deeply"),
        ("POST", PREDICT, b'{"instances": [1]} x', {}, 400, "JSON Parse error"),
        ("POST", PREDICT, b"", {}, 400, "JSON Parse error"),
        ("POST", PREDICT, b'{"instances": [1, "%b"]}' % (b"x" * 10**6), {}, 400, "str where numbers"),
        ("POST", PREDICT, b'{"instances": [1], "signature_name": "\\ud800"}', {}, 400, "must be a string"),
        (
            "POST",
            PREDICT.replace("predict", "regress"),
            b'{"examples": [{"\\ud800": 1}]}',
            {},
            400,
            "feature",
        ),
        ("POST", f"/v1/models/looping/versions/{'9' * 5000}:predict", ONE, {}, 400, "to numeric"),
        ("GET", f"/v1/models/looping/versions/{2**63}", None, {}, 400, "to numeric"),
        ("GET", "/v1/models/looping/versions/0001", None, {}, 200, "AVAILABLE"),
        ("GET", "/v1/models/looping", ONE, {}, 200, "AVAILABLE"),
        ("GET", "/v1/models/looping/metadata", ONE, {}, 200, "signature_def"),
        ("PUT", PREDICT, ONE, {}, 400, f"Malformed request: PUT {PREDICT}"),
        ("GET", "/v1/models/looping/versions/-1", None, {}, 400, "Malformed request: GET"),
        ("GET", "/v2", None, {}, 404, "Malformed request: GET /v2"),
    ],
)
def test_rest_answers_whatever_it_is_sent(served, method, path, body, headers, status, text):
    answered, answer = rest(served, path, body, method, **headers)
    assert (answered, text in json.dumps(answer)) == (status, True), answer


def test_an_unexpected_error_in_a_body_is_answered_in_tf_servings_form_and_counted(
    served, monkeypatch, caplog
):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(rest_api, "parse", fail)
    before = counted(served, "REST", "INTERNAL")
    status, answer = rest(served, PREDICT, ONE)
    assert (status, list(answer)) == (500, ["error"])
    assert counted(served, "REST", "INTERNAL") == (before[0] + 1, before[1] + 1)
    assert "ZeroDivisionError" in caplog.text


def test_a_body_that_grows_too_large_without_a_length_is_refused(served):
    chunks = (bytes(2**20) for _ in range(20))
    assert rest(served, PREDICT, chunks)[0] == 413


def test_a_client_that_leaves_within_its_body_is_counted_and_not_logged(served, caplog):
    before = counted(served, "REST", "CANCELLED")
    with socket.create_connection(("127.0.0.1", served.rest_port)) as connection:
        connection.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{" % PREDICT.encode())
        time.sleep(0.05)
    wait_for(lambda: counted(served, "REST", "CANCELLED") == (before[0] + 1, before[1] + 1))
    assert not caplog.records


def test_grpc_calls_are_answered_while_a_large_body_is_decoded(looping):
    body = b'{"instances": [%b1]}' % (b"1," * 500_000)
    with in_process(model_name="looping", model_base_path=str(looping)) as (server, _):
        answers, done = [], threading.Event()

        def ask():
            with Client(f"localhost:{server.port}") as client:
                while not done.is_set():
                    answers.append(client.status("looping"))

        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: answers)
        before = len(answers)
        status, answer = rest(server, PREDICT, body)
        during = len(answers) - before
        done.set()
        asking.join()
    assert (status, len(answer["predictions"])) == (200, 500_001)
    assert during >= 5


def test_it_listens_on_this_machine_only_by_default(looping):
    for host, answered in (("127.0.0.1", False), ("0.0.0.0", True)):
        with in_process(host=host, model_name="looping", model_base_path=str(looping)) as (server, _):
            for port in (server.port, server.rest_port):  # both listen once it is started
                socket.create_connection(("127.0.0.1", port)).close()
                with socket.socket() as other:
                    assert (other.connect_ex(("127.0.0.2", port)) == 0) is answered


def test_rest_is_off_beside_tls_unless_it_is_asked_for_and_bench_speaks_tls(looping, tmp_path):
    certificates(tmp_path)
    ca, key, crt = ((tmp_path / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt"))
    flags = {"model_name": "looping", "model_base_path": str(looping)}
    flags["ssl_config_file"] = str(ssl_config(tmp_path))
    with in_process(**flags, rest_api_port=None) as (server, _):
        assert server.rest_port == 0
        content, address = predict_request([1]).SerializeToString(), f"localhost:{server.port}"
        assert load.measure(address, content, 1, 0.1, TLS(ca, key, crt)).latencies
    with in_process(**flags) as (server, _):
        assert rest(server, "/v1/models/looping", method="GET")[0] == 200


def test_a_server_that_cannot_start_releases_its_ports():
    port, rest_port = free_port(), free_port()
    for _ in range(2):
        with (
            pytest.raises(ConfigError, match="Could not find base path /nowhere"),
            in_process(port=port, rest_api_port=rest_port, model_base_path="/nowhere"),
        ):
            pass
    for number in (port, rest_port):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", number))
