"""A small trained run, its export, and servers in processes of their own."""

import asyncio
import contextlib
import dataclasses
import functools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from playwright.sync_api import Browser, Page, sync_playwright

from recipes.config import (
    ImageData,
    ImageModel,
    ImageRecipe,
    Optimizer,
    RecurrentModel,
    RecurrentRecipe,
    TextData,
    TextRecipe,
    TextTraining,
    Training,
    TransformerModel,
    TransformerRecipe,
)
from recipes.runs.directory import Run
from recipes.tasks import task_of
from serving.client import Client, ServingError
from serving.export import export
from serving.server.app import ModelServer
from serving.server.settings import ServerSettings
from tests.processes import Forked, free_port, start_command

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A convolutional run on the offline digits, trained for one epoch."""
    recipe = ImageRecipe(
        data=ImageData(source="digits"),
        model=ImageModel(convolutions=(4,), dense=(16,), batch_normalization=True),
        training=Training(epochs=1, batch_size=64),
    )
    return task_of("mnist-cnn", recipe).train(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="session")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's export, `models/mnist/1`."""
    return export(run, tmp_path_factory.mktemp("models")).path


@pytest.fixture(scope="session")
def text_exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Run, Path]]:
    """Return a small language model and its export by kind: characters, bytes, bpe, or lstm (of characters)."""

    @functools.cache
    def make(kind: str) -> tuple[Run, Path]:
        folder = tmp_path_factory.mktemp(kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
            run = task_of("lm", small_text_recipe(kind)).train(folder / "run")
        return run, export(run, folder / "models").path

    return make


def small_text_recipe(kind: str) -> TextRecipe:
    """Return a recipe that trains on Python's help for a few seconds."""
    tokenizer: Any = "characters" if kind == "lstm" else kind
    data = TextData(source="pydoc", tokenizer=tokenizer, vocabulary_size=300, block_size=24)
    settings: dict[str, Any] = {
        "optimizer": Optimizer(name="adam", learning_rate=0.01),
        "training": TextTraining(epochs=1, steps_per_epoch=64, batch_size=16),
    }
    if kind == "lstm":
        cells = RecurrentModel(cell="lstm", units=48, embedding=32, layers=2)
        return RecurrentRecipe(data=data, model=cells, **settings)
    network = TransformerModel(width=32, heads=2, layers=2, feed_forward=64, convolution=3)
    return TransformerRecipe(data=data, model=network, **settings)


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:
    """A copy of the model's folder that a test may change."""
    return Path(shutil.copytree(exported.parent, tmp_path / "models" / "mnist"))


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Five images of noise, pixels 0 to 255."""
    return np.random.default_rng(0).uniform(0, 255, (5, 28, 28, 1)).astype(np.float32)


def diverged_copy(run: Run, folder: Path) -> Run:
    """Return a copy of a run whose model has diverged."""
    copy = Run(Path(shutil.copytree(run.path, folder / "run")))
    model = keras.models.load_model(copy.model_path)
    for variable in model.trainable_variables:  # TensorFlow's ReLU turns a single NaN into 0
        variable.assign(np.full(variable.shape, np.nan))
    model.save(copy.model_path)
    return copy


@dataclasses.dataclass
class ServerProcess:
    """A server under test: its process, if a test started it, and its addresses."""

    process: "Forked | subprocess.Popen[bytes] | None"
    address: str
    rest: str
    log: Path | None = None

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def start_server(log: Path, *flags: str, program: str | None = None) -> ServerProcess:
    """Start the embedded server, or another program, on free ports and wait until its gRPC port answers."""
    port, rest_port = free_port(), free_port()
    flags = (f"--port={port}", f"--rest_api_port={rest_port}", *flags)
    process: Forked | subprocess.Popen[bytes]
    if program is None:
        process = start_command("serving", "serve", *flags, stdout=log, stderr=log)
    else:
        with log.open("w") as output:
            process = subprocess.Popen([program, *flags], stdout=output, stderr=output)
    until = time.monotonic() + 90
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.poll()}: {log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            if program is not None or "gRPC on port" in log.read_text():
                return ServerProcess(process, f"localhost:{port}", f"http://localhost:{rest_port}", log)
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"the server did not come up: {log.read_text()}")


@contextlib.contextmanager
def in_process(**settings: Any) -> Iterator[tuple[ModelServer, Callable[[Any], Any]]]:
    """Start a server in a thread; give it with a function that awaits a coroutine there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def await_(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def make() -> ModelServer:
        server = ModelServer(ServerSettings(**{"port": 0, "rest_api_port": free_port(), **settings}))
        await server.start()
        return server

    try:
        server = await_(make())
        yield server, await_
        await_(server.stop())
    finally:
        await_(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that takes `steps` int32 (n) and counts to the largest; 2**31 - 1 takes hours."""

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int32, name="steps")])
    def count(steps: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_positive(tf.size(steps), "the batch is empty")]):
            limit = tf.reduce_max(steps)
        counted = tf.while_loop(lambda n, x: n < limit, lambda n, x: (n + 1, x + 1), (0, 0))[1]
        return {"counted": tf.fill(tf.shape(steps), counted)}

    module = tf.Module()
    module.count = count
    folder = tmp_path_factory.mktemp("looping") / "looping"
    tf.saved_model.save(module, str(folder / "1"), signatures=count)
    return folder


def write_half_plus_two(folder: Path) -> None:
    """Write y = x/2 + 2 and y2 = x/2 + 3 with the signatures of TF Serving's own test model."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        example = v1.placeholder(tf.string, name="tf_example")
        number = v1.FixedLenFeature([1], tf.float32, default_value=[0.0])
        features = v1.parse_example(example, {"x": v1.FixedLenFeature([1], tf.float32), "x2": number})
        for feature in features.values():
            feature.set_shape([None, 1])
        x, x2 = tf.identity(features["x"], "x"), tf.identity(features["x2"], "x2")
        half = v1.Variable(0.5, name="a")
        y, y2, y3 = tf.add(half * x, 2.0, "y"), tf.add(half * x, 3.0, "y2"), tf.add(half * x2, 3.0, "y3")
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info

        def signature(inputs: Any, outputs: Any, method: str) -> Any:
            return v1.saved_model.build_signature_def(inputs, outputs, f"tensorflow/serving/{method}")

        text = {"inputs": info(example)}
        signatures = {
            "serving_default": signature({"x": info(x)}, {"y": info(y)}, "predict"),
            "regress_x_to_y": signature(text, {"outputs": info(y)}, "regress"),
            "regress_x_to_y2": signature(text, {"outputs": info(y2)}, "regress"),
            "regress_x2_to_y3": signature({"inputs": info(x2)}, {"outputs": info(y3)}, "regress"),
            "classify_x_to_y": signature(text, {"scores": info(y)}, "classify"),
        }
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


@pytest.fixture(scope="session")
def half_plus_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model, with versions 123 and 124; the first has leading zeros."""
    folder = tmp_path_factory.mktemp("hp")
    tf.get_logger().setLevel("ERROR")
    for version in ("00000123", "124"):
        write_half_plus_two(folder / version)
    return folder


def servers_at_hand() -> list[str]:
    """Return the names of the servers that the API tests can use on this machine."""
    names = ["embedded"]
    if shutil.which("tensorflow_model_server"):
        names.append("tensorflow_model_server")
    if os.environ.get("TF_SERVING_ADDRESS"):
        names.append("TF_SERVING_ADDRESS")
    return names


@pytest.fixture(scope="session", params=servers_at_hand())
def server(request: pytest.FixtureRequest, exported: Path, tmp_path_factory) -> Iterator[ServerProcess]:
    """Each available server, serving the export as model `mnist`.

    TF_SERVING_ADDRESS names one that runs already, host:port of gRPC with REST on the next port.
    """
    if request.param == "TF_SERVING_ADDRESS":
        host, port = os.environ["TF_SERVING_ADDRESS"].rsplit(":", 1)
        yield ServerProcess(None, f"{host}:{port}", f"http://{host}:{int(port) + 1}")
        return
    program = None if request.param == "embedded" else "tensorflow_model_server"
    flags = ["--model_name=mnist", f"--model_base_path={exported.parent}"]
    started = start_server(tmp_path_factory.mktemp("server") / "log", *flags, program=program)
    yield started
    assert started.stop() in (0, -signal.SIGTERM)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    """A client of the server under test."""
    with Client(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of the size of a small laptop's screen."""
    with browser.new_page(viewport={"width": 1000, "height": 700}) as opened:
        yield opened


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
