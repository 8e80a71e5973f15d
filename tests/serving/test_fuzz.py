"""Invalid requests: each is answered with a status, and the server continues unchanged.

FUZZ_REQUESTS=10000 python -m pytest tests/serving/test_fuzz.py sends 20,000 nearly valid ones, half of them by
gRPC and half by REST.
"""

import base64
import contextlib
import http.client
import json
import os
import random
import re
import socket
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import protocol
from serving.client import Client
from serving.protocol import MODELS, PREDICTION
from tests.serving.conftest import ServerProcess, start_server
from tests.serving.test_limits import jpeg_that_claims, picture, png_header

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "300"))
MORE_MEMORY = 300 * 2**20
METHODS = [PREDICTION + m for m in ("Classify", "Regress", "MultiInference", "GetModelMetadata")]
METHODS += [PREDICTION + "Predict"] * 6 + [MODELS + "GetModelStatus"]
HUGE = [21_399, 2**20, 2**31, 2**32 + 1, 2**62]
SIZES = st.lists(st.sampled_from([-1, 0, 1, 2, 28, *HUGE]), max_size=5)
IMAGES = st.builds(lambda rows: [rows, 28, 28, 1], st.sampled_from([1, 512, 513, *HUGE]))
ROWS = st.sampled_from([-1, 0, 1, 1, 1, 2, 64, 65, *HUGE])
COUNTS = st.sampled_from([-(2**31), -1, 0, 1, 2, 8, 1025, 4097, 2**31 - 1])
FLOATS = st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(width=32))
FILES = st.one_of(
    st.sampled_from(
        [
            picture("PNG", 28, 28),
            picture("JPEG", 30, 20),
            picture("PNG", 4000, 4000),
            picture("PNG", 6000, 6000),
            png_header(2**32 - 1, 2**32 - 1),
            png_header(28, 28),
            jpeg_that_claims(65_000, 65_000),
            b"GIF89a" + bytes(20),
        ]
    ),
    st.binary(max_size=40),
)
TEXTS = st.one_of(
    st.sampled_from([b"The ", b"T" * 3000, b"T" * 60_000, b"T" * 70_000, "é日😀".encode() * 5000, b"\xff"]),
    st.binary(max_size=8),
)


def words(*real):
    return st.one_of(st.sampled_from(real), st.text(max_size=4))


@st.composite
def tensors(draw):
    """Return nearly valid or invalid tensors."""
    tensor = {"dtype": draw(st.sampled_from([1, 1, 1, 3, 7, 9, *range(25)]))}
    tensor |= shape(draw(st.one_of(st.just([1, 28, 28, 1]), IMAGES, SIZES)))
    content = draw(st.sampled_from(["nothing", "bytes", "floats", "strings", "whole"]))
    if content == "bytes":
        tensor["tensor_content"] = draw(st.binary(max_size=64))
    elif content == "floats":
        tensor["float_val"] = draw(st.lists(FLOATS, max_size=4))
    elif content == "strings":
        tensor |= {"dtype": 7, "string_val": draw(st.lists(st.one_of(FILES, TEXTS), max_size=4))}
    elif content == "whole":
        tensor |= {"dtype": 1, "tensor_content": bytes(4 * 784)}
    return tensor


def shape(sizes: list[int]) -> dict:
    return {"tensor_shape": {"dim": [{"size": size} for size in sizes]}}


@st.composite
def string_inputs(draw, name: str, strings):
    """Return one input of strings: one or many, or one value for many rows."""
    values = draw(st.one_of(st.lists(strings, max_size=3), st.just([b"T"] * 20_000)))
    rows = draw(st.one_of(st.just(len(values)), ROWS))
    return {name: {"dtype": 7, "string_val": values, **shape([rows])}}


@st.composite
def generations(draw):
    """Return the six inputs of `generate`, of one length, sometimes with an invalid one."""
    rows = shape([draw(ROWS)])
    inputs = {
        "prompt": {"dtype": 7, "string_val": [draw(TEXTS)], **rows},
        "max_new_tokens": {"dtype": 3, "int_val": [draw(COUNTS)], **rows},
        "temperature": {"dtype": 1, "float_val": [draw(FLOATS)], **rows},
        "top_k": {"dtype": 3, "int_val": [draw(st.integers(-1, 2**31 - 1))], **rows},
        "top_p": {"dtype": 1, "float_val": [draw(FLOATS)], **rows},
        "seed": {"dtype": 9, "int64_val": [draw(st.integers(-(2**63), 2**63 - 1))], **rows},
    }
    wrong = draw(st.sampled_from([None, None, *inputs]))
    return inputs | ({wrong: draw(tensors())} if wrong else {})


CALLS = st.one_of(
    st.tuples(st.just("mnist"), st.just("serving_default"), st.fixed_dictionaries({"image": tensors()})),
    st.tuples(st.just("mnist"), st.just("encoded"), string_inputs("image_bytes", FILES)),
    st.tuples(st.just("lm"), st.just("generate"), generations()),
    st.tuples(st.just("lm"), st.just("score"), string_inputs("text", TEXTS)),
    st.tuples(
        words("mnist", "lm"),
        words("serving_default", "generate", "encoded"),
        st.dictionaries(words("image", "image_bytes", "prompt"), tensors(), max_size=2),
    ),
)


@st.composite
def requests(draw):
    """Return a PredictRequest, serialised."""
    name, signature, inputs = draw(CALLS)
    spec = {"name": name, "signature_name": signature}
    versions = {"version_label": "stable"}, {"version": {"value": 1}}, {"version": {"value": 2**62}}
    spec |= draw(st.sampled_from([{}, {}, {}, *versions]))
    outputs = draw(st.one_of(st.just([]), st.lists(words("label", "text"), max_size=2)))
    return protocol.PredictRequest(model_spec=spec, inputs=inputs, output_filter=outputs).SerializeToString()


def json_value(value):
    """Return JSON with bytes as base64, and with NaN and infinity as Python writes them."""
    return json.dumps(value, default=lambda content: {"b64": base64.b64encode(content).decode()})


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
DIGIT = np.zeros((28, 28, 1)).tolist()


@st.composite
def rows_of_generate(draw):
    row = {
        "prompt": draw(TEXTS),
        "max_new_tokens": draw(COUNTS),
        "temperature": draw(FLOATS),
        "top_k": 0,
        "top_p": draw(FLOATS),
        "seed": draw(st.integers(-(2**64), 2**64)),
    }
    wrong = draw(st.sampled_from([None, None, *row]))
    rows = draw(st.sampled_from([0, 1, 1, 1, 64, 65, 3000])) if len(row["prompt"]) < 100 else 1
    return [row | ({wrong: draw(JSON)} if wrong else {})] * rows


def body(signature, key, rows):
    return st.fixed_dictionaries({key: rows}, optional={"signature_name": st.just(signature)}).map(json_value)


BODIES = st.one_of(
    body("serving_default", "instances", st.sampled_from([1, 2, 513]).map(lambda rows: [DIGIT] * rows)),
    body("serving_default", "inputs", JSON),
    body("encoded", "instances", st.lists(FILES, max_size=3)),
    body("encoded", "instances", st.sampled_from([513, 20_000]).map(lambda rows: [b""] * rows)),
    body("generate", "instances", rows_of_generate()),
    body("score", "inputs", st.lists(TEXTS, max_size=3)),
    body("score", "instances", st.just(["T"] * 20_000)),
    JSON.map(json_value),
    st.text(max_size=20),
)
PATHS = st.builds(
    lambda model, version, verb: f"/v1/models/{model}{version}{verb}",
    st.sampled_from(["mnist", "lm", "lm", "x", "%00", "a/b"]),
    st.sampled_from(["", "", "", "/versions/1", "/versions/99999999999999999999", "/labels/stable"]),
    st.sampled_from([":predict", ":predict", ":predict", ":classify", ":regress", "/metadata", "", ":x"]),
)


DATATYPES = st.sampled_from(["FP32", "FP32", "BYTES", "BYTES", "INT32", "UINT64", "BOOL", "FP16", "X", 3])
MEMBERS = {
    "name": st.one_of(st.sampled_from(["image", "image", "image_bytes", "text"]), JSON),
    "datatype": DATATYPES,
    "shape": st.one_of(st.sampled_from([[1], [2], [1, 28, 28, 1], [28]]), SIZES, JSON),
    "data": st.one_of(st.just([DIGIT]), st.lists(st.text(max_size=4), max_size=3), JSON),
    "parameters": st.one_of(
        st.builds(lambda size: {"binary_data_size": size}, st.sampled_from([-1, 0, 4, 8, 3136, 2**62])), JSON
    ),
}
INFERENCES = st.tuples(
    st.fixed_dictionaries(
        {"inputs": st.one_of(st.lists(st.fixed_dictionaries({}, optional=MEMBERS), max_size=2), JSON)},
        optional={
            "id": JSON,
            "outputs": st.one_of(st.just([{"name": "label"}]), JSON),
            "parameters": st.one_of(
                st.sampled_from([{"signature_name": "encoded"}, {"binary_data_output": True}]), JSON
            ),
        },
    ).map(lambda value: json_value(value).encode()),
    st.one_of(st.binary(max_size=12), st.just(bytes(3136)), st.just(b"\x04\0\0\0text")),
    st.one_of(st.none(), st.sampled_from(["-1", "9" * 30, "x"])),
    st.sampled_from(["mnist", "mnist/versions/1", "lm"]),
)
"""JSON, binary data, a wrong length of the JSON, and a model of the Open Inference Protocol."""


def memory(server: ServerProcess, field: str) -> int:
    """Return the resident memory of a server's process in bytes: VmRSS now, VmHWM at its most."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.search(rf"{field}:\s+(\d+)", status).group(1))


@pytest.fixture(scope="module")
def server(exported, text_exports, tmp_path_factory):
    """A server of both models, as they are served together."""
    folder = tmp_path_factory.mktemp("server")
    models = {"mnist": exported.parent, "lm": text_exports("characters")[1].parent}
    entries = (
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
        for name, path in models.items()
    )
    (folder / "config").write_text(f"model_config_list {{ {' '.join(entries)} }}")
    started = start_server(
        folder / "log", f"--model_config_file={folder / 'config'}", "--enable_batching=true"
    )
    yield started
    assert started.stop() == 0


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address) as open_channel:
        yield open_channel


def status_of(channel, method: str, content: bytes) -> grpc.StatusCode:
    try:
        channel.unary_unary(method)(content, timeout=20)
    except grpc.RpcError as error:
        # gRPC's answer to a content that is not the method's message has no text.
        return error.code() if error.details() else grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.OK


def is_an_answer(code: grpc.StatusCode) -> bool:
    """Return whether a status answers an invalid request, unlike an unexpected error or a lost call."""
    return code.name not in ("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED")


def answers(server, images):
    with Client(server.address) as client:
        for _ in range(20):
            label = client.predict("mnist", image=images)["label"]
        return label.tolist(), client.predict("lm", prompt=[b"The "] * 8)["text"].tolist()


@pytest.fixture
def unharmed(server, images):
    """Check that the server answers as before after a test, and never needs much more memory than idle."""
    expected = answers(server, images)
    idle = memory(server, "VmRSS")
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # VmHWM begins again
    yield
    assert server.process.poll() is None
    most = memory(server, "VmHWM")
    print(f"{idle / 2**20:.0f} MiB idle, {(most - idle) / 2**20:.0f} MiB more at most")
    assert answers(server, images) == expected
    assert most < idle + MORE_MEMORY


def fuzz(strategy, check):
    """Run a check on many examples, which do not depend on the time."""
    chosen = settings(
        max_examples=REQUESTS, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    chosen(given(strategy)(check))()


def test_nearly_valid_requests(server, channel, unharmed):
    seen = set()

    def send(call):
        code = status_of(channel, *call)
        assert is_an_answer(code), code
        seen.add(code.name)

    fuzz(st.tuples(st.sampled_from(METHODS), requests()), send)
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= seen


def test_nearly_valid_bodies(server, unharmed):
    seen = set()

    def send(call):
        method, path, content = call
        connection = http.client.HTTPConnection(server.rest.removeprefix("http://"), timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, content.encode())
            answer = connection.getresponse()
            text = answer.read()
        assert answer.status < 500 or answer.status == 501, text
        assert answer.status == 200 or answer.status == 405 or set(json.loads(text)) == {"error"}
        seen.add(answer.status)

    fuzz(st.tuples(st.sampled_from(["POST"] * 9 + ["GET"]), PATHS, BODIES), send)
    assert {200, 400, 404} <= seen


def test_nearly_valid_bodies_of_the_open_inference_protocol(server, unharmed):
    seen = set()

    def send(call):
        content, binary, length, model = call
        headers = {"Inference-Header-Content-Length": length or str(len(content))}
        connection = http.client.HTTPConnection(server.rest.removeprefix("http://"), timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", f"/v2/models/{model}/infer", content + binary, headers)
            answer = connection.getresponse()
            text = answer.read()
        assert answer.status in (200, 400), text
        assert answer.status == 200 or set(json.loads(text)) == {"error"}
        seen.add(answer.status)

    fuzz(INFERENCES, send)
    assert 400 in seen


def test_invalid_and_truncated_messages(server, channel, unharmed):
    randomness = random.Random(0)
    whole = protocol.PredictRequest(
        model_spec={"name": "mnist"},
        inputs={"image": {"dtype": 1, "tensor_shape": {"dim": [{"size": 1}]}, "float_val": [1.0] * 20}},
    ).SerializeToString()
    for _ in range(REQUESTS):
        content = bytearray(whole[: randomness.randrange(len(whole))])
        for _ in range(randomness.randrange(4)):
            if content:
                content[randomness.randrange(len(content))] = randomness.randrange(256)
        assert is_an_answer(status_of(channel, randomness.choice(METHODS), bytes(content)))


def test_random_bytes_instead_of_grpc_and_http(server, unharmed):
    randomness = random.Random(0)
    for _ in range(REQUESTS // 10):
        for address in (server.address, server.rest.removeprefix("http://")):
            host, port = address.split(":")
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(randomness.randbytes(randomness.randrange(1, 200)) + b"\r\n\r\n")


def test_an_unknown_method_is_unimplemented(channel):
    assert status_of(channel, PREDICTION + "Guess", b"") is grpc.StatusCode.UNIMPLEMENTED
