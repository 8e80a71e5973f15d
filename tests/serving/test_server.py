"""The embedded server itself: version swaps, draining, encryption, ports."""

import contextlib
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import protocol
from serving.client import TLS, Client, ServingError
from serving.protocol import PREDICTION
from tests.processes import assert_refused, run_command, start_command, wait_until
from tests.serving.certificates import certificates, ssl_config
from tests.serving.conftest import free_port, start_server


@pytest.mark.parametrize("last", [6, pytest.param(21, marks=pytest.mark.slow)])
def test_versions_are_swapped_under_load_without_a_failed_request(models, tmp_path, callers, last):
    broken = last // 2
    server = start_server(
        tmp_path / "log", "--model_name=mnist", f"--model_base_path={models}", "--max_num_load_retries=0"
    )
    loads = callers(server.address, 8)
    good, client = models / "1", Client(server.address)
    for version in range(2, last + 1):
        new = models / f".new-{version}"
        shutil.copytree(good, new)
        if version == broken:
            (new / "saved_model.pb").write_bytes(b"broken")
        new.rename(models / str(version))
        if version == broken:
            wait_until(
                lambda: (
                    client.status("mnist").get(broken) is not None
                    and client.status("mnist")[broken].state == "END"
                )
            )
            assert client.status("mnist")[broken].error_code != 0
            assert client.status("mnist")[broken - 1].state == "AVAILABLE"
        else:
            wait_until(
                lambda v=version: (
                    client.status("mnist").get(v) is not None
                    and client.status("mnist")[v].state == "AVAILABLE"
                )
            )
            wait_until(
                lambda v=version: (
                    client.status("mnist").get(v - 1) is None or client.status("mnist")[v - 1].state == "END"
                )
            )
    for caller in loads:
        caller.end()
    assert [caller.failures for caller in loads] == [[]] * 8
    assert all(caller.answers > 20 for caller in loads)
    client.close()
    assert server.stop() == 0


def test_sigterm_completes_accepted_requests_and_exits_with_0(models, tmp_path, callers):
    server = start_server(tmp_path / "log", "--model_name=mnist", f"--model_base_path={models}")
    loads = callers(server.address, 8, timeout=5)
    wait_until(lambda: all(caller.answers > 5 for caller in loads))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0
    for caller in loads:
        caller.done.set()
    for caller in loads:
        caller.end()
    # What came after the end was refused as UNAVAILABLE, which is safe to ask elsewhere; nothing else failed.
    assert {failure.code for caller in loads for failure in caller.failures} <= {grpc.StatusCode.UNAVAILABLE}


def test_a_second_ctrl_c_ends_it_at_once(looping, tmp_path):
    server = start_server(tmp_path / "log", "--model_name=m", f"--model_base_path={looping}")
    call = threading.Thread(target=ask_for_hours, args=(server.address,))
    call.start()
    time.sleep(0.5)  # most often the call is under way by then
    server.process.send_signal(signal.SIGINT)
    wait_until(lambda: "a second signal ends the server at once" in server.log.read_text())
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=15) == 130
    call.join()


def ask_for_hours(address):
    with Client(address, timeout=60) as client, contextlib.suppress(ServingError):
        client.predict("m", steps=np.array([2**31 - 1], np.int32))


def test_health_follows_the_server(models, tmp_path):
    server = start_server(tmp_path / "log", "--model_name=mnist", f"--model_base_path={models}")
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert (
            health.Check(health_pb2.HealthCheckRequest(), timeout=5).status
            == health_pb2.HealthCheckResponse.SERVING
        )
        states = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(states).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
        states.cancel()
    assert server.process.wait(timeout=30) == 0


CONFIG = """
model_config_list {{
  config {{
    name: "mnist" base_path: "{path}" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "canary" value: {canary} }}
  }}
}}
"""


def test_labels_policies_reload_and_metrics(models, tmp_path, images):
    shutil.copytree(models / "1", models / "2")
    shutil.copytree(models / "1", models / "3")
    config, monitoring = tmp_path / "models.config", tmp_path / "monitoring.config"
    config.write_text(CONFIG.format(path=models, canary=2))
    monitoring.write_text("prometheus_config { enable: true path: '/metrics' }")
    server = start_server(
        tmp_path / "log", f"--model_config_file={config}", f"--monitoring_config_file={monitoring}"
    )
    with Client(server.address) as client:
        assert sorted(client.status("mnist")) == [1, 2]
        for label in ("stable", "canary"):
            assert client.predict("mnist", label=label, image=images)["label"].shape == (5,)
        with pytest.raises(ServingError) as refused:
            client.reload(CONFIG.format(path=models, canary=7))
        assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert refused.value.text == (
            "Request to assign label to version 7 of model mnist, which is not currently available for inference"
        )
        assert client.predict("mnist", label="canary", image=images)["label"].shape == (5,)
        latest = f'model_config_list {{ config {{ name: "mnist" base_path: "{models}" model_platform: "tensorflow" }} }}'
        client.reload(latest)
        assert [n for n, s in client.status("mnist").items() if s.state == "AVAILABLE"] == [3]
        with pytest.raises(ServingError, match="Unrecognized servable version label: stable"):
            client.predict("mnist", label="stable", image=images)
        client.reload("model_config_list {}")
        wait_until(lambda: {state.state for state in client.status("mnist").values()} == {"END"})
        with pytest.raises(ServingError, match="Could not find base path"):
            client.reload(latest.replace(str(models), "/nowhere"))
        client.reload(latest)
        assert client.predict("mnist", image=images)["label"].shape == (5,)
    with urllib.request.urlopen(f"{server.rest}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert ':tensorflow:serving:request_count{model_name="mnist",status="OK"}' in text
    assert (
        ':tensorflow:serving:request_latency_bucket{API="Predict",entrypoint="GRPC",le="+Inf",model_name="mnist"}'
        in text
    )
    assert ":tensorflow:cc:saved_model:load_attempt_count" in text
    assert server.stop() == 0


def test_mutual_tls_lets_in_who_has_a_certificate(models, tmp_path, images):
    certificates(tmp_path)
    flags = ["--model_name=mnist", f"--model_base_path={models}", f"--ssl_config_file={ssl_config(tmp_path)}"]
    server = start_server(tmp_path / "log", *flags)
    ca, key, crt = ((tmp_path / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt"))
    with Client(server.address, tls=TLS(ca, key, crt)) as client:
        assert client.predict("mnist", image=images)["label"].shape == (5,)
    for tls in (TLS(ca), None):
        with Client(server.address, tls=tls, timeout=2) as client, pytest.raises(ServingError) as refused:
            client.predict("mnist", image=images)
        assert refused.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert server.stop() == 0


def test_a_unix_socket_serves_too(models, tmp_path, images):
    path = tmp_path / "socket"
    flags = ["--model_name=mnist", f"--model_base_path={models}", f"--grpc_socket_path={path}"]
    server = start_server(tmp_path / "log", *flags)
    with Client(f"unix:{path}") as client:
        assert client.predict("mnist", image=images)["label"].shape == (5,)
    assert server.stop() == 0


def test_a_port_in_use_is_refused(models, tmp_path):
    flags = ["--model_name=mnist", f"--model_base_path={models}"]
    server = start_server(tmp_path / "log", *flags)
    for flag in (
        f"--port={server.address.split(':')[1]}",
        f"--port=0 --rest_api_port={server.rest.split(':')[2]}",
    ):
        done = run_command("serving", "serve", *flags, *flag.split(), KERAS_BACKEND="none")
        assert_refused(
            done, "can't listen on 127.0.0.1:", f"{flag.split('=')[-2].split()[-1]} chooses another port"
        )
    assert server.stop() == 0


def test_the_server_waits_for_a_first_version_and_ignores_names_that_are_not_numbers(
    models, tmp_path, images
):
    (models / "1").rename(models / "best")
    server = start_server(tmp_path / "log", "--model_name=mnist", f"--model_base_path={models}")
    assert f"No versions of servable mnist found under base path {models}" in server.log.read_text()
    with Client(server.address) as client:
        with pytest.raises(ServingError, match=r"NOT_FOUND: Servable not found for request: Latest\(mnist\)"):
            client.predict("mnist", image=images)
        (models / "best").rename(models / "5")
        wait_until(lambda: "version 5 is served" in server.log.read_text())
        assert client.predict("mnist", image=images)["label"].shape == (5,)
    assert server.stop() == 0


def test_the_default_rest_port_is_used_if_it_is_free(models, tmp_path):
    flags = [f"--port={free_port()}", "--model_name=mnist", f"--model_base_path={models}"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # then somebody else has it
            taken.bind(("0.0.0.0", 8501))
            taken.listen()
        log = tmp_path / "log"
        process = start_command("serving", "serve", *flags, stderr=log)
        wait_until(lambda: log.exists() and "gRPC on port" in log.read_text())
        assert "no REST API: can't listen on 127.0.0.1:8501" in log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_calls_over_the_limit_are_refused_as_exhausted(models, tmp_path, callers):
    flags = ["--model_name=mnist", f"--model_base_path={models}", "--grpc_max_threads=1"]
    server = start_server(tmp_path / "log", *flags)
    loads = callers(server.address, 8)
    wait_until(lambda: any(caller.failures for caller in loads) and any(caller.answers for caller in loads))
    for caller in loads:
        caller.end()
    assert {str(failure) for caller in loads for failure in caller.failures} == {
        "RESOURCE_EXHAUSTED: Server Threadpool Exhausted"
    }
    assert server.stop() == 0


def classification_model(folder: Path) -> None:
    """Write a SavedModel with a classification and a regression signature, as estimators had them."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        examples = tf.compat.v1.placeholder(tf.string, [None], "examples")
        x = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]
        count = tf.shape(x)[0]
        classes = tf.tile(tf.constant([[b"low", b"high"]]), [count, 1])
        info = tf.compat.v1.saved_model.build_tensor_info
        define = tf.compat.v1.saved_model.build_signature_def
        signatures = {
            "serving_default": define(
                {"inputs": info(examples)},
                {"classes": info(classes), "scores": info(tf.concat([1 - x, x], 1))},
                "tensorflow/serving/classify",
            ),
            "twice": define(
                {"inputs": info(examples)}, {"outputs": info(2 * x)}, "tensorflow/serving/regress"
            ),
        }
        builder = tf.compat.v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_classify_regress_and_both_at_once(tmp_path):
    tf.get_logger().setLevel("ERROR")
    classification_model(tmp_path / "model" / "1")
    server = start_server(tmp_path / "log", "--model_name=m", f"--model_base_path={tmp_path / 'model'}")

    def call(method, request, answer):
        with grpc.insecure_channel(server.address) as channel:
            return answer.FromString(
                channel.unary_unary(PREDICTION + method)(request.SerializeToString(), timeout=10)
            )

    def named(name):
        return protocol.message(f"tensorflow.serving.{name}")

    def example(value):
        return {"features": {"feature": {"x": {"float_list": {"value": [value]}}}}}

    data = {"example_list": {"examples": [example(0.25), example(0.75)]}}
    answer = call(
        "Classify",
        named("ClassificationRequest")(model_spec={"name": "m"}, input=data),
        named("ClassificationResponse"),
    )
    rows = [[(c.label, c.score) for c in row.classes] for row in answer.result.classifications]
    assert rows == [[("low", 0.75), ("high", 0.25)], [("low", 0.25), ("high", 0.75)]]
    twice = {"name": "m", "signature_name": "twice"}
    answer = call(
        "Regress", named("RegressionRequest")(model_spec=twice, input=data), named("RegressionResponse")
    )
    assert [row.value for row in answer.result.regressions] == [0.5, 1.5]
    tasks = [
        {"model_spec": {"name": "m"}, "method_name": "tensorflow/serving/classify"},
        {"model_spec": twice, "method_name": "tensorflow/serving/regress"},
    ]
    answer = call(
        "MultiInference",
        named("MultiInferenceRequest")(tasks=tasks, input=data),
        named("MultiInferenceResponse"),
    )
    assert answer.results[0].classification_result.classifications[1].classes[1].score == 0.75
    assert answer.results[1].regression_result.regressions[1].value == 1.5
    with pytest.raises(grpc.RpcError, match="Input is empty"):
        call("Regress", named("RegressionRequest")(model_spec=twice), named("RegressionResponse"))
    body = b'{"examples": [{"x": 0.25}], "signature_name": "twice"}'
    with urllib.request.urlopen(f"{server.rest}/v1/models/m:regress", body, timeout=10) as answer:
        assert answer.read() == b'{"results": [0.5]}'
    assert server.stop() == 0
