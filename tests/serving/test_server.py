"""The embedded server itself: version swaps, draining, batching, encryption, configuration."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
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
from serving.__main__ import spell_flags
from serving.client import TLS, Client, ServingError
from serving.protocol import PREDICTION
from serving.server.batching import Batcher
from serving.server.configs import (
    Batching,
    read_batching,
    read_credentials,
    read_metrics_path,
    read_model_config,
)
from serving.server.errors import ConfigError, StatusError
from serving.server.manager import versions_on_disk, wanted_versions
from serving.server.settings import ServerSettings
from tests.serving.conftest import ROOT, free_port, start_server


def wait_for(condition, seconds=30.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition was not met")


class Load(threading.Thread):
    """A client that sends requests until it is stopped, and records the errors."""

    def __init__(self, address, images, **how):
        super().__init__(daemon=True)
        self.client, self.images, self.how = Client(address), images, how
        self.answers, self.failures, self.done = 0, [], threading.Event()

    def run(self):
        while not self.done.is_set():
            try:
                answer = self.client.predict("mnist", image=self.images, **self.how)
                assert answer["label"].shape == (len(self.images),)
                self.answers += 1
            except ServingError as error:
                self.failures.append(error)

    def end(self):
        self.done.set()
        self.join(timeout=30)
        self.client.close()


@pytest.fixture
def callers(images):
    """Start callers, and end them all."""
    started = []

    def start(address, count, **how):
        started.extend(Load(address, images, **how) for _ in range(count))
        for caller in started:
            caller.start()
        return started

    yield start
    for caller in started:
        caller.end()


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
            wait_for(
                lambda: (
                    client.status("mnist").get(broken) is not None
                    and client.status("mnist")[broken].state == "END"
                )
            )
            assert client.status("mnist")[broken].error_code != 0
            assert client.status("mnist")[broken - 1].state == "AVAILABLE"
        else:
            wait_for(
                lambda v=version: (
                    client.status("mnist").get(v) is not None
                    and client.status("mnist")[v].state == "AVAILABLE"
                )
            )
            wait_for(
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
    wait_for(lambda: all(caller.answers > 5 for caller in loads))
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
    wait_for(lambda: "a second signal ends the server at once" in server.log.read_text())
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
        latest = f'model_config_list {{ config {{ name: "mnist" base_path: "{models}" }} }}'
        client.reload(latest)
        assert [n for n, s in client.status("mnist").items() if s.state == "AVAILABLE"] == [3]
        with pytest.raises(ServingError, match="Unrecognized servable version label: stable"):
            client.predict("mnist", label="stable", image=images)
        client.reload("model_config_list {}")
        with pytest.raises(ServingError, match="Could not find any versions of model mnist"):
            client.status("mnist")
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


def certificates(folder: Path) -> None:
    """Write a CA, a server's and a client's key and certificate with openssl's own library."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    for who in ("ca", "server", "client"):
        key = ca_key if who == "ca" else ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(who))
            .issuer_name(name("ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=who == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        plain = key.private_bytes(pem, pkcs8, serialization.NoEncryption())
        locked = key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret"))
        (folder / f"{who}.key").write_bytes(plain)
        (folder / f"{who}.locked.key").write_bytes(locked)
        (folder / f"{who}.crt").write_bytes(builder.sign(ca_key, hashes.SHA256()).public_bytes(pem))


def ssl_config(
    folder: Path, key: str = "server.key", certificate: str = "server.crt", verify: bool = True
) -> Path:
    def quoted(name):
        return '"' + (folder / name).read_text().replace("\n", "\\n") + '"'

    path = folder / "ssl.config"
    path.write_text(
        f"server_key: {quoted(key)}\nserver_cert: {quoted(certificate)}\n"
        f"custom_ca: {quoted('ca.crt')}\nclient_verify: {'true' if verify else 'false'}\n"
    )
    return path


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


def test_a_key_that_cannot_be_used_is_refused(tmp_path):
    certificates(tmp_path)
    for key, message in (("server.locked.key", "server_key is encrypted"), ("client.key", "belong together")):
        settings = ServerSettings(ssl_config_file=str(ssl_config(tmp_path, key)))
        with pytest.raises(ConfigError, match=message):
            read_credentials(settings)
    (tmp_path / "ssl.config").write_text('server_key: "no PEM" server_cert: "neither"')
    with pytest.raises(ConfigError, match="not a PEM key and certificate"):
        read_credentials(ServerSettings(ssl_config_file=str(tmp_path / "ssl.config")))


def test_a_unix_socket_serves_too(models, tmp_path, images):
    path = tmp_path / "socket"
    flags = ["--model_name=mnist", f"--model_base_path={models}", f"--grpc_socket_path={path}"]
    server = start_server(tmp_path / "log", *flags)
    with Client(f"unix:{path}") as client:
        assert client.predict("mnist", image=images)["label"].shape == (5,)
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "exactly one of --model_base_path and --model_config_file"),
        (["--model_base_path=/nowhere"], "Could not find base path /nowhere for servable default"),
        (["--model_config_file=/nowhere"], "/nowhere can't be read"),
        (["--model_bas_path=x"], "--model_base_path"),
        (["--port=http"], "'http'"),
        (["--port=99999"], "port must be 0 to 65535. Received: port=99999"),
        (["--rest_api_port=-1"], "Received: rest_api_port=-1"),
        (["--tensorflow_session_parallelism=-3"], "Received: tensorflow_session_parallelism=-3"),
        (["--model_base_path=.", "--batching_parameters_file=x"], "needs --enable_batching"),
    ],
)
def test_flags_it_cannot_start_with_are_refused(flags, message):
    command = [sys.executable, "-m", "serving", "serve", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_a_port_in_use_is_refused(models, tmp_path):
    flags = ["--model_name=mnist", f"--model_base_path={models}"]
    server = start_server(tmp_path / "log", *flags)
    for flag in (
        f"--port={server.address.split(':')[1]}",
        f"--port=0 --rest_api_port={server.rest.split(':')[2]}",
    ):
        command = [sys.executable, "-m", "serving", "serve", *flags, *flag.split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stderr
        assert "can't listen on" in done.stderr
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
        wait_for(lambda: "version 5 is served" in server.log.read_text())
        assert client.predict("mnist", image=images)["label"].shape == (5,)
    assert server.stop() == 0


def test_the_default_rest_port_is_used_if_it_is_free(models, tmp_path):
    flags = [f"--port={free_port()}", "--model_name=mnist", f"--model_base_path={models}"]
    command = [sys.executable, "-m", "serving", "serve", *flags]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # then somebody else has it
            taken.bind(("0.0.0.0", 8501))
            taken.listen()
        log = tmp_path / "log"
        with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, stderr=output) as process:
            wait_for(lambda: "gRPC on port" in log.read_text(), seconds=90)
            assert "port 8501 is in use: no REST API" in log.read_text()
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def test_calls_over_the_limit_are_refused_as_exhausted(models, tmp_path, callers):
    flags = ["--model_name=mnist", f"--model_base_path={models}", "--grpc_max_threads=1"]
    server = start_server(tmp_path / "log", *flags)
    loads = callers(server.address, 8)
    wait_for(lambda: any(caller.failures for caller in loads) and any(caller.answers for caller in loads))
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


def batcher_of(run, loop_executor, **batching):
    return Batcher(lambda inputs, cancellation: run(inputs), Batching(**batching), loop_executor)


def in_loop(scenario):
    from concurrent.futures import ThreadPoolExecutor

    async def go():
        with ThreadPoolExecutor(4) as executor:
            return await scenario(executor)

    return asyncio.run(go())


def test_waiting_requests_run_in_one_batch_and_get_their_own_outputs():
    sizes = []

    def double(inputs):
        sizes.append(len(inputs[0]))
        time.sleep(0.05)
        return [2 * inputs[0]]

    async def scenario(executor):
        batcher = batcher_of(double, executor, max_batch_size=4)
        return await asyncio.gather(*(batcher.submit([np.array([n])]) for n in range(9)))

    answers = in_loop(scenario)
    assert [answer[0].tolist() for answer in answers] == [[2 * n] for n in range(9)]
    assert sizes == [1, 4, 4]  # the first finds a free thread, the others wait for it


def test_an_invalid_request_does_not_fail_others_in_its_batch():
    def invert(inputs):
        if (inputs[0] == 0).any():
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "zero")
        return [1 / inputs[0]]

    async def scenario(executor):
        batcher = batcher_of(invert, executor, timeout=0.05)
        requests = (batcher.submit([np.array([n])]) for n in (1.0, 0.0, 4.0))
        return await asyncio.gather(*requests, return_exceptions=True)

    good, bad, also_good = in_loop(scenario)
    assert (good[0].tolist(), also_good[0].tolist()) == ([1.0], [0.25])
    assert str(bad) == "zero"


def test_the_time_limit_and_the_largest_size_start_a_batch():
    sizes = []

    def run(inputs):
        sizes.append(len(inputs[0]))
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=3, timeout=0.2)
        await asyncio.gather(*(batcher.submit([np.zeros(1)]) for _ in range(5)))

    in_loop(scenario)
    assert sizes == [3, 2]


def test_a_full_queue_and_a_too_large_request_are_refused_in_tf_servings_words():
    release = threading.Event()

    def run(inputs):
        release.wait(5)
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=2, max_enqueued_batches=1)
        first = asyncio.ensure_future(batcher.submit([np.zeros(2)]))
        await asyncio.sleep(0.05)  # it is running now, and no longer waits
        second = asyncio.ensure_future(batcher.submit([np.zeros(2)]))
        await asyncio.sleep(0)
        with pytest.raises(
            StatusError, match="The batch scheduling queue to which this task was submitted is full"
        ):
            await batcher.submit([np.zeros(1)])
        with pytest.raises(StatusError, match="Task size 40 is larger than maximum input batch size 2"):
            await batcher.submit([np.zeros(40)])
        release.set()
        await asyncio.gather(first, second)

    in_loop(scenario)


def test_the_request_of_a_caller_that_left_is_not_run():
    ran = []

    def run(inputs):
        ran.extend(inputs[0].tolist())
        time.sleep(0.1)
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=1)
        first = asyncio.ensure_future(batcher.submit([np.array([1])]))
        await asyncio.sleep(0.02)
        gone = asyncio.ensure_future(batcher.submit([np.array([2])]))
        last = asyncio.ensure_future(batcher.submit([np.array([3])]))
        await asyncio.sleep(0.02)
        gone.cancel()
        await asyncio.gather(first, last)

    in_loop(scenario)
    assert ran == [1, 3]


def test_a_caller_that_left_frees_its_place_in_the_queue():
    release = threading.Event()

    def run(inputs):
        release.wait(5)
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=1, max_enqueued_batches=1)
        first = asyncio.ensure_future(batcher.submit([np.zeros(1)]))
        await asyncio.sleep(0.05)  # it is running now, and no longer waits
        for _ in range(3):  # each would find the queue full of the one before
            gone = asyncio.ensure_future(batcher.submit([np.zeros(1)]))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait([gone])
        last = asyncio.ensure_future(batcher.submit([np.ones(1)]))
        await asyncio.sleep(0)
        release.set()
        await first
        return await last

    assert in_loop(scenario)[0].tolist() == [1]


def test_batches_are_padded_to_an_allowed_size_and_shapes_are_not_mixed():
    shapes = []

    def run(inputs):
        shapes.append(inputs[0].shape)
        return inputs

    async def scenario(executor):
        batcher = batcher_of(run, executor, max_batch_size=4, timeout=0.05, allowed_batch_sizes=(2, 4))
        requests = [batcher.submit([np.full((1, width), width)]) for width in (3, 3, 3, 5)]
        return await asyncio.gather(*requests)

    answers = in_loop(scenario)
    assert [answer[0].shape for answer in answers] == [(1, 3), (1, 3), (1, 3), (1, 5)]
    assert sorted(shapes) == [(2, 5), (4, 3)]


def test_config_files_are_read_and_a_syntax_error_names_its_line(tmp_path):
    path = tmp_path / "batching"
    path.write_text(
        "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 5000 }\nallowed_batch_sizes: 8\nallowed_batch_sizes: 32"
    )
    settings = ServerSettings(enable_batching=True, batching_parameters_file=str(path))
    assert read_batching(settings) == Batching(32, 0.005, 10, 1, (8, 32))
    path.write_text("max_batch_size { value: 32 }\nmax_batch_sise { value: 32 }")
    with pytest.raises(ConfigError, match=r"batching, line 2: .*max_batch_sise"):
        read_batching(settings)
    path.write_text("max_batch_size { value: 32 }\nallowed_batch_sizes: 8")
    with pytest.raises(ConfigError, match=r"end with max_batch_size. Received: \[8\]"):
        read_batching(settings)
    path.write_text("prometheus_config { enable: true }")
    assert (
        read_metrics_path(ServerSettings(monitoring_config_file=str(path)))
        == "/monitoring/prometheus/metrics"
    )
    path.write_text(
        'model_config_list { config { name: "a" base_path: "x" } config { name: "a" base_path: "y" } }'
    )
    with pytest.raises(ConfigError, match="Illegal to list model a multiple times"):
        read_model_config(ServerSettings(model_config_file=str(path)))
    path.write_text('model_config_list { config { name: "a" } }')
    with pytest.raises(ConfigError, match="needs a name and a base_path"):
        read_model_config(ServerSettings(model_config_file=str(path)))


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("", [7]),
        ("model_version_policy { latest { num_versions: 2 } }", [3, 7]),
        ("model_version_policy { all {} }", [1, 3, 7]),
        ("model_version_policy { specific { versions: 1 versions: 4 } }", [1]),
    ],
)
def test_version_policies_choose_from_the_versions_on_disk(tmp_path, policy, wanted):
    # TF Serving reads leading zeros too; a number past 63 bits, or of other digits than 0 to 9, is no version.
    for name in ("1", "00000003", "7", "best", "-2", ".export-9", str(10**20 - 1), str(2**63), "٣٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file is no version")
    path = tmp_path / "config"
    path.write_text(f'model_config_list {{ config {{ name: "m" base_path: "{tmp_path}" {policy} }} }}')
    config = read_model_config(ServerSettings(model_config_file=str(path))).model_config_list.config[0]
    assert wanted_versions(config, versions_on_disk(tmp_path)) == wanted


def test_tf_servings_booleans_are_understood():
    assert spell_flags(["--enable_batching=true", "--x=False", "--port=1"]) == [
        "--enable_batching",
        "--no_x",
        "--port=1",
    ]


def test_predict_status_and_bench_from_the_command_line(models, tmp_path, images):
    from PIL import Image

    server = start_server(tmp_path / "log", "--model_name=mnist", f"--model_base_path={models}")
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(images.astype(np.uint8)):
        Image.fromarray(image[..., 0]).save(folder / f"{number}.png")

    def serving(*arguments, **options):
        command = [sys.executable, "-m", "serving", *arguments, "--address", server.address]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, env=os.environ, **options)

    with Client(server.address) as client:
        labels = client.predict("mnist", image=np.floor(images))["label"].tolist()
    lines = serving("predict", str(folder)).stdout.decode().splitlines()
    assert [int(line.split()[1]) for line in lines] == labels
    digit = tmp_path / "digit.png"
    dark, light = np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)
    dark[4:24, 10:14], light[4:24, 10:14] = 255, 0
    answers = []
    for image in (dark, light):
        Image.fromarray(image).save(digit)
        answers.append(serving("predict", str(digit), "--json", "--models", str(models.parent)))
    assert answers[0].stdout == answers[1].stdout
    assert answers[0].stderr == b""
    assert answers[1].stderr.startswith(b"1 of 1 images inverted: the model was trained on a dark background")
    asked = serving("predict", str(digit), "--json", "--models", str(models.parent), "--invert", "no")
    assert (asked.stdout != answers[0].stdout, asked.stderr) == (True, b"")
    unknown = serving("predict", str(digit), "--json", "--models", str(tmp_path / "nowhere"))
    assert (unknown.stdout, unknown.returncode) == (asked.stdout, 0)
    assert b"nowhere/mnist/1 has no record of the model's training images" in unknown.stderr
    both = serving("predict", str(digit), "--label", "a", "--model-version", "1")
    assert (both.returncode, b"choose a version or a label" in both.stderr) == (2, True)
    piped = serving("predict", "-", "--json", input=(folder / "3.png").read_bytes())
    assert f'"label": {labels[3]}' in piped.stdout.decode()
    (folder / "bad.png").write_bytes(b"no image")
    refused = serving("predict", str(folder))
    assert refused.returncode == 2
    assert b"1 of 6 images do not decode as PNG or JPEG" in refused.stderr
    assert b"bad.png" in refused.stderr
    assert serving("status", "mnist").stdout.decode().split() == ["mnist", "1", "AVAILABLE"]
    assert serving("status", "foo").returncode == 2
    table = serving("bench", "--callers", "1", "2", "--seconds", "0.2").stdout.decode().splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["1", "1"], ["2", "1"]]
    assert server.stop() == 0
