"""Flags and config files of the embedded server."""

import pytest

from serving.__main__ import spell_flags
from serving.server.configs import (
    Batching,
    read_batching,
    read_credentials,
    read_metrics_path,
    read_model_config,
)
from serving.server.manager import versions_on_disk, wanted_versions
from serving.server.settings import ConfigError, ServerSettings
from tests.processes import assert_refused, run_command
from tests.serving.certificates import certificates, ssl_config


def test_a_key_that_cannot_be_used_is_refused(tmp_path):
    certificates(tmp_path)
    for key, message in (("server.locked.key", "server_key is encrypted"), ("client.key", "belong together")):
        settings = ServerSettings(ssl_config_file=str(ssl_config(tmp_path, key)))
        with pytest.raises(ConfigError, match=message):
            read_credentials(settings)
    (tmp_path / "ssl.config").write_text('server_key: "no PEM" server_cert: "neither"')
    with pytest.raises(ConfigError, match="not a PEM key and certificate"):
        read_credentials(ServerSettings(ssl_config_file=str(tmp_path / "ssl.config")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model_base_path or --model_config_file must name the models"),
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
def test_flags_it_cannot_start_with_are_refused_before_tensorflow_is_imported(flags, message):
    assert_refused(run_command("serving", "serve", *flags, KERAS_BACKEND="none"), message)


def test_config_files_are_read_and_a_syntax_error_names_its_line(tmp_path):
    path = tmp_path / "batching"
    path.write_text(
        "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 5000 }\nallowed_batch_sizes: 8\nallowed_batch_sizes: 32"
    )
    settings = ServerSettings(enable_batching=True, batching_parameters_file=str(path))
    assert read_batching(settings) == Batching(32, 0.005, 10, 1, (8, 32))
    path.write_text("max_batch_size { value: 32 }\nmax_batch_sise { value: 32 }")
    syntax = r"Invalid protobuf file: '.*batching'. Error parsing text-format tensorflow.serving.BatchingParameters: 2:1"
    with pytest.raises(ConfigError, match=syntax):
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
    for model, message in (
        ('name: "a"', r"Expected model a to have an absolute path or URI; got base_path\(\)="),
        ('name: "a" base_path: "m"', r"got base_path\(\)=m"),
        ('name: "a" base_path: "/m"', "Illegal setting neither ModelServerConfig::model_type"),
        ('name: "a" base_path: "/m" model_platform: "x"', "Model a requests unsupported platform x"),
    ):
        path.write_text(f"model_config_list {{ config {{ {model} }} }}")
        with pytest.raises(ConfigError, match=message):
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
    model = f'name: "m" base_path: "{tmp_path}" model_platform: "tensorflow"'
    path.write_text(f"model_config_list {{ config {{ {model} {policy} }} }}")
    config = read_model_config(ServerSettings(model_config_file=str(path))).model_config_list.config[0]
    assert wanted_versions(config, versions_on_disk(tmp_path)) == wanted


def test_tf_servings_booleans_are_understood():
    spelt, ignored = spell_flags(
        ["--enable_batching=true", "--x=False", "--port=1", "--enable_profiler=true"]
    )
    assert spelt == ["--enable_batching", "--no_x", "--port=1"]
    assert ignored == ["--enable_profiler does nothing here: there is no profiler service"]
