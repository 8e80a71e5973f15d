"""Bearer tokens of a file: who may call, what is open to all, and how the file is read again."""

import asyncio
import http.client
import json

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving import load
from serving.client import AsyncClient, Client, ServingError
from serving.protocol import METHODS
from serving.server.configs import check
from serving.server.settings import ConfigError, ServerSettings
from serving.tokens import read_tokens
from tests.processes import assert_refused, run_command, wait_until
from tests.serving.conftest import in_process
from tests.serving.looping import PREDICT, predict_request

FIRST, SECOND, WRONG = "first-token.1", "c2Vjb25k+/==", "not-a-token-of-the-file"
FILE = f"# of the gateway\n{FIRST}\n\n  {SECOND}  # of the batch jobs, until June\n"
INFER = "/v2/models/looping/infer"
BODIES = {
    PREDICT: {"inputs": [3]},
    INFER: {"inputs": [{"name": "steps", "shape": [1], "datatype": "INT32", "data": [3]}]},
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(FILE)
    return path


@pytest.fixture
def server(looping, file, tmp_path):
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true path: '/metrics' }")
    flags = {"auth_token_file": str(file), "monitoring_config_file": str(monitoring)}
    flags |= {"model_name": "looping", "model_base_path": str(looping), "rest_api_enable_cors_support": True}
    with in_process(**flags) as (started, _):
        yield started


def status(server, token):
    """Return the status of a call by gRPC with a token, and its text."""
    with Client(f"localhost:{server.port}", token=token) as client:
        try:
            client.predict("looping", steps=np.array([3], np.int32))
        except ServingError as error:
            return error.code.name, error.text
    return "OK", ""


def rest(server, path, body=None, method="GET", **headers):
    """Return a response, and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_grpc_needs_a_token_of_the_file(server):
    assert [status(server, token)[0] for token in (FIRST, SECOND)] == ["OK", "OK"]
    assert status(server, None) == ("UNAUTHENTICATED", "a token is required: authorization: Bearer TOKEN")
    for token in (WRONG, FIRST[:-1], FIRST + "1", f"{FIRST} {SECOND}"):
        assert status(server, token) == ("UNAUTHENTICATED", "the token is invalid")


def test_the_scheme_has_any_case_and_no_other_name(server):
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        predict = channel.unary_unary(METHODS["Predict"].path)
        content = predict_request([3]).SerializeToString()
        assert predict(content, timeout=10, metadata=(("authorization", f"bearer {FIRST}"),))
        for header in (FIRST, f"Basic {FIRST}", "Bearer", ""):
            with pytest.raises(grpc.RpcError) as refused:
                predict(content, timeout=10, metadata=(("authorization", header),))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_other_client_and_bench_send_it_too(server):
    async def ask():
        async with AsyncClient(f"localhost:{server.port}", token=SECOND) as client:
            return await client.status("looping")

    assert list(asyncio.run(ask())) == [1]
    content, address = predict_request([3]).SerializeToString(), f"localhost:{server.port}"
    assert load.measure(address, content, 1, 0.1, token=FIRST).latencies
    with pytest.raises(ServingError, match="UNAUTHENTICATED"):
        load.measure(address, content, 1, 0.1)


def test_reflection_needs_one_and_health_does_not(server):
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
        assert next(health.Watch(health_pb2.HealthCheckRequest(), timeout=10)).status == 1
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as refused:
            next(stub.ServerReflectionInfo(iter([request]), timeout=10))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        allowed = (("authorization", f"Bearer {FIRST}"),)
        assert next(stub.ServerReflectionInfo(iter([request]), timeout=10, metadata=allowed))


@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_rest_needs_a_token_of_the_file(server, path):
    body = json.dumps(BODIES[path])
    for token, code, challenge in (
        (FIRST, 200, None),
        (SECOND, 200, None),
        (WRONG, 401, 'Bearer error="invalid_token"'),
        (None, 401, "Bearer"),
    ):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer, content = rest(server, path, body, "POST", **headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (code, challenge), content
        assert code == 200 or list(json.loads(content)) == ["error"]


def test_a_body_is_not_read_before_the_token(server):
    answer, _ = rest(server, PREDICT, b"{", "POST", **{"Content-Length": str(2**40)})
    assert answer.status == 401


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/", 200),
        ("/metrics", 200),
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
        ("/v2", 401),
        ("/v2/models/looping", 401),
        ("/v2/models/looping/ready", 401),
        ("/v1/models/looping", 401),
        ("/nothing", 401),
        ("//", 401),
        ("/metrics/", 401),
    ],
)
def test_health_metrics_and_the_demo_page_are_open(server, path, code):
    assert rest(server, path)[0].status == code


def test_a_browser_asks_without_a_token_whether_it_may_call(server):
    headers = {"Origin": "http://a", "Access-Control-Request-Method": "POST"}
    headers["Access-Control-Request-Headers"] = "authorization"
    assert rest(server, PREDICT, None, "OPTIONS", **headers)[0].status == 200
    answer, _ = rest(server, PREDICT, b"{}", "POST", Origin="http://a")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, "*")


def test_a_changed_file_is_read_again_and_an_invalid_one_changes_nothing(server, file, caplog):
    caplog.set_level("INFO", "serving")
    new = "a-new-token"
    file.write_text(f"{new}\n")
    wait_until(lambda: status(server, new)[0] == "OK")
    assert status(server, FIRST)[0] == "UNAUTHENTICATED"
    for spoil, problem in (
        (lambda: file.write_text("# nothing\n"), "has no token"),
        (lambda: file.write_text("a token with spaces\n"), "line 1 of the token file"),
        (lambda: file.write_bytes(b"\xff"), "not UTF-8"),
        (file.unlink, "can't be read"),
    ):
        before = len(caplog.records)
        spoil()
        wait_until(lambda count=before: len(caplog.records) > count)
        assert problem in caplog.text
        assert status(server, new)[0] == "OK"
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 4
    file.write_text(FILE)
    wait_until(lambda: status(server, SECOND)[0] == "OK")
    assert not any(token in caplog.text for token in (FIRST, SECOND, new, "a token with spaces"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file or directory"),
        ("", "has no token: write one a line"),
        ("# a comment\n\n", "has no token"),
        (f"{FIRST}\nsecond secret\n", "line 2 of the token file"),
        ("sécret\n", "line 1 of the token file"),
    ],
)
def test_a_file_without_valid_tokens_is_refused_at_the_start(tmp_path, looping, content, message):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_text(content)
    settings = ServerSettings(
        model_base_path=str(looping), port=0, rest_api_port=0, auth_token_file=str(path)
    )
    with pytest.raises(ConfigError, match=message) as refused:
        check(settings)
    assert "secret" not in str(refused.value)
    assert FIRST not in str(refused.value)


def test_comments_and_blank_lines_are_no_tokens(file):
    assert read_tokens(file) == [FIRST, SECOND]


def test_commands_take_a_file_with_the_token(server, file):
    address = f"localhost:{server.port}"
    asked = run_command("serving", "status", "looping", "--address", address, "--token-file", str(file))
    assert (asked.returncode, asked.stdout.split()) == (0, ["looping", "1", "AVAILABLE"])
    assert_refused(
        run_command("serving", "status", "looping", "--address", address),
        "UNAUTHENTICATED: a token is required",
        "--token-file names a file with one",
    )
    empty = file.with_name("empty")
    empty.touch()
    assert_refused(
        run_command("serving", "status", "looping", "--address", address, "--token-file", str(empty)),
        "has no token",
    )
