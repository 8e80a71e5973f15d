"""The files under serving/deploy: what they say fits what the embedded server reads and what is exported."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from serving.server.configs import read_batching, read_metrics_path, read_model_config
from serving.server.settings import ServerSettings

DEPLOY = Path(__file__).parents[2] / "serving" / "deploy"
CONFIG = DEPLOY / "config"


def test_the_embedded_server_reads_the_containers_configs():
    settings = ServerSettings(
        model_config_file=str(CONFIG / "models.config"),
        enable_batching=True,
        batching_parameters_file=str(CONFIG / "batching.config"),
        monitoring_config_file=str(CONFIG / "monitoring.config"),
    )
    config = read_model_config(settings).model_config_list.config[0]
    assert (config.name, config.base_path) == ("mnist", "/models/mnist")
    assert dict(config.version_labels) == {"stable": 1, "canary": 2}
    assert read_batching(settings).max_batch_size == 64
    assert read_metrics_path(settings) == "/monitoring/prometheus/metrics"


def test_one_image_everywhere():
    text = "".join(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())
    assert len(set(re.findall(r"tensorflow/serving:([\w.]+)", text))) == 1


def test_every_server_is_started_with_the_same_flags():
    deployment = yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["serving"]
    entry_point = re.search(r"ENTRYPOINT \[(.*?)\]", (DEPLOY / "Dockerfile").read_text(), re.DOTALL).group(1)
    assert container["args"] == compose["command"] == re.findall(r'"(--[^"]+)"', entry_point)


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        ("roll out", {"stable": 1, "canary": 2}),
        ("promote", {"stable": 2, "canary": 2}),
        ("roll back", {"stable": 1, "canary": 2}),
    ],
)
def test_the_three_moves_of_a_release_do_what_they_say(tmp_path, move, expected):
    target = tmp_path / "serving" / "deploy" / "config"
    shutil.copytree(CONFIG, target)
    commands = re.search(rf"# {move}: .*\n(sed .*)", (DEPLOY / "README.md").read_text()).group(1)
    subprocess.run(commands, shell=True, cwd=tmp_path, check=True)
    config = read_model_config(ServerSettings(model_config_file=str(target / "models.config")))
    assert dict(config.model_config_list.config[0].version_labels) == expected
    assert list(config.model_config_list.config[0].model_version_policy.specific.versions) == [1, 2]
