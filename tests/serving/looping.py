"""Calls of the model that counts, by gRPC and by REST, to a server in this process."""

import contextlib
import http.client
import json

import grpc
import numpy as np

from serving import protocol
from serving.client import Client, ServingError
from serving.protocol import METHODS
from serving.tensors import fill_proto
from tests.processes import wait_until

ENDLESS = 2**31 - 1
DEADLINE = 0.3
PREDICT = "/v1/models/looping:predict"


@contextlib.contextmanager
def under_way(server, steps):
    """Keep a call running."""
    users = server.manager.models["looping"].versions[1]
    before = users.users
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        predict = channel.unary_unary(METHODS["Predict"].path)
        calls = []

        def started():
            if not calls or calls[-1].done():  # refused: the run of a cancelled call has not ended yet
                calls.append(predict.future(predict_request(steps).SerializeToString()))
            return users.users == before + 1

        wait_until(started)
        yield
        calls[-1].cancel()
        wait_until(lambda: users.users == before)


def predict_request(steps, model="looping", signature="serving_default", version=None, label=None):
    request = protocol.PredictRequest(model_spec={"name": model, "signature_name": signature})
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    fill_proto(request.inputs["steps"], np.array(steps, np.int32))
    return request


def by_grpc(server, steps):
    """Return the status of a call by gRPC."""
    with Client(f"localhost:{server.port}", timeout=DEADLINE if ENDLESS in steps else 60) as client:
        try:
            client.predict("looping", steps=np.array(steps, np.int32))
        except ServingError as error:
            return error.code.name
    return "OK"


def by_rest(server, steps):
    """Return the status of a call by REST."""
    status, _ = rest(server, PREDICT, json.dumps({"inputs": steps}))
    return {200: "OK", 504: "DEADLINE_EXCEEDED"}[status]


def rest(server, path, body=None, method="POST", **headers):
    """Return the HTTP status and the decoded body of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def counted(server, entrypoint, status):
    """Return how many calls of all APIs have a status, and how many an entrypoint, by the metrics."""

    def total(metric, label):
        lines = server.metrics.text().decode().splitlines()
        found = [
            line for line in lines if line.startswith(f":tensorflow:serving:{metric}{{") and label in line
        ]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    return total("request_count", f'status="{status}"'), total(
        "request_latency_count", f'entrypoint="{entrypoint}"'
    )
