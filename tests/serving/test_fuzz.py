"""Requests that no client would send: every one is answered with a status, and the server stays as it is."""

import os
import random
import socket
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import protocol
from serving.client import MODELS, PREDICTION, Client
from tests.serving.conftest import ServerProcess

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "1500"))
METHODS = [PREDICTION + m for m in ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata")]
METHODS += [MODELS + "GetModelStatus"]
SIZES = st.lists(st.sampled_from([-1, 0, 1, 2, 28, 2**31, 2**62]), max_size=5)


def words(*real):
    return st.one_of(st.sampled_from(real), st.text(max_size=4))


@st.composite
def tensors(draw):
    """Return tensors that are nearly right, or not at all."""
    sizes = draw(st.one_of(st.just([1, 28, 28, 1]), SIZES))
    tensor = {"dtype": draw(st.integers(0, 24)), "tensor_shape": {"dim": [{"size": size} for size in sizes]}}
    content = draw(st.sampled_from(["nothing", "bytes", "floats", "strings", "whole"]))
    if content == "bytes":
        tensor["tensor_content"] = draw(st.binary(max_size=64))
    elif content == "floats":
        tensor["float_val"] = draw(st.lists(st.floats(width=32), max_size=4))
    elif content == "strings":
        tensor["string_val"] = draw(st.lists(st.binary(max_size=8), max_size=4))
    elif content == "whole":
        tensor |= {"dtype": 1, "tensor_content": bytes(4 * 784)}
    return tensor


requests = st.builds(
    lambda spec, inputs, outputs: protocol.PredictRequest(
        model_spec=spec, inputs=inputs, output_filter=outputs
    ).SerializeToString(),
    st.fixed_dictionaries(
        {"name": words("mnist")},
        optional={
            "signature_name": words("serving_default", "encoded"),
            "version_label": words("stable"),
            "version": st.fixed_dictionaries({"value": st.sampled_from([0, 1, -1, 2**62])}),
        },
    ),
    st.dictionaries(words("image", "image_bytes"), tensors(), max_size=2),
    st.lists(words("label", "probabilities"), max_size=2),
)


def resident_bytes(server: ServerProcess) -> int:
    """Return the memory of a server's process."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address) as open_channel:
        yield open_channel


def status_of(channel, method: str, content: bytes) -> grpc.StatusCode:
    try:
        channel.unary_unary(method)(content, timeout=20)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def check_alive(server, images, expected):
    with Client(server.address) as client:
        np.testing.assert_array_equal(client.predict("mnist", image=images)["label"], expected)


@pytest.fixture
def unharmed(server, images):
    """See to it that a test leaves the server answering as before, in the same memory."""
    if server.process is None:
        pytest.skip("fuzzes a server of its own only")
    with Client(server.address) as client:
        for _ in range(50):
            expected = client.predict("mnist", image=images)["label"]
    before = resident_bytes(server)
    yield
    assert server.process.poll() is None
    check_alive(server, images, expected)
    assert resident_bytes(server) < before + 100 * 2**20


def test_requests_made_of_nearly_right_parts(server, channel, unharmed):
    seen = set()

    @settings(max_examples=REQUESTS, deadline=None, suppress_health_check=list(HealthCheck))
    @given(requests, st.sampled_from(METHODS))
    def fuzz(content, method):
        code = status_of(channel, method, content)
        assert code not in (
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNAVAILABLE,
        )
        seen.add(code)

    fuzz()
    assert {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND} <= seen


def test_bytes_that_are_no_message_and_messages_cut_short(server, channel, unharmed):
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
        code = status_of(channel, randomness.choice(METHODS), bytes(content))
        assert code not in (
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNAVAILABLE,
        )


def test_bytes_on_the_wire_that_are_no_grpc_and_no_http(server, unharmed):
    randomness = random.Random(0)
    for _ in range(REQUESTS // 10):
        for address in (server.address, server.rest.removeprefix("http://")):
            host, port = address.split(":")
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(randomness.randbytes(randomness.randrange(1, 200)) + b"\r\n\r\n")


def test_an_unknown_method_is_unimplemented(channel):
    assert status_of(channel, PREDICTION + "Guess", b"") is grpc.StatusCode.UNIMPLEMENTED
