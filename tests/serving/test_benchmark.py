"""The benchmark of serving, with short measurements."""

import json
import struct

import pytest

from benchmarks import serving
from serving.protocol import PredictRequest


def test_the_same_image_is_sent_by_grpc_and_rest(server):
    one, many, rest = serving.loads(server.address, server.rest.removeprefix("http://"))
    assert [(load.api, load.images) for load in (one, many, rest)] == [
        ("gRPC", 1),
        ("gRPC", 100),
        ("REST", 1),
    ]
    compressed, length = struct.unpack(">?I", one.body[:5])
    assert (compressed, length) == (False, len(one.body) - 5)
    assert PredictRequest.FromString(many.body[5:]).inputs["image"].tensor_shape.dim[0].size == 100
    assert len(json.loads(rest.body)["instances"]) == 1


def test_a_load_is_measured(server, monkeypatch, tmp_path, capsys):
    """A program in the place of h2load writes its log: three requests, the last one slow."""
    program = tmp_path / "h2load"
    program.write_text(
        "#!/bin/sh\nfor flag; do case $flag in --log-file=*) log=${flag#*=};; esac; done\n"
        'printf "1\t200\t1000\n2\t200\t2000\n3\t200\t9000\n" > "$log"\n'
        'echo "finished in 2.00s, 1.50 req/s, 1KB/s"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    rate, p50, p99 = serving.measure(serving.Load("gRPC", 1, ("http://nowhere",), b""), 1, 1)
    assert (rate, p50, p99) == (1.5, 2.0, pytest.approx(8.86))
    serving.measure_all("embedded", server.address, None, seconds=1)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()
    ]
    assert [row[1:6] for row in rows] == [
        ["gRPC", "1", "1", "2", "2"],
        ["gRPC", "8", "1", "2", "2"],
        ["gRPC", "32", "1", "2", "2"],
        ["gRPC", "1", "100", "2", "150"],
    ]
