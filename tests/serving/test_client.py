"""The client alone: its import, deadlines, retries."""

import subprocess
import sys
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving import protocol
from serving.client import Client, ServingError
from serving.client.messages import split
from serving.protocol import PREDICTION
from tests.processes import ROOT


class Scripted(grpc.GenericRpcHandler):
    """Answers each call with the next entry of a script: a status, or a function of the request."""

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []

    def service(self, details):
        assert details.method == PREDICTION + "Predict"
        return grpc.unary_unary_rpc_method_handler(
            self.answer, protocol.PredictRequest.FromString, lambda answer: answer.SerializeToString()
        )

    def answer(self, request, context):
        self.requests.append(request)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, grpc.StatusCode):
            context.abort(step, "scripted")
        return step(request)


@pytest.fixture
def serve():
    """Start servers with scripts, and stop them at the end."""
    servers = []

    def start(*script):
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.server(futures.ThreadPoolExecutor(4), options=unlimited)
        handler = Scripted(*script)
        server.add_generic_rpc_handlers([handler])
        port = server.add_insecure_port("localhost:0")
        server.start()
        servers.append(server)
        return f"localhost:{port}", handler

    yield start
    for server in servers:
        server.stop(None)


def echo(request):
    return protocol.PredictResponse(outputs=request.inputs)


def test_importing_it_does_not_import_tensorflow():
    code = "import sys, serving.client; print([m for m in ('tensorflow', 'tensorflow_serving', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_can_be_imported_beside_tensorflows_messages():
    request = predict_pb2.PredictRequest()
    request.inputs["a"].CopyFrom(tf.make_tensor_proto([1]))
    assert list(protocol.PredictRequest.FromString(request.SerializeToString()).inputs) == ["a"]


def test_arrays_are_sent_and_returned_unchanged(serve):
    address, handler = serve(echo)
    with Client(address) as client:
        answer = client.predict("m", signature="s", version=3, outputs=["x"], x=np.eye(3), y=["text"] * 3)
    np.testing.assert_array_equal(answer["x"], np.eye(3))
    assert answer["y"].tolist() == [b"text"] * 3
    spec = handler.requests[0].model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("m", "s", 3)
    assert list(handler.requests[0].output_filter) == ["x"]


def test_large_batches_are_split_and_their_outputs_concatenated(serve):
    address, handler = serve(echo)
    x = np.arange(20.0).reshape(10, 2)
    with Client(address, max_batch_size=4) as client:
        np.testing.assert_array_equal(client.predict("m", x=x)["x"], x)
    assert [request.inputs["x"].tensor_shape.dim[0].size for request in handler.requests] == [4, 4, 2]


def test_messages_may_have_any_size(serve):
    address, _ = serve(echo)
    x = np.arange(3_000_000.0).reshape(3, 1_000_000)  # 24 MB: gRPC's own limit is 4 MiB
    with Client(address) as client:
        np.testing.assert_array_equal(client.predict("m", x=x)["x"], x)


def test_inputs_of_any_name_are_given_as_a_dict(serve):
    address, handler = serve(echo)
    with Client(address) as client:
        answer = client.predict("m", {"label": [1, 2], "model": [3, 4]}, version=7, x=[5, 6])
        assert {name: array.tolist() for name, array in answer.items()} == {
            "label": [1, 2],
            "model": [3, 4],
            "x": [5, 6],
        }
        assert handler.requests[0].model_spec.version.value == 7
        assert client.predict("m", inputs=[1.0])["inputs"].tolist() == [1.0]  # TF 1's usual name


def test_only_unavailable_is_retried(serve):
    address, handler = serve(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, echo)
    with Client(address) as client:
        assert client.predict("m", x=1.0)["x"] == 1.0
    assert len(handler.requests) == 3
    for code in (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.INVALID_ARGUMENT,
    ):
        address, handler = serve(code)
        with (
            Client(address) as client,
            pytest.raises(ServingError, match=f"{code.name}: scripted") as refused,
        ):
            client.predict("m", x=1.0)
        assert refused.value.code is code
        assert len(handler.requests) == 1


def test_every_call_has_a_deadline(serve):
    def slow(request):
        time.sleep(1)
        return echo(request)

    address, _ = serve(slow)
    with Client(address, timeout=0.2) as client:
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
            client.predict("m", x=1.0)
        assert client.predict("m", x=1.0, timeout=10)["x"] == 1.0


def test_wrong_arguments_are_refused_before_a_call():
    with Client("localhost:1") as client:
        with pytest.raises(ValueError, match="not both. Received: version=1, label='a'"):
            client.predict("m", version=1, label="a")
        with pytest.raises(ValueError, match="datetime64"):
            client.predict("m", x=np.array(["2020"], "datetime64[D]"))
    with pytest.raises(ValueError, match="timeout above 0. Received: max_batch_size=1, timeout=0"):
        Client("localhost:1", timeout=0, max_batch_size=1)


def test_inputs_without_a_common_first_dimension_are_not_split():
    assert len(split({"x": np.zeros(5), "y": np.zeros(5)}, 2)) == 3
    assert len(split({"x": np.zeros(5), "y": np.zeros(4)}, 2)) == 1
    assert len(split({"x": np.zeros(5), "y": 1.0}, 2)) == 1
    assert len(split({}, 2)) == 1
