"""Requests by REST, valid or not, and where the server listens."""

import gzip
import json
import socket
import threading
import time

import pytest

from serving import load
from serving.client import TLS, Client
from serving.server import rest_api
from serving.server.settings import ConfigError
from tests.processes import wait_until
from tests.serving.certificates import certificates, ssl_config
from tests.serving.conftest import free_port, in_process
from tests.serving.looping import PREDICT, counted, predict_request, rest


@pytest.fixture(scope="module")
def served(looping):
    """A server without batching."""
    with in_process(model_name="looping", model_base_path=str(looping)) as (server, _):
        yield server


GZIPPED = {"Content-Encoding": "gzip"}
ONE = json.dumps({"instances": [1]}).encode()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "text"),
    [
        ("POST", PREDICT, gzip.compress(ONE, mtime=0), GZIPPED, 200, "predictions"),
        ("POST", PREDICT, b"not gzip", GZIPPED, 400, "The document is empty"),
        ("POST", PREDICT, gzip.compress(ONE, mtime=0)[:-9], GZIPPED, 400, "The document is empty"),
        ("POST", PREDICT, gzip.compress(bytes(17 * 2**20), mtime=0), GZIPPED, 413, "at most 16777216 bytes"),
        ("POST", PREDICT, ONE, {"Content-Encoding": "br"}, 200, "predictions"),
        ("POST", PREDICT, b"{}", {"Content-Length": "28000000"}, 413, "at most 16777216 bytes"),
        ("POST", PREDICT, b'{"instances":' + b"[" * 100_000, {}, 400, "nested too deeply"),
        ("POST", PREDICT, b'{"a":' * 100_000, {}, 400, "nested too deeply"),
        ("POST", PREDICT, b'{"instances": [1]} x', {}, 400, "JSON Parse error"),
        ("POST", PREDICT, b"", {}, 400, "JSON Parse error"),
        ("POST", PREDICT, b'{"instances": [%b]}' % (b"1" * 5000), {}, 400, "Number too big"),
        ("POST", PREDICT, b'{"instances": [%b]}' % (b"1" * 400), {}, 400, "Number too big"),
        (
            "POST",
            PREDICT,
            b'{"instances": [1, "%b"]}' % (b"x" * 10**6),
            {},
            400,
            "Type: String is not of expected type: int32",
        ),
        (
            "POST",
            PREDICT,
            b'{"instances": [1], "signature_name": "\\ud800"}',
            {},
            400,
            "not found in signature def",
        ),
        (
            "POST",
            PREDICT.replace("predict", "regress"),
            b'{"examples": [{"\\ud800": 1}]}',
            {},
            400,
            "The surrogate pair in string is invalid",
        ),
        ("POST", f"/v1/models/looping/versions/{'9' * 5000}:predict", ONE, {}, 400, "to numeric"),
        ("GET", f"/v1/models/looping/versions/{2**63}", None, {}, 400, "to numeric"),
        ("GET", "/v1/models/looping/versions/0001", None, {}, 200, "AVAILABLE"),
        ("GET", "/v1/models/looping", ONE, {}, 200, "AVAILABLE"),
        ("GET", "/v1/models/looping/metadata", ONE, {}, 200, "signature_def"),
        ("PUT", PREDICT, ONE, {}, 400, f"Malformed request: PUT {PREDICT}"),
        ("GET", "/v1/models/looping/versions/-1", None, {}, 400, "Malformed request: GET"),
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
    wait_until(lambda: counted(served, "REST", "CANCELLED") == (before[0] + 1, before[1] + 1))
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
        wait_until(lambda: answers)
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
