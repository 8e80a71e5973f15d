"""What happens to calls while a server ends, and while its models change."""

import http.client
import json
import logging
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from serving.client import Client, ServingError
from serving.server import app
from tests.processes import wait_until
from tests.serving.conftest import Load, in_process
from tests.serving.looping import ENDLESS, PREDICT, by_grpc, rest


def test_draining_completes_accepted_calls_and_refuses_new_ones_by_grpc_and_rest(looping, monkeypatch):
    monkeypatch.setattr(app, "DRAIN_SECONDS", 20.0)
    with in_process(model_name="looping", model_base_path=str(looping)) as (server, await_):
        version = server.manager.models["looping"].versions[1]
        address = f"localhost:{server.port}"
        with Client(address, timeout=60) as client, ThreadPoolExecutor() as callers:
            accepted = callers.submit(client.predict, "looping", steps=np.array([300_000], np.int32))
            wait_until(lambda: version.users == 1)
            half_sent = socket.create_connection(("127.0.0.1", server.rest_port))
            half_sent.sendall(
                b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{" % PREDICT.encode()
            )
            kept_alive = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
            kept_alive.request("GET", "/v1/models/looping")
            with kept_alive.getresponse() as answer:
                assert (answer.status, answer.read() != b"") == (200, True)
            stopped = callers.submit(await_, server.stop())
            # It was not accepted: it is refused at once, and does not hold the server.
            assert half_sent.recv(1000).startswith(b"HTTP/1.1 503")
            half_sent.close()
            assert by_grpc(server, [1]) in (
                "UNAVAILABLE",
                "DEADLINE_EXCEEDED",
            )  # tried again until its deadline
            with pytest.raises(OSError, match="refused|reset"):
                rest(server, "/v1/models/looping", method="GET")
            kept_alive.close()
            assert accepted.result()["counted"].tolist() == [300_000]
            stopped.result()


@pytest.mark.parametrize("way", ["GRPC", "REST"])
def test_draining_ends_calls_that_take_too_long(looping, monkeypatch, way, caplog):
    monkeypatch.setattr(app, "DRAIN_SECONDS", 0.1)
    with (
        in_process(model_name="looping", model_base_path=str(looping)) as (server, await_),
        Client(f"localhost:{server.port}", timeout=60) as client,
        ThreadPoolExecutor() as callers,
    ):
        if way == "GRPC":
            running = callers.submit(client.predict, "looping", steps=np.array([ENDLESS], np.int32))
        else:
            running = callers.submit(rest, server, PREDICT, json.dumps({"instances": [ENDLESS]}))
        wait_until(lambda: server.manager.models["looping"].versions[1].users == 1)
        await_(server.stop())
        if way == "GRPC":
            with pytest.raises(ServingError, match="UNAVAILABLE"):
                running.result()
        else:
            assert running.result() == (503, {"error": "the server is shutting down"})
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def config_of(**paths):
    models = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }} '
        for name, path in paths.items()
    )
    return f"model_config_list {{ {models} }}"


def test_a_config_is_applied_whole_or_not_at_all(looping, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    config = tmp_path / "models.config"
    config.write_text(config_of(a=looping, b=looping))
    with (
        in_process(model_config_file=str(config)) as (server, _),
        Client(f"localhost:{server.port}", timeout=30) as client,
    ):

        def served():
            return {name for name in ("a", "b", "c") if is_served(client, name)}

        label = 'version_labels { key: "x" value: 9 } }'
        mislabelled = config_of(a=looping, c=looping).removesuffix("}  }") + label + "}"
        for refused, text in (
            (mislabelled, "Request to assign label to version 9 of model c"),
            (config_of(a=empty), f"No version of model a under base path {empty} could be loaded"),
            ("", "ServerModelConfig type not supported by HandleReloadConfigRequest."),
            ("custom_model_config {}", "ServerModelConfig type not supported"),
        ):
            with pytest.raises(ServingError, match=text):
                client.reload(refused)
            assert served() == {"a", "b"}
        client.reload(config_of(c=looping))
        assert served() == {"c"}
        client.reload("model_config_list {}")
        assert served() == set()


def is_served(client, name):
    try:
        client.predict(name, steps=np.array([1], np.int32))
    except ServingError as error:
        if error.code is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return True


def test_a_model_moves_to_another_folder_without_a_failed_call(looping, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "00000007").symlink_to(looping / "1")

    class Counting(Load):
        def run(self):
            while not self.done.is_set():
                try:
                    self.client.predict("looping", steps=np.array([1], np.int32))
                    self.answers += 1
                except ServingError as error:
                    self.failures.append(error)

    with in_process(model_name="looping", model_base_path=str(looping)) as (server, _):
        callers = [Counting(f"localhost:{server.port}", None) for _ in range(4)]
        for caller in callers:
            caller.start()
        with Client(f"localhost:{server.port}", timeout=30) as client:
            for folder in (moved, looping, moved):
                client.reload(config_of(looping=folder))
            assert list(client.status("looping")) == [7, 1]
        for caller in callers:
            caller.end()
    assert [caller.failures for caller in callers] == [[]] * 4
    assert all(caller.answers for caller in callers)
