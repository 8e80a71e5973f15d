"""Several processes that share the ports of the embedded server."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from serving.client import Client, ServingError
from serving.server.settings import ServerSettings
from tests.processes import ROOT, assert_refused, children, free_port, gone, kill, run_command, wait_until


@pytest.fixture
def workers(half_plus_two, tmp_path):
    """A server with two workers: its supervisor, gRPC address, REST address and log."""
    monitoring, log = tmp_path / "monitoring", tmp_path / "log"
    monitoring.write_text("prometheus_config { enable: true }")
    port, rest_port = free_port(), free_port()
    command = [sys.executable, "-m", "serving", "serve", "--workers=2", f"--port={port}", "--model_name=hp"]
    command += [f"--rest_api_port={rest_port}", f"--model_base_path={half_plus_two}"]
    command += [f"--monitoring_config_file={monitoring}"]
    with log.open("w") as output, subprocess.Popen(command, stderr=output, cwd=ROOT) as supervisor:
        wait_until(lambda: log.read_text().count("gRPC on port") == 2 or supervisor.poll() is not None)
        assert supervisor.poll() is None, log.read_text()
        yield supervisor, f"localhost:{port}", f"http://localhost:{rest_port}", log
        supervisor.kill()
        wait_until(lambda: all(gone(pid) for pid in children(supervisor.pid)))


def call(address: str, times: int) -> None:
    """Call on a new connection each time, so that both workers get some."""
    for _ in range(times):
        with Client(address) as client:
            assert client.predict("hp", {"x": np.float32([2])})["y"].tolist() == [3.0]


def counted(rest: str) -> float:
    with urllib.request.urlopen(f"{rest}/monitoring/prometheus/metrics") as answer:
        text = answer.read().decode()
    return float(re.search(r'request_count\{model_name="hp",status="OK"\} ([0-9.]+)', text)[1])


def test_workers_share_the_ports_add_up_metrics_and_are_replaced(workers):
    supervisor, address, rest, log = workers
    call(address, 20)
    assert [counted(rest) for _ in range(4)] == [20] * 4
    with Client(address) as client, pytest.raises(ServingError, match="one of several --workers"):
        client.reload(
            'model_config_list { config { name: "hp" base_path: "/" model_platform: "tensorflow" } }'
        )
    flags = ["--workers=2", f"--port={address.split(':')[1]}", "--model_base_path=/tmp"]
    assert_refused(
        run_command("serving", "serve", *flags, KERAS_BACKEND="none"), "--port chooses another port"
    )
    first, second = children(supervisor.pid)
    kill(first)
    wait_until(lambda: log.read_text().count("gRPC on port") == 3)
    assert f"worker {first} ended with status -9; another one is started" in log.read_text()
    assert second in children(supervisor.pid)
    assert len(children(supervisor.pid)) == 2
    call(address, 10)
    assert counted(rest) == 30
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(60) == 0
    assert log.read_text().count("another one is started") == 1


def test_workers_end_with_their_supervisor_and_on_ctrl_c(workers):
    supervisor, address, _, _ = workers
    call(address, 1)
    pids = children(supervisor.pid)
    assert all(os.getpgid(pid) == pid for pid in pids)  # Ctrl-C in the terminal does not reach them directly
    kill(supervisor.pid)
    wait_until(lambda: all(gone(pid) for pid in pids), 30)


@pytest.mark.parametrize(
    "flags", [{"workers": 0}, {"workers": 2, "port": 0}, {"workers": 2, "grpc_socket_path": "/tmp/socket"}]
)
def test_what_cannot_be_shared_is_refused(flags):
    with pytest.raises(ValueError, match="--workers must be at least 1; several share a --port"):
        ServerSettings(**flags)
