"""The files in serving/deploy fit the embedded server and the exports."""

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from serving.client import Client, ServingError
from serving.server.configs import read_batching, read_metrics_path, read_model_config
from serving.server.settings import ServerSettings
from tests.processes import ROOT
from tests.serving.conftest import free_port, start_server
from tests.serving.test_imports import imported

DEPLOY = ROOT / "serving" / "deploy"
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
    assert dict(config.version_labels) == {"stable": 1}  # the version that the first export makes
    assert list(config.model_version_policy.specific.versions) == [1]
    assert read_batching(settings).max_batch_size == 64
    assert read_metrics_path(settings) == "/monitoring/prometheus/metrics"


def test_one_image_everywhere():
    text = "".join(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())
    assert len(set(re.findall(r"tensorflow/serving:([\w.]+)", text))) == 1


def test_every_server_is_started_with_the_same_flags():
    deployment = yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["serving"]
    embedded = yaml.safe_load((DEPLOY / "embedded" / "deployment.yaml").read_text())
    assert embedded["spec"]["template"]["spec"]["containers"][0]["args"] == container["args"]
    command = re.search(
        r"CMD \[(\"--.*?)\]", (DEPLOY / "embedded" / "Dockerfile").read_text(), re.DOTALL
    ).group(1)
    assert re.findall(r'"(--[^"]+)"', command) == container["args"]
    entry_point = re.search(r"ENTRYPOINT \[(.*?)\]", (DEPLOY / "Dockerfile").read_text(), re.DOTALL).group(1)
    assert container["args"] == compose["command"] == re.findall(r'"(--[^"]+)"', entry_point)


def pinned(lock: Path) -> set[str]:
    """Return the pinned packages of a lock file, with their versions, conditions and hashes."""
    blocks = re.split(r"\n(?=\w)", re.sub(r"\n    #.*", "", lock.read_text()).strip())
    return {re.sub(r"\s*\\\n\s*", " ", block) for block in blocks}


def test_the_embedded_image_has_the_projects_versions_and_hashes():
    packages = pinned(DEPLOY / "embedded" / "requirements.lock")
    assert all("--hash=sha256:" in package for package in packages)
    assert packages <= pinned(ROOT / "requirements.lock")


def test_the_embedded_image_has_every_package_that_the_server_imports():
    sources = [*(ROOT / "serving" / "server").glob("*.py")]
    sources += [ROOT / "serving" / name for name in ("__main__.py", "protocol.py", "tensors.py", "tokens.py")]
    names = {name.split(".")[0] for path in sources for name in imported(ast.parse(path.read_text()))}
    listed = set((DEPLOY / "embedded" / "requirements.in").read_text().splitlines())
    listed |= {"opentelemetry-api"}  # of the extra `tracing`
    distributions = importlib.metadata.packages_distributions()
    for name in names & set(distributions):
        assert listed & {each.lower().replace("_", "-") for each in distributions[name]}, name


def test_the_embedded_image_runs_as_nobody_in_particular_and_is_checked():
    text = (DEPLOY / "embedded" / "Dockerfile").read_text()
    for line in ("USER 1000:1000", "--require-hashes", "--no-cache-dir", "/v2/health/ready"):
        assert line in text


@pytest.fixture
def place(tmp_path):
    """A config and a folder of models with versions 1, 2, 3 and 12."""
    for version in (1, 2, 3, 12):
        (tmp_path / "models" / "mnist" / str(version)).mkdir(parents=True)
        (tmp_path / "models" / "mnist" / str(version) / "saved_model.pb").touch()
    (tmp_path / "models.config").write_text((CONFIG / "models.config").read_text())
    return tmp_path


def release(place: Path, move: str, version: int | str, server: str = "none", *flags, model: str = "mnist"):
    """Run the script as a user without the project's environment does."""
    paths = [f"--config={place / 'models.config'}", f"--models={place / 'models'}", f"--server={server}"]
    command = [DEPLOY / "release", move, model, str(version), *paths, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


def served(place: Path) -> tuple[list[int], dict[str, int]]:
    config = read_model_config(ServerSettings(model_config_file=str(place / "models.config")))
    entry = next(entry for entry in config.model_config_list.config if entry.name == "mnist")
    return list(entry.model_version_policy.specific.versions), dict(entry.version_labels)


def test_any_version_is_rolled_out_promoted_and_rolled_back(place):
    for move, version, expected in (
        ("roll-out", 2, ([1, 2], {"stable": 1, "canary": 2})),
        ("promote", 2, ([1, 2], {"stable": 2, "canary": 2})),
        ("roll-back", 1, ([1, 2], {"stable": 1, "canary": 2})),
        ("roll-back", 2, ([1, 2], {"stable": 2, "canary": 2})),
        ("roll-out", 12, ([2, 12], {"stable": 2, "canary": 12})),
        ("promote", 12, ([2, 12], {"stable": 12, "canary": 12})),
        ("roll-back", 3, ([2, 3, 12], {"stable": 3, "canary": 12})),
        ("roll-out", 1, ([1, 3], {"stable": 3, "canary": 1})),
    ):
        for _ in range(2):  # a second run changes nothing
            assert release(place, move, version).stderr == ""
            assert served(place) == expected


@pytest.mark.parametrize(
    ("move", "version", "model", "message"),
    [
        ("roll-out", 4, "mnist", "mnist has no version 4. It has: 1, 2, 3, 12"),
        ("roll-back", 0, "mnist", "has no version 0"),
        ("promote", 2, "mnist", "version 2 of mnist is not the canary. First: roll-out mnist 2"),
        ("roll-out", 2, "lm", "has no model lm"),
        ("roll-out", "two", "mnist", "invalid int value: 'two'"),
    ],
)
def test_an_invalid_command_is_refused_and_changes_nothing(place, move, version, model, message):
    before = (place / "models.config").read_text()
    done = release(place, move, version, model=model)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (place / "models.config").read_text() == before


def test_no_label_moves_to_a_version_that_the_server_does_not_have(place):
    done = release(place, "roll-out", 2, f"http://localhost:{free_port()}", "--seconds=0.3")
    assert done.returncode == 1
    assert "No label was moved" in done.stderr
    assert served(place) == ([1, 2], {"stable": 1})


def test_other_models_and_comments_are_not_changed(place):
    file = place / "models.config"
    other = (
        'config { name: "lm" base_path: "/models/lm" model_platform: "tensorflow" }  # "name" { of another'
    )
    entry = 'config {model_platform:"tensorflow" base_path:"/m/mnist" # name: "lm"\n name:"mnist" version_labels{key:"stable",value:3}}'
    file.write_text(f"# mine\nmodel_config_list {{\n{other}\n{entry}\n}}\n# the end\n")
    assert release(place, "roll-out", 2).returncode == 0
    assert served(place) == ([2, 3], {"stable": 3, "canary": 2})
    for kept in ("# mine\n", other, '# name: "lm"\n', "# the end\n"):
        assert kept in file.read_text()


def test_every_model_in_the_folder_is_listed_and_no_other(place):
    """As `make serve-container` does; labels of models that stay are kept."""
    (place / "models" / "lm" / "1").mkdir(parents=True)
    (place / "models" / "lm" / "1" / "saved_model.pb").touch()
    (place / "models" / "empty").mkdir()
    paths = [f"--config={place / 'models.config'}", f"--models={place / 'models'}"]

    def listed():
        for _ in range(2):  # a second run changes nothing
            subprocess.run([DEPLOY / "release", "sync", *paths], check=True, capture_output=True, timeout=90)
            config = read_model_config(ServerSettings(model_config_file=str(place / "models.config")))
            found = {entry.name: entry.base_path for entry in config.model_config_list.config}
        return found

    assert listed() == {"mnist": "/models/mnist", "lm": "/models/lm"}
    assert served(place) == ([1], {"stable": 1})
    shutil.rmtree(place / "models" / "mnist")
    assert listed() == {"lm": "/models/lm"}
    shutil.rmtree(place / "models" / "lm")
    done = subprocess.run([DEPLOY / "release", "sync", *paths], capture_output=True, text=True, timeout=90)
    assert (done.returncode, "has no model" in done.stderr) == (2, True)


def test_concurrent_releases_lose_nothing(place):
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda version: release(place, "roll-out", version), (2, 3, 12, 2)))
    assert [each.returncode for each in done] == [0] * 4
    versions, labels = served(place)
    assert versions == [1, labels["canary"]]


def test_no_request_fails_while_versions_are_rolled_out_promoted_and_rolled_back(
    exported, images, place, tmp_path
):
    models = place / "models" / "mnist"
    shutil.rmtree(models)
    for version in ("1", "2"):
        shutil.copytree(exported, models / version)
    config = (place / "models.config").read_text().replace("/models/mnist", str(models))
    (place / "models.config").write_text(config)
    server = start_server(
        tmp_path / "log",
        f"--model_config_file={place / 'models.config'}",
        "--model_config_file_poll_wait_seconds=1",
    )
    stopped, answered, failed = threading.Event(), [], []

    def keep_asking(label: str) -> None:
        with Client(server.address) as client:
            while not stopped.is_set():
                try:
                    client.predict("mnist", label=label, image=images[:1])
                    answered.append(label)
                except ServingError as error:
                    failed.append(f"{label}: {error}")

    def wait_for(label: str, version: int) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with urllib.request.urlopen(f"{server.rest}/v1/models/mnist/labels/{label}/metadata") as answer:
                if int(json.load(answer)["model_spec"]["version"]) == version:
                    return
            time.sleep(0.1)
        raise AssertionError(f"{label} is not version {version}")

    try:
        with ThreadPoolExecutor(3) as pool:
            callers = [pool.submit(keep_asking, "stable")]
            try:
                assert release(place, "roll-out", 2, server.rest).returncode == 0
                time.sleep(2)  # the label is there once the file has been read again
                wait_for("canary", 2)
                callers.append(pool.submit(keep_asking, "canary"))
                for move, version in (("promote", 2), ("roll-back", 1), ("roll-back", 2)):
                    assert release(place, move, version, server.rest).returncode == 0
                    wait_for("stable", version)
            finally:
                stopped.set()
            for caller in callers:
                caller.result()
    finally:
        server.stop()
    assert failed == []
    assert set(answered) == {"stable", "canary"}
