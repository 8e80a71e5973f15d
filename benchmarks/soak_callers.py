"""The callers of the soak: each sends a request and checks the answer against that of the first version."""

import base64
import contextlib
import http.client
import json
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from serving.client import Client
from serving.tensors import Array

LARGE, JSON_ROWS = 500, 100
SLOW_ROWS = 1000
SLOW_BYTES, SLOW_SECONDS = 16_384, 0.1
"""A slow reader reads this many bytes, then waits this long."""


class Callers:
    """Requests of each kind.

    Args:
        address: host:port of gRPC.
        rest: host:port of REST.

    Attributes:
        kinds: A function for each kind, which sends a request and raises for a missing or wrong answer.
        pause: Mean time from one request of a caller to its next, in seconds.
    """

    pause = 0.1

    def __init__(self, address: str, rest: str) -> None:
        self._client = Client(address, timeout=60)
        self._address, self._rest = address, rest
        images = np.random.default_rng(0).uniform(0, 255, (SLOW_ROWS, 28, 28, 1)).round()
        self._images: Array = images.astype(np.float32)
        self._labels = self._client.predict("mnist", image=self._images)["label"]
        self._generation = {
            "prompt": np.array([b"The "], np.object_),
            "max_new_tokens": np.array([16], np.int32),
            "temperature": np.array([0.0], np.float32),
            "top_k": np.array([0], np.int32),
            "top_p": np.array([1.0], np.float32),
            "seed": np.array([0], np.int64),
        }
        self._text = self._client.predict("lm", self._generation, signature="generate")["text"].tolist()
        self.kinds: dict[str, Callable[[], None]] = {
            "gRPC, 1 image": lambda: self._by_grpc(1),
            f"gRPC, {LARGE} images": lambda: self._by_grpc(LARGE),
            "gRPC, text of 16 tokens": self._text_by_grpc,
            "REST, 1 image": lambda: self._by_rest(1),
            f"REST, {JSON_ROWS} images": lambda: self._by_rest(JSON_ROWS),
            "REST, text of 16 tokens": self._text_by_rest,
            f"Open Inference Protocol, {LARGE} images in binary": self._by_open_inference,
            f"REST, {SLOW_ROWS} images, a slow reader": self._read_slowly,
            "REST, half a request": self._send_half_by_rest,
            "gRPC, half a request": self._send_half_by_grpc,
        }

    @staticmethod
    def wait_until_ready(rest: str) -> None:
        """Wait until a server reports that it is ready."""
        for _ in range(600):
            with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection(rest)) as asked:
                asked.request("GET", "/v2/health/ready")
                if asked.getresponse().status == 200:
                    return
            time.sleep(0.2)
        raise SystemExit(f"{rest} did not become ready")

    def _check(self, labels: Any) -> None:
        if list(labels) != self._labels[: len(labels)].tolist():
            raise ValueError("other labels than before")

    def _by_grpc(self, rows: int) -> None:
        answer = self._client.predict("mnist", image=self._images[:rows])
        self._check(answer["label"].tolist())

    def _text_by_grpc(self) -> None:
        answer = self._client.predict("lm", self._generation, signature="generate")
        if answer["text"].tolist() != self._text:
            raise ValueError("another text than before")

    def _post(self, path: str, body: bytes, **headers: str) -> bytes:
        with contextlib.closing(http.client.HTTPConnection(self._rest, timeout=60)) as connection:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {content[:200]!r}")
        return content

    def _instances(self, rows: int) -> bytes:
        return json.dumps({"instances": self._images[:rows].tolist()}).encode()

    def _check_predictions(self, content: bytes) -> None:
        self._check([prediction["label"] for prediction in json.loads(content)["predictions"]])

    def _by_rest(self, rows: int) -> None:
        self._check_predictions(self._post("/v1/models/mnist:predict", self._instances(rows)))

    def _text_by_rest(self) -> None:
        inputs: dict[str, Any] = {name: array.tolist() for name, array in self._generation.items()}
        inputs["prompt"] = [{"b64": base64.b64encode(prompt).decode()} for prompt in inputs["prompt"]]
        body = json.dumps({"signature_name": "generate", "inputs": inputs}).encode()
        texts = json.loads(self._post("/v1/models/lm:predict", body))["outputs"]
        if [text.encode() for text in texts] != self._text:
            raise ValueError("another text than before")

    def _by_open_inference(self) -> None:
        images = self._images[:LARGE]
        parameters = {"binary_data_size": images.nbytes}
        described = {
            "name": "image",
            "datatype": "FP32",
            "shape": list(images.shape),
            "parameters": parameters,
        }
        header = json.dumps({"inputs": [described], "outputs": [{"name": "label"}]}).encode()
        length = {"Inference-Header-Content-Length": str(len(header))}
        content = self._post("/v2/models/mnist/infer", header + images.tobytes(), **length)
        self._check(json.loads(content)["outputs"][0]["data"])

    def _connect(self, address: str) -> socket.socket:
        host, port = address.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=60)

    def _request(self, body: bytes) -> bytes:
        head = f"POST /v1/models/mnist:predict HTTP/1.1\r\nHost: {self._rest}\r\nConnection: close\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def _read_slowly(self) -> None:
        received = bytearray()
        with self._connect(self._rest) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BYTES)
            connection.sendall(self._request(self._instances(SLOW_ROWS)))
            while content := connection.recv(SLOW_BYTES):
                received += content
                time.sleep(SLOW_SECONDS)
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        if b" 200 " not in head.splitlines()[0]:
            raise ValueError(head.splitlines()[0].decode())
        self._check_predictions(body)

    def _send_half_by_rest(self) -> None:
        request = self._request(self._instances(JSON_ROWS))
        with self._connect(self._rest) as connection:
            connection.sendall(request[: random.randrange(len(request))])
            time.sleep(random.uniform(0.0, 0.5))

    def _send_half_by_grpc(self) -> None:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # empty SETTINGS
        with self._connect(self._address) as connection:
            connection.sendall(preface[: random.randrange(1, len(preface) + 1)])
            time.sleep(random.uniform(0.0, 0.5))
