"""What a client sees, of the embedded server and of a real TensorFlow Serving.

Texts are those of TensorFlow Serving 2.20. Where the embedded server is stricter, only the code is compared.
"""

import base64
import json
import urllib.error
import urllib.request

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.data.images import MNIST_SHAPE, open_source
from serving import protocol
from serving.client import AsyncClient, ServingError
from serving.protocol import MODELS, PREDICTION

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
FAILED = grpc.StatusCode.FAILED_PRECONDITION


def post(server, path, body):
    """Post a body and return the HTTP status and the decoded answer."""
    return get(server, path, body if isinstance(body, bytes) else json.dumps(body).encode())


def get(server, path, data=None):
    """Return the HTTP status and the decoded answer; with data it is posted."""
    try:
        with urllib.request.urlopen(f"{server.rest}{path}", data, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def raw_call(server, path, request):
    """Call a method with a message, or with any bytes."""
    content = request if isinstance(request, bytes) else request.SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        return channel.unary_unary(path)(content, timeout=10)


def test_outputs_equal_the_keras_models_on_1000_images_by_grpc_and_rest(server, client, run):
    digits = open_source("digits", MNIST_SHAPE).train[np.arange(1000)]
    images = digits.images.astype(np.float32)
    files = [tf.io.encode_png(image).numpy() for image in digits.images]
    expected = keras.models.load_model(run.model_path).predict(images, verbose=0)
    by_grpc = client.predict("mnist", image=images)
    assert by_grpc["probabilities"].dtype == np.float32
    assert by_grpc["label"].dtype == np.int64
    np.testing.assert_allclose(by_grpc["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(by_grpc["label"], expected.argmax(axis=1))
    encoded = client.predict("mnist", signature="encoded", image_bytes=files)
    np.testing.assert_allclose(encoded["probabilities"], expected, atol=1e-5)
    as_json = [{"b64": base64.b64encode(file).decode()} for file in files]
    for body in ({"instances": images.tolist()}, {"instances": as_json, "signature_name": "encoded"}):
        _, answer = post(server, "/v1/models/mnist:predict", body)
        probabilities = [row["probabilities"] for row in answer["predictions"]]
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"model": "foo"}, NOT_FOUND, "Servable not found for request: Latest(foo)"),
        ({"version": 7}, NOT_FOUND, "Servable not found for request: Specific(mnist, 7)"),
        ({"label": "x"}, INVALID, "Unrecognized servable version label: x"),
        ({"model": ""}, INVALID, "ModelSpec has no name specified."),
        ({"signature": "x"}, FAILED, 'Serving signature key "x" not found.'),
        (
            {"outputs": ["z"]},
            INVALID,
            "output tensor alias not found in signature: z Outputs expected to be in the set {label,probabilities}.",
        ),
    ],
)
def test_unknown_names_and_versions_are_refused_in_tf_servings_words(client, images, change, code, text):
    arguments = {"model": "mnist", "image": images, **change}
    with pytest.raises(ServingError) as refused:
        client.predict(**arguments)
    assert (refused.value.code, refused.value.text) == (code, text)
    assert client.predict("mnist", image=images)["label"].shape == (5,)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            {},
            "input size does not match signature: 0!=1 len({}) != len({image}). "
            "Sent extra: {}. Missing but required: {image}.",
        ),
        (
            {"picture": np.zeros((1, 28, 28, 1), np.float32)},
            "Signature input alias: image(feed name: serving_default_image:0) not found in request and no default "
            "value provided. Inputs expected to be in the request {picture}, or default input alias set: ",
        ),
        ({"image": np.zeros((1, 28, 28, 1))}, "Expects arg[0] to be float but double is provided"),
        ({"image": np.array([b"text"])}, "Expects arg[0] to be float but string is provided"),
    ],
)
def test_inputs_of_other_names_and_types_are_refused_in_tf_servings_words(client, inputs, text):
    with pytest.raises(ServingError) as refused:
        client.predict("mnist", **inputs)
    assert (refused.value.code, refused.value.text) == (INVALID, text)


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        ("serving_default", {"image": np.zeros((1, 28, 28), np.float32)}),
        ("serving_default", {"image": np.zeros((28, 28), np.float32)}),
        ("serving_default", {"image": np.float32(1)}),
        ("serving_default", {"image": np.zeros((1, 28, 28, 3), np.float32)}),
        ("serving_default", {"image": np.zeros((0, 28, 28, 1), np.float32)}),
        ("serving_default", {"image": np.full((1, 28, 28, 1), np.nan, np.float32)}),
        ("serving_default", {"image": np.full((1, 28, 28, 1), np.inf, np.float32)}),
        ("encoded", {"image_bytes": np.array([b"no image"], np.object_)}),
        ("encoded", {"image_bytes": np.array([b""], np.object_)}),
        ("encoded", {"image_bytes": np.array([], np.object_)}),
        ("encoded", {"image_bytes": b"a scalar"}),
    ],
)
def test_values_the_model_cannot_take_are_refused_and_the_next_answer_is_right(
    client, images, signature, inputs
):
    before = client.predict("mnist", image=images)
    with pytest.raises(ServingError) as refused:
        client.predict("mnist", signature=signature, **inputs)
    assert refused.value.code is INVALID
    after = client.predict("mnist", image=images)
    np.testing.assert_array_equal(before["probabilities"], after["probabilities"])


def test_a_tensor_that_contradicts_itself_is_a_parsing_error(server):
    request = protocol.PredictRequest()
    request.model_spec.name = "mnist"
    tensor = request.inputs["image"]
    tensor.dtype = 1
    for size in (1, 28, 28, 1):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = b"123"
    with pytest.raises(grpc.RpcError) as refused:
        raw_call(server, PREDICTION + "Predict", request)
    assert (refused.value.code(), refused.value.details()) == (INVALID, "tensor parsing error: image")


def test_a_value_list_that_is_too_short_repeats_its_last_value(server, client):
    request = protocol.PredictRequest()
    request.model_spec.name = "mnist"
    tensor = request.inputs["image"]
    tensor.dtype = 1
    for size in (1, 28, 28, 1):
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.append(7.0)
    answer = protocol.PredictResponse.FromString(raw_call(server, PREDICTION + "Predict", request))
    expected = client.predict("mnist", image=np.full((1, 28, 28, 1), 7, np.float32))
    assert list(answer.outputs["probabilities"].float_val) == pytest.approx(
        expected["probabilities"][0].tolist()
    )
    assert not answer.outputs["probabilities"].tensor_content
    assert answer.model_spec.version.value == 1


@pytest.mark.parametrize(
    ("path", "request_", "code", "text"),
    [
        (PREDICTION + "Predict", protocol.PredictRequest(), INVALID, "Missing ModelSpec"),
        (MODELS + "GetModelStatus", protocol.GetModelStatusRequest(), INVALID, "Missing ModelSpec"),
        (
            MODELS + "GetModelStatus",
            protocol.GetModelStatusRequest(model_spec={"name": "foo"}),
            NOT_FOUND,
            "Could not find any versions of model foo",
        ),
        (
            MODELS + "GetModelStatus",
            protocol.GetModelStatusRequest(model_spec={"name": "mnist", "version": {"value": 7}}),
            NOT_FOUND,
            "Could not find version 7 of model mnist",
        ),
        (
            PREDICTION + "GetModelMetadata",
            protocol.GetModelMetadataRequest(model_spec={"name": "mnist"}),
            INVALID,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            PREDICTION + "GetModelMetadata",
            protocol.GetModelMetadataRequest(model_spec={"name": "mnist"}, metadata_field=["x"]),
            INVALID,
            "Metadata field x is not supported",
        ),
    ],
)
def test_other_requests_are_refused_in_tf_servings_words(server, path, request_, code, text):
    with pytest.raises(grpc.RpcError) as refused:
        raw_call(server, path, request_)
    assert (refused.value.code(), refused.value.details()) == (code, text)


def test_classify_needs_a_classification_signature(server):
    request = protocol.message("tensorflow.serving.ClassificationRequest")(model_spec={"name": "mnist"})
    request.input.example_list.examples.add()
    with pytest.raises(grpc.RpcError) as refused:
        raw_call(server, PREDICTION + "Classify", request)
    assert refused.value.code() is INVALID
    assert "No classification inputs found in SignatureDef" in refused.value.details()


def test_status_and_metadata(client):
    assert client.status("mnist")[1].state == "AVAILABLE"
    assert client.resolve("mnist") == 1
    signatures = client.metadata("mnist")
    assert signatures["serving_default"].inputs["image"].shape == (-1, 28, 28, 1)
    assert signatures["encoded"].inputs["image_bytes"].data_type == 7
    assert set(signatures["serving_default"].outputs) == {"probabilities", "label"}


def test_a_single_output_can_be_requested(client, images):
    assert list(client.predict("mnist", image=images, outputs=["label"])) == ["label"]


def test_the_async_client_returns_the_same(server, client, images):
    import asyncio

    async def ask():
        async with AsyncClient(server.address, max_batch_size=2) as twin:
            with pytest.raises(ServingError, match="NOT_FOUND"):
                await twin.predict("foo", image=images)
            return (
                await twin.predict("mnist", image=images),
                await twin.status("mnist"),
                await twin.metadata("mnist"),
                await twin.resolve("mnist"),
            )

    answer, status, metadata, version = asyncio.run(ask())
    # Cut into pieces of 2, 2 and 1 and put together again.
    np.testing.assert_allclose(
        answer["probabilities"], client.predict("mnist", image=images)["probabilities"], atol=1e-6
    )
    assert status == client.status("mnist")
    assert metadata == client.metadata("mnist")
    assert version == 1


def test_rest_rows_and_columns_give_the_same_numbers(server, images):
    status, rows = post(server, "/v1/models/mnist:predict", {"instances": images.tolist()})
    assert status == 200
    _, named = post(
        server, "/v1/models/mnist/versions/1:predict", {"instances": [{"image": i} for i in images.tolist()]}
    )
    _, columns = post(server, "/v1/models/mnist:predict", {"inputs": {"image": images.tolist()}})
    assert named == rows
    assert columns["outputs"]["label"] == [row["label"] for row in rows["predictions"]]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/models/foo:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(foo)"),
        (
            "/v1/models/mnist/versions/7:predict",
            {"instances": [1]},
            404,
            "Servable not found for request: Specific(mnist, 7)",
        ),
        (
            "/v1/models/mnist/labels/x:predict",
            {"instances": [1]},
            400,
            "Unrecognized servable version label: x",
        ),
        (
            "/v1/models/mnist:predict",
            {"instances": [1], "signature_name": "x"},
            400,
            'Serving signature name: "x" not found in signature def',
        ),
        ("/v1/models/mnist:predict", b"{", 400, "JSON Parse"),
        ("/v1/models/mnist:predict", [], 400, ""),
        ("/v1/models/mnist:predict", {}, 400, ""),
        ("/v1/models/mnist:predict", {"instances": []}, 400, ""),
        ("/v1/models/mnist:predict", {"instances": [[1, 2], [3]]}, 400, ""),
        ("/v1/models/mnist:predict", {"instances": ["text"]}, 400, ""),
        ("/v1/models/mnist:predict", {"instances": [1.0]}, 400, ""),
        ("/v1/models/mnist:predict", {"instances": [{"picture": 1}]}, 400, ""),
        ("/v1/models/mnist:predict", {"signature_name": "encoded", "instances": [{"b64": "!"}]}, 400, ""),
    ],
)
def test_rest_refuses_with_a_status_and_a_text(server, path, body, status, text):
    answered, answer = post(server, path, body)
    assert answered == status
    assert text in answer["error"]


def test_rest_returns_status_and_metadata(server):
    status, answer = get(server, "/v1/models/mnist")
    assert status == 200
    assert answer["model_version_status"][0]["version"] == "1"
    assert answer["model_version_status"][0]["state"] == "AVAILABLE"
    _, answer = get(server, "/v1/models/mnist/metadata")
    inputs = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["image"]["dtype"] == "DT_FLOAT"
    assert get(server, "/v1/models/foo")[0] == 404
