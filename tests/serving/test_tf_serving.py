"""The embedded server answers what a real TensorFlow Serving 2.20 answered.

The tables are answers that a real server gave. Where there is a folder of recorded requests beside this repository
(`RECORDED`), all of them are replayed.
"""

import base64
import http.client
import json
from pathlib import Path

import grpc
import pytest
import tensorflow as tf

from serving import protocol
from serving.protocol import MODELS, PREDICTION
from tests.processes import ROOT
from tests.serving.conftest import in_process

RECORDED = ROOT.parent / "shared" / "tf_serving"
CODES, TEXTS = 0.97, 0.8
"""Least parts of the recorded requests with the same status code, and with the same text too."""
CONFIG = """
model_config_list {{
  config {{ name: "hp" base_path: "{hp}" model_platform: "tensorflow" model_version_policy {{ all {{}} }}
    version_labels {{ key: "stable" value: 123 }} version_labels {{ key: "canary" value: 124 }} }}
  {more}
}}
"""


@pytest.fixture(scope="module")
def served(half_plus_two, tmp_path_factory):
    """A server of the model."""
    config = tmp_path_factory.mktemp("config") / "models.config"
    config.write_text(CONFIG.format(hp=half_plus_two, more=""))
    with in_process(model_config_file=str(config)) as (server, _):
        yield server


def rest(server, method, path, body=None, headers=None):
    """Return the HTTP status and the body of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def call(server, path, content):
    """Return the status code, the error's text and the response of a call by gRPC."""
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        try:
            return "OK", "", channel.unary_unary(path)(content, timeout=60)
        except grpc.RpcError as error:
            return error.code().name, error.details(), b""


ROWS = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "
EXAMPLES = '"signature_name": "regress_x_to_y", "examples"'


@pytest.mark.parametrize(
    ("verb", "body", "answer"),
    [
        ("predict", '{"instances": [1.0, 2, 5.0]}', {"predictions": [2.5, 3.0, 4.5]}),
        ("predict", '{"instances": [[1.1], [3.3]]}', {"predictions": [[2.55], [3.65]]}),
        ("predict", '{"instances": [{"x": 2.0}]}', {"predictions": [3.0]}),
        ("predict", '{"inputs": 1.0}', {"outputs": 2.5}),
        ("predict", '{"inputs": {"x": [2.0], "y": 1}}', {"outputs": [3.0]}),
        ("predict", '{"inputs": [[1, 2]]}', {"outputs": [[2.5, 3.0]]}),
        ("predict", '{"instances": [[1, 2], [3]]}', ROWS.format(1) + "Expecting tensor size: 2 but got: 1"),
        (
            "predict",
            '{"instances": [[[1, 2]], [[3], [4]]]}',
            ROWS.format(1) + "Expecting shape [1,2] but got: [2,1]",
        ),
        (
            "predict",
            '{"instances": [[1, [2]]]}',
            ROWS.format(0) + "Encountered list at unexpected level: 1 expected < 1",
        ),
        (
            "predict",
            '{"instances": ["a"]}',
            ROWS.format(0) + 'JSON Value: "a" Type: String is not of expected type: float',
        ),
        (
            "predict",
            '{"instances": [true]}',
            ROWS.format(0) + "JSON Value: true Type: True is not of expected type: float",
        ),
        (
            "predict",
            '{"instances": [16777217]}',
            ROWS.format(0) + "Cannot convert JSON value: 16777217 to float without loss of precision.",
        ),
        (
            "predict",
            '{"instances": [{"z": 1}]}',
            ROWS.format("0 key: z") + "JSON object: does not have named input: z",
        ),
        (
            "predict",
            '{"instances": [1, {"x": 1}]}',
            "Expecting value/list but got object at item 1 of input list",
        ),
        ("predict", '{"inputs": {"z": 1}}', "Missing named input: x in 'inputs' object."),
        ("predict", "{}", "Missing 'inputs' or 'instances' key"),
        (
            "predict",
            '{"instances": 1}',
            "JSON Value: {\n    \"instances\": 1\n} Excepting 'instances' to be an list/array",
        ),
        ("predict", "[]", "JSON Value: [] Is not object"),
        (
            "predict",
            '{"a" 1}',
            "JSON Parse error: Missing a colon after a name of object member. at offset: 5",
        ),
        (
            "predict",
            '{"a": [1 2]}',
            "JSON Parse error: Missing a comma or ] after an array element. at offset: 9",
        ),
        (
            "predict",
            '{"ä": 1 2}',
            "JSON Parse error: Missing a comma or } after an object member. at offset: 9",
        ),
        ("predict", "  ", "JSON Parse error: The document is empty. at offset: 2"),
        (
            "predict",
            '{"instances": [1], "signature_name": null}',
            'JSON Value: {\n    "instances": [1],\n    "signature_name": null\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        ("regress", f'{{{EXAMPLES}: [{{"x": [2.0]}}, {{"x": 3.0}}]}}', {"results": [3.0, 3.5]}),
        (
            "regress",
            f'{{"context": {{"x": 4.0}}, {EXAMPLES}: [{{}}, {{"x": 2.0}}]}}',
            {"results": [4.0, 3.0]},
        ),
        ("regress", f"{{{EXAMPLES}: [1]}}", "Example must be JSON object but got JSON Number"),
        (
            "regress",
            f'{{{EXAMPLES}: [{{"x": null}}]}}',
            "Feature: x has element with unexpected JSON type: Null",
        ),
        (
            "regress",
            f'{{{EXAMPLES}: [{{"x": [1.0, "a"]}}]}}',
            "Unexpected element type in feature: x expecting type: float",
        ),
        (
            "classify",
            '{"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]}',
            {"results": [[["", 3.0]]]},
        ),
    ],
)
def test_bodies(served, verb, body, answer):
    status, text = rest(served, "POST", f"/v1/models/hp:{verb}", body.encode())
    expected = (400, {"error": answer}) if isinstance(answer, str) else (200, answer)
    assert (status, json.loads(text)) == expected


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models/hp", 200, '"version": "124"'),
        ("GET", "/V1/Models/hp/versions/123", 200, '"version": "123"'),
        ("GET", "/v1/models/h%70/labels/unknown", 200, '"version": "124"'),
        ("GET", "/v1/models/hp/labels/stable/metadata", 200, '"version": "123", "signature_name": ""'),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/hp/", 400, "Malformed request: GET /v1/models/hp/"),
        ("GET", "/v1/models/../models/hp", 400, "Malformed request: GET /v1/models/../models/hp"),
        ("POST", "/v1/models/hp/versions/-1:predict", 400, "Malformed request: POST"),
        ("POST", "/v1/models/hp/versions/1/labels/x:predict", 400, "Malformed request: POST"),
        ("POST", "/v1/models/hp/metadata", 400, "Malformed request: POST /v1/models/hp/metadata"),
        ("OPTIONS", "/v1/models/hp", 400, "Malformed request: OPTIONS /v1/models/hp"),
        ("HEAD", "/v1/models/hp", 400, ""),
        ("GET", "/v1", 404, "<H1>Not Found</H1>"),
        ("GET", "/v3/models/hp", 404, "<H1>Not Found</H1>"),
    ],
)
def test_paths(served, method, path, status, text):
    answered, content = rest(served, method, path)
    assert (answered, text in content) == (status, True), content


def example(**features):
    return {"features": {"feature": {name: {"float_list": {"value": [x]}} for name, x in features.items()}}}


def task(signature, method, model="hp"):
    return {
        "model_spec": {"name": model, "signature_name": signature},
        "method_name": f"tensorflow/serving/{method}",
    }


REGRESS, CLASSIFY = task("regress_x_to_y", "regress"), task("classify_x_to_y", "classify")


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        ([], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ([task("", "regress", model="")], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            [REGRESS, task("", "regress", model="")],
            "INVALID_ARGUMENT",
            "Found ModelSpec with an empty model name.",
        ),
        ([REGRESS, REGRESS], "INVALID_ARGUMENT", "Duplicate evaluation of signature: regress_x_to_y"),
        ([task("zz", "regress")], "INVALID_ARGUMENT", "Requested signature not found in model graph: zz"),
        (
            [task("regress_x_to_y", "x")],
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/x",
        ),
        (
            [REGRESS, task("regress_x2_to_y3", "regress")],
            "INVALID_ARGUMENT",
            "Input tensor must be the same for all Signatures.",
        ),
        (
            [task("regress_x2_to_y3", "regress")],
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but string is provided",
        ),
    ],
)
def test_refused_multi_inference(served, tasks, code, text):
    request = protocol.message("tensorflow.serving.MultiInferenceRequest")(
        tasks=tasks, input={"example_list": {"examples": [example(x=2)]}}
    )
    assert call(served, PREDICTION + "MultiInference", request.SerializeToString())[:2] == (code, text)


def test_multi_inference_with_a_context(served):
    request = protocol.message("tensorflow.serving.MultiInferenceRequest")(
        tasks=[REGRESS, CLASSIFY],
        input={"example_list_with_context": {"context": example(x=4), "examples": [{}, example(x=2)]}},
    )
    code, _, content = call(served, PREDICTION + "MultiInference", request.SerializeToString())
    assert code == "OK"
    first, second = protocol.message("tensorflow.serving.MultiInferenceResponse").FromString(content).results
    assert [each.value for each in first.regression_result.regressions] == [4, 3]
    assert [row.classes[0].score for row in second.classification_result.classifications] == [4, 3]
    assert (second.model_spec.signature_name, second.model_spec.version.value) == ("classify_x_to_y", 124)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"dtype": 1, "float_val": [2], "tensor_shape": {"dim": [{"size": 3}]}}, [3, 3, 3]),
        ({"dtype": 1, "tensor_shape": {"dim": [{"size": 1}, {"size": 1}]}}, [2]),
        ({"dtype": 1, "float_val": [4], "tensor_shape": {"unknown_rank": True}}, [4]),
        ({"dtype": 20}, "Expects arg[0] to be float but resource is provided"),
        ({"dtype": 99}, "tensor parsing error: x"),
    ],
)
def test_tensors(served, fields, answer):
    request = protocol.PredictRequest(model_spec={"name": "hp"}, inputs={"x": fields}, output_filter=["y"])
    code, text, content = call(served, PREDICTION + "Predict", request.SerializeToString())
    if isinstance(answer, str):
        assert (code, text) == ("INVALID_ARGUMENT", answer)
    else:
        assert list(protocol.PredictResponse.FromString(content).outputs["y"].float_val) == answer


def test_status_by_grpc_ignores_labels_and_a_message_that_is_none_is_internal(served):
    request = protocol.GetModelStatusRequest(model_spec={"name": "hp", "version_label": "unknown"})
    _, _, content = call(served, MODELS + "GetModelStatus", request.SerializeToString())
    versions = protocol.GetModelStatusResponse.FromString(content).model_version_status
    assert [status.version for status in versions] == [124, 123]
    nameless = protocol.GetModelStatusRequest(model_spec={"signature_name": "x"}).SerializeToString()
    assert call(served, MODELS + "GetModelStatus", nameless)[:2] == (
        "NOT_FOUND",
        "Could not find any versions of model ",
    )
    assert call(served, PREDICTION + "Predict", b"\xff\xff\xff")[:2] == ("INTERNAL", "")


def alike(path: str, real: str, ours: str) -> bool:
    """Return whether two answers say the same; the numbers of trained models differ."""
    try:
        theirs, mine = json.loads(real), json.loads(ours)
    except ValueError:
        return real == ours
    return theirs == mine or ("/hp" not in path and "error" not in theirs and theirs.keys() == mine.keys())


def write_score(folder: Path) -> None:
    """Write a model with the signature `score` of a language model."""

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def score(text):
        sizes = tf.strings.length(text)
        return {"log_likelihood": -tf.cast(sizes, tf.float32), "token_count": sizes}

    module = tf.Module()
    module.score = score
    tf.saved_model.save(module, str(folder), signatures={"score": score})


def lines_of(name: str) -> list[dict]:
    return [json.loads(line) for line in (RECORDED / name).read_text().splitlines()]


@pytest.mark.skipif(not RECORDED.is_dir(), reason="no recorded requests beside this repository")
def test_recorded_requests(half_plus_two, exported, tmp_path):
    write_score(tmp_path / "lm" / "1")
    paths = {"cnn": exported.parent, "mnist": exported.parent, "lm": tmp_path / "lm"}
    entry = 'config {{ name: "{}" base_path: "{}" model_platform: "tensorflow" }}'
    more = "".join(entry.format(*each) for each in paths.items())
    config = tmp_path / "models.config"
    config.write_text(CONFIG.format(hp=half_plus_two, more=more))
    codes, texts = [], []
    with in_process(model_config_file=str(config), allow_version_labels_for_unavailable_models=True) as (
        server,
        _,
    ):
        for row in lines_of("rest.jsonl"):
            body = row["body"] and base64.b64decode(row["body"])
            status, text = rest(server, row["method"], row["path"], body, row["headers"])
            codes.append(status == row["status"])
            texts.append(codes[-1] and alike(row["path"], row["answer"], text))
        for row in lines_of("grpc.jsonl"):
            code, text, _ = call(server, row["method"], base64.b64decode(row["request"]))
            codes.append(code == row["code"])
            texts.append(codes[-1] and (code == "OK" or text == row["text"]))
    print(f"{len(codes)} requests: code equal {sum(codes)}, text too {sum(texts)}")
    assert sum(codes) >= CODES * len(codes)
    assert sum(texts) >= TEXTS * len(texts)
