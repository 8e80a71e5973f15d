"""Client commands: what they print, of the embedded server."""

import numpy as np
import pytest
from PIL import Image

from serving.client import Client
from tests.processes import assert_refused, run_command
from tests.serving.conftest import start_server


def test_predict_status_and_bench_from_the_command_line(models, tmp_path, images):
    server = start_server(tmp_path / "log", "--model_name=mnist", f"--model_base_path={models}")
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(images.astype(np.uint8)):
        Image.fromarray(image[..., 0]).save(folder / f"{number}.png")

    def serving(*arguments, **place):
        return run_command("serving", *arguments, "--address", server.address, **place)

    with Client(server.address) as client:
        labels = client.predict("mnist", image=np.floor(images))["label"].tolist()
    lines = serving("predict", str(folder)).stdout.splitlines()
    assert [int(line.split()[1]) for line in lines] == labels
    digit = tmp_path / "digit.png"
    dark, light = np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)
    dark[4:24, 10:14], light[4:24, 10:14] = 255, 0
    answers = []
    for image in (dark, light):
        Image.fromarray(image).save(digit)
        answers.append(serving("predict", str(digit), "--json", "--models", str(models.parent)))
    assert answers[0].stdout == answers[1].stdout
    assert answers[0].stderr == ""
    assert answers[1].stderr.startswith("1 of 1 images inverted: the model was trained on a dark background")
    asked = serving("predict", str(digit), "--json", "--models", str(models.parent), "--invert", "no")
    assert (asked.stdout != answers[0].stdout, asked.stderr) == (True, "")
    unknown = serving("predict", str(digit), "--json", "--models", str(tmp_path / "nowhere"))
    assert (unknown.stdout, unknown.returncode) == (asked.stdout, 0)
    assert "nowhere/mnist/1 has no record of the model's training images" in unknown.stderr
    both = serving("predict", str(digit), "--label", "a", "--model-version", "1")
    assert (both.returncode, "choose a version or a label" in both.stderr) == (2, True)
    piped = serving("predict", "-", "--json", stdin=folder / "3.png")
    assert f'"label": {labels[3]}' in piped.stdout
    (folder / "bad.png").write_bytes(b"no image")
    refused = serving("predict", str(folder))
    assert_refused(refused, "1 of 6 images do not decode as PNG or JPEG", "bad.png")
    assert serving("status", "mnist").stdout.split() == ["mnist", "1", "AVAILABLE"]
    assert serving("status", "foo").returncode == 2
    table = serving("bench", "--callers", "1", "2", "--seconds", "0.2").stdout.splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["1", "1"], ["2", "1"]]
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "nowhere"], "nowhere is not a run directory"),
        (["export", "nowhere", "--version", "0"], "--version must be at least 1. Received: version=0"),
        (["bench", "--callers", "8", "0"], "--callers must be at least 1. Received: callers=(8, 0)"),
        (["bench", "--seconds", "0"], "--seconds must be above 0. Received: seconds=0.0"),
        (["generate", "--seed", "-1"], "--seed must be 0 to 4294967295. Received: seed=-1"),
    ],
)
def test_wrong_input_is_refused_before_tensorflow_is_imported(arguments, said):
    assert_refused(run_command("serving", *arguments, KERAS_BACKEND="none"), said)
