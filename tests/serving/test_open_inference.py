"""The Open Inference Protocol by an unmodified tritonclient and by plain HTTP, compared with Predict by gRPC."""

import contextlib
import gzip
import http.client
import json
import struct
import zlib

import grpc
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.client import Client
from serving.server.http_calls import MAX_BODY_BYTES
from tests.processes import wait_until
from tests.serving.conftest import in_process

CONFIG = 'config {{ name: "{}" base_path: "{}" model_platform: "tensorflow" {} }}'
DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": ml_dtypes.bfloat16,
    "BYTES": np.object_,
}


def extremes(datatype):
    """Return a column of values of a type, with its smallest and largest."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return np.array([["é".encode()], [b""], [b'a"\n']], np.object_)
    if datatype == "BOOL":
        return np.array([[True], [False], [True]])
    limits = ml_dtypes.iinfo(dtype) if np.dtype(dtype).kind in "iu" else ml_dtypes.finfo(dtype)
    values = np.array([[limits.min], [limits.max], [1]], dtype)
    return values.astype(np.float32) if datatype == "BF16" else values  # the client has no other type for it


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """Folder of a model with a signature for each type, which returns its input `x` as `y`; and a scalar one."""
    module, signatures = tf.Module(), {}
    types = {name: tf.as_dtype(tf.string if name == "BYTES" else dtype) for name, dtype in DTYPES.items()}
    for name, dtype in {**types, "complex": tf.complex64}.items():
        spec = tf.TensorSpec((None, 1), dtype, name="x")
        signatures[name] = tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[spec])
        setattr(module, name, signatures[name])
    spec = tf.TensorSpec((), tf.int32, name="x")
    module.scalar = signatures["scalar"] = tf.function(lambda x: {"y": x + 1}, input_signature=[spec])
    folder = tmp_path_factory.mktemp("echo")
    tf.saved_model.save(module, str(folder / "1"), signatures=signatures)
    return folder


@pytest.fixture(scope="module")
def server(exported, text_exports, echo, half_plus_two, tmp_path_factory):
    models = {"mnist": exported.parent, "lm": text_exports("bytes")[1].parent, "echo": echo}
    entries = [CONFIG.format(name, path, "") for name, path in models.items()]
    labels = 'model_version_policy { all {} } version_labels { key: "stable" value: 123 }'
    entries.append(CONFIG.format("hp", half_plus_two, labels))
    config = tmp_path_factory.mktemp("config") / "models.config"
    config.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    with in_process(model_config_file=str(config), enable_batching=True) as (started, _):
        yield started


@pytest.fixture(scope="module")
def triton(server):
    with contextlib.closing(InferenceServerClient(f"127.0.0.1:{server.rest_port}")) as client:
        yield client


@pytest.fixture(scope="module")
def client(server):
    with Client(f"localhost:{server.port}") as connected:
        yield connected


def tensor(name, array, binary=True, datatype=None):
    described = InferInput(name, array.shape, datatype or np_to_triton_dtype(array.dtype))
    return described.set_data_from_numpy(array, binary_data=binary)


def post(server, path, body, **headers):
    """Return the HTTP status, the headers and the body of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    with contextlib.closing(connection):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, names)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_health_and_metadata(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("mnist")
    assert triton.is_model_ready("hp", "124")
    assert triton.is_model_ready("hp", "stable")
    assert not triton.is_model_ready("hp", "7")
    assert not triton.is_model_ready("hp", "canary")
    assert not triton.is_model_ready("none")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert triton.get_model_metadata("mnist") == {
        "name": "mnist",
        "versions": ["1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 28, 28, 1]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        ],
    }
    assert triton.get_model_metadata("hp", "123")["versions"] == ["123", "124"]
    score = triton.get_model_metadata("lm", query_params={"signature_name": "score"})
    assert score["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    for name, wrong in (("score", "not found"), ("complex", "complex64")):
        with pytest.raises(InferenceServerException, match=wrong):
            triton.get_model_metadata("echo", query_params={"signature_name": name})


@pytest.mark.parametrize("binary", [True, False])
def test_images_as_by_grpc(triton, client, images, binary):
    images = images.round()
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
    answer = triton.infer("mnist", [tensor("image", images, binary)], outputs=outputs, request_id="seven")
    expected = client.predict("mnist", image=images)
    assert answer.as_numpy("label").tolist() == expected["label"].tolist()
    np.testing.assert_array_equal(answer.as_numpy("probabilities"), expected["probabilities"])
    response = answer.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("seven", "mnist", "1")


@pytest.mark.parametrize("binary", [True, False])
def test_text_as_by_grpc(triton, client, binary):
    inputs = {
        "prompt": np.array([b"The ", "é日".encode()], np.object_),
        "max_new_tokens": np.array([8, 8], np.int32),
        "temperature": np.array([0.0, 0.5], np.float32),
        "top_k": np.array([0, 3], np.int32),
        "top_p": np.array([1.0, 1.0], np.float32),
        "seed": np.array([1, 2], np.int64),
    }
    tensors = [tensor(name, array, binary) for name, array in inputs.items()]
    answer = triton.infer("lm", tensors, parameters={"signature_name": "generate"})
    expected = client.predict("lm", inputs, signature="generate")["text"].tolist()
    assert answer.as_numpy("text").tolist() == expected


@pytest.mark.parametrize("datatype", DTYPES)
def test_values_of_every_type_come_back(triton, datatype):
    array = extremes(datatype)
    for binary in (True, False):
        outputs = [InferRequestedOutput("y", binary_data=binary)]
        if datatype in ("FP16", "BF16") and not binary:
            with pytest.raises(InferenceServerException, match="must be requested as binary data"):
                triton.infer(
                    "echo",
                    [tensor("x", array, datatype=datatype)],
                    "1",
                    outputs,
                    parameters={"signature_name": datatype},
                )
            continue
        answer = triton.infer(
            "echo",
            [tensor("x", array, binary, datatype)],
            "1",
            outputs,
            parameters={"signature_name": datatype},
        )
        assert answer.get_output("y")["datatype"] == datatype
        result = answer.as_numpy("y")
        if datatype == "BYTES" and not binary:  # the client returns text
            result = np.vectorize(str.encode, otypes=[np.object_])(result)
        assert result.dtype == array.dtype
        np.testing.assert_array_equal(result, array)


def test_an_empty_batch_a_scalar_and_a_version(triton):
    empty = triton.infer(
        "echo", [tensor("x", np.zeros((0, 1), np.float32))], parameters={"signature_name": "FP32"}
    )
    assert empty.as_numpy("y").shape == (0, 1)
    scalar = triton.infer(
        "echo", [tensor("x", np.array(6, np.int32))], parameters={"signature_name": "scalar"}
    )
    assert scalar.as_numpy("y") == 7
    for version, answered in (("", "124"), ("123", "123"), ("stable", "123")):
        answer = triton.infer("hp", [tensor("x", np.array([2.0], np.float32))], version)
        assert answer.get_response()["model_version"] == answered
        assert answer.as_numpy("y").tolist() == [3.0]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request(triton, images, algorithm):
    answer = triton.infer(
        "mnist",
        [tensor("image", images)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert answer.as_numpy("label").shape == (5,)


def x(**changes):
    """Return a body for half plus two with one value; a change to None removes a member."""
    described = {"name": "x", "shape": [1], "datatype": "FP32", "data": [2.0]} | changes
    return {"inputs": [{name: value for name, value in described.items() if value is not None}]}


def test_data_may_be_nested_or_flat(server):
    for data in ([[1, 2]], [1.0, 2.0]):
        status, _, content = post(server, "/v2/models/hp/infer", json.dumps(x(shape=[1, 2], data=data)))
        assert (status, json.loads(content)["outputs"]) == (
            200,
            [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.5, 3.0]}],
        )


def test_binary_and_json_outputs_in_one_response(server, images):
    body = json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "shape": [5, 28, 28, 1],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": images.nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "probabilities"}, {"name": "label", "parameters": {"binary_data": False}}],
        }
    ).encode()
    status, headers, content = post(
        server,
        "/v2/models/mnist/infer",
        body + images.tobytes(),
        Inference_Header_Content_Length=str(len(body)),
    )
    assert status == 200
    length = int(headers["Inference-Header-Content-Length"])
    outputs = {output["name"]: output for output in json.loads(content[:length])["outputs"]}
    assert outputs["probabilities"]["parameters"] == {"binary_data_size": 200}
    probabilities = np.frombuffer(content[length:], np.float32).reshape(5, 10)
    assert outputs["label"]["data"] == probabilities.argmax(axis=1).tolist()


BINARY = x(data=None, parameters={"binary_data_size": 4})
BYTES = {"shape": [2], "datatype": "BYTES", "data": None, "parameters": {"binary_data_size": 8}}


@pytest.mark.parametrize(
    ("body", "binary", "text"),
    [
        ([], b"", "Is not object"),
        ({}, b"", "input size does not match signature: 0!=1"),
        ({"inputs": 1}, b"", "inputs must be a list. Received: 1"),
        ({"inputs": [1]}, b"", "name is missing or invalid in 1"),
        ({"inputs": [[1, 2]]}, b"", "name is missing or invalid in [1, 2]"),
        (x(name=3), b"", "name is missing or invalid"),
        (x(name="z"), b"", "Signature input alias: x"),
        ({"inputs": x()["inputs"] * 2}, b"", "input size does not match signature: 2!=1"),
        (x(datatype=None), b"", "datatype is missing or invalid"),
        (x(datatype="COMPLEX64"), b"", "datatype of x must be one of BOOL, UINT8"),
        (x(datatype="FP64"), b"", "Expects arg[0] to be float but double is provided"),
        (x(datatype="INT8", data=[300]), b"", "is not of expected type: int8"),
        (x(datatype="FP16"), b"", "FP16 must be sent as binary data"),
        (x(datatype="BYTES", data=["\ud800"]), b"", "surrogate"),
        (x(shape=None), b"", "shape must be a list"),
        (x(shape=[-1]), b"", "shape must be a list of at most 64 sizes of at least 0. Received: [-1]"),
        (x(shape=[1.5]), b"", "shape must be a list"),
        (x(shape=[2**64]), b"", "shape must be a list"),
        (x(shape=[1] * 65), b"", "shape must be a list"),
        (x(shape=[True]), b"", "shape must be a list"),
        (x(shape=[2**62] * 64), b"", "elements. Received: 1 in data"),
        (x(shape=[2]), b"", "shape [2] has 2 elements. Received: 1 in data"),
        (x(data=None), b"", "data must be a list. Received: null"),
        (x(data=2.0), b"", "data must be a list. Received: 2.0"),
        (x(data=[[1.0], 2.0], shape=[2]), b"", "tensor parsing error: x"),
        (x(data=[10**400]), b"", "Number too big"),
        (x(data=["a"]), b"", "is not of expected type: float"),
        (x(parameters=[]), b"", "parameters is missing or invalid"),
        (x(data=None, parameters={"shared_memory_region": "a"}), b"", "data must be a list"),
        ({"parameters": 1} | x(), b"", "parameters must be an object. Received: 1"),
        ({"parameters": {"signature_name": 1}} | x(), b"", "'signature_name' key must be a string"),
        ({"parameters": {"signature_name": "z"}} | x(), b"", 'Serving signature name: "z" not found'),
        ({"id": 1} | x(), b"", "id must be a string. Received: 1"),
        ({"outputs": {}} | x(), b"", "outputs must be a list"),
        ({"outputs": ["y"]} | x(), b"", "name is missing or invalid"),
        ({"outputs": [{"name": "z"}]} | x(), b"", "output tensor alias not found in signature: z"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]} | x(), b"", "duplicate output"),
        (
            {"outputs": [{"name": "y", "parameters": {"classification": 3}}]} | x(),
            b"",
            "output y: parameter classification is not supported",
        ),
        (BINARY, b"", "binary_data_size must be 0 to 0, the bytes that are left. Received: 4"),
        (BINARY, bytes(3), "binary_data_size must be 0 to 3"),
        (BINARY, bytes(5), "1 bytes of binary data belong to no input"),
        (x(), bytes(4), "4 bytes of binary data belong to no input"),
        (x(data=None, parameters={"binary_data_size": -1}), bytes(4), "binary_data_size must be 0 to 4"),
        (x(data=None, parameters={"binary_data_size": True}), bytes(4), "binary_data_size must be 0 to 4"),
        (x(data=None, shape=[3], parameters={"binary_data_size": 4}), bytes(4), "4 bytes for 3 elements"),
        (
            x(data=None, shape=[2**62] * 8, parameters={"binary_data_size": 4}),
            bytes(4),
            "4 bytes for",
        ),
        (
            x(data=None, datatype="BOOL", shape=[4], parameters={"binary_data_size": 4}),
            b"\0\1\2\1",
            "must be 0 or 1. Received: 2",
        ),
        (x(**BYTES), bytes(8), "Expects arg[0] to be float but string is provided"),
        (x(**BYTES | {"shape": [2**60]}), bytes(8), "elements. Received: 2 or more in binary data"),
        (x(**BYTES | {"shape": [1]}), bytes(8), "has 1 elements. Received: 2 or more"),
        (x(**BYTES), struct.pack("<I", 5) + b"abcd", "an element of 5 bytes where 4 are left"),
        (x(**BYTES), struct.pack("<I", 1) + b"abcd", "the length of an element has 4 bytes"),
    ],
)
def test_a_malformed_body_is_refused(server, body, binary, text):
    content = json.dumps(body).encode()
    headers = {"Inference_Header_Content_Length": str(len(content))} if binary else {}
    status, _, answer = post(server, "/v2/models/hp/infer", content + binary, **headers)
    assert (status, list(json.loads(answer))) == (400, ["error"])
    assert text in json.loads(answer)["error"]


WHOLE = json.dumps(x()).encode()
LENGTH = "Inference-Header-Content-Length"


@pytest.mark.parametrize(
    ("content", "headers", "status", "text"),
    [
        (b"", {}, 400, "The document is empty"),
        (b"\xff\xfe", {}, 400, "JSON Parse error"),
        (WHOLE[:-1], {}, 400, "JSON Parse error"),
        (b'{"inputs":' + b"[" * 100_000, {}, 400, "nested too deeply"),
        (b'{"inputs": [{"name": "x", "data":' + b"[" * 100_000, {}, 400, "nested too deeply"),
        (b'{"inputs": [' + b"1" * 5000 + b"]}", {}, 400, "Number too big"),
        (WHOLE, {LENGTH: "-1"}, 400, "must be 0 to"),
        (WHOLE, {LENGTH: "9" * 5000}, 400, "must be 0 to"),
        (WHOLE, {LENGTH: "²"}, 400, "must be 0 to"),
        (WHOLE, {LENGTH: str(len(WHOLE) + 1)}, 400, "must be 0 to"),
        (WHOLE, {LENGTH: "3"}, 400, "JSON Parse error"),
        (WHOLE, {"Content-Encoding": "gzip"}, 400, "The document is empty"),
        (gzip.compress(bytes(MAX_BODY_BYTES + 1), mtime=0), {"Content-Encoding": "gzip"}, 413, "at most"),
        (zlib.compress(bytes(MAX_BODY_BYTES + 1)), {"Content-Encoding": "deflate"}, 413, "at most"),
        (b"{}", {"Content-Length": str(MAX_BODY_BYTES + 1)}, 413, "at most"),
    ],
)
def test_a_malformed_request_is_refused(server, content, headers, status, text):
    answered, _, answer = post(server, "/v2/models/hp/infer", content, **headers)
    assert (answered, text in json.loads(answer)["error"]) == (status, True), answer


def test_a_short_list_can_not_ask_for_many_rows(server):
    rows = {"shape": [2**40, 28, 28, 1], "datatype": "FP32", "data": [1.0]}
    status, _, answer = post(
        server, "/v2/models/mnist/infer", json.dumps({"inputs": [{"name": "image"} | rows]})
    )
    assert (status, "at most 1024 rows" in json.loads(answer)["error"]) == (400, True)


@pytest.mark.parametrize(
    "path", ["/v2/models", "/v2/models/hp/infer/", "/v2/nothing", "/v2/models/none/infer"]
)
def test_an_unknown_path_or_model_is_not_found(server, path):
    status, _, answer = post(server, path, WHOLE)
    assert (status, list(json.loads(answer))) == (404, ["error"])


def test_a_server_is_ready_once_every_model_has_a_version_and_until_it_ends(tmp_path, half_plus_two):
    flags = {"model_name": "hp", "model_base_path": str(tmp_path)}
    with (
        in_process(**flags) as (server, await_),
        contextlib.closing(InferenceServerClient(f"127.0.0.1:{server.rest_port}")) as triton,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):

        def healthy():
            request = health_pb2.HealthCheckRequest()
            return health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status == 1

        assert (triton.is_server_live(), triton.is_server_ready(), healthy()) == (True, False, False)
        (tmp_path / "124").symlink_to(half_plus_two / "124")
        wait_until(healthy)
        assert triton.is_server_ready()
        (tmp_path / "124").unlink()  # a model without a version on disk does not make the others unready
        await_(server.manager.poll())
        assert (triton.is_server_ready(), healthy()) == (True, True)
        await_(server.calls.close(1))
        assert (triton.is_server_live(), triton.is_server_ready()) == (True, False)
