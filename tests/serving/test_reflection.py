"""gRPC server reflection, asked as grpcurl asks it."""

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.serving.conftest import in_process

HEALTH = "grpc.health.v1.Health"
PREDICTION, MODELS = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"


@pytest.fixture(scope="module")
def channel(looping):
    with (
        in_process(model_name="looping", model_base_path=str(looping)) as (server, _),
        grpc.insecure_channel(f"localhost:{server.port}") as opened,
    ):
        yield opened


def ask(channel, **question):
    """Return the response to one question."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(**question)
    return next(stub.ServerReflectionInfo(iter([request]), timeout=30))


def pool_of(channel, symbol):
    """Return the descriptors that describe a symbol, each after those it imports, without any other source."""
    response = ask(channel, file_containing_symbol=symbol).file_descriptor_response
    files = {}
    for content in response.file_descriptor_proto:
        file = descriptor_pb2.FileDescriptorProto.FromString(content)
        files[file.name] = file
    pool, added = descriptor_pool.DescriptorPool(), set()

    def add(name):
        if name not in added:
            added.add(name)
            for dependency in files[name].dependency:
                add(dependency)
            pool.Add(files[name])

    for name in files:
        add(name)
    return pool


def test_services_are_listed(channel):
    names = {service.name for service in ask(channel, list_services="").list_services_response.service}
    texts = "keras_recipes.serving.TextService"
    assert names == {PREDICTION, MODELS, texts, HEALTH, "grpc.reflection.v1alpha.ServerReflection"}


@pytest.mark.parametrize(
    ("service", "methods"),
    [
        (PREDICTION, ["Classify", "GetModelMetadata", "MultiInference", "Predict", "Regress"]),
        (MODELS, ["GetModelStatus", "HandleReloadConfigRequest"]),
        (HEALTH, ["Check", "List", "Watch"]),
    ],
)
def test_services_are_described(channel, service, methods):
    found = pool_of(channel, service).FindServiceByName(service)
    assert sorted(method.name for method in found.methods) == methods


def test_a_method_can_be_called_with_nothing_but_reflection(channel):
    method = pool_of(channel, MODELS).FindServiceByName(MODELS).methods_by_name["GetModelStatus"]
    request = message_factory.GetMessageClass(method.input_type)(model_spec={"name": "looping"})
    content = channel.unary_unary(f"/{MODELS}/GetModelStatus")(request.SerializeToString(), timeout=30)
    answer = message_factory.GetMessageClass(method.output_type).FromString(content)
    assert [status.version for status in answer.model_version_status] == [1]


def test_an_unknown_symbol_is_not_found(channel):
    assert ask(channel, file_containing_symbol="no.Service").error_response.error_code == 5
