"""All flags of TF Serving 2.20: obeyed, or said to do nothing."""

import dataclasses
import re

import pytest

from serving import protocol
from serving.__main__ import spell_flags
from serving.protocol import PREDICTION
from serving.server.settings import IGNORED, ServerSettings
from tests.processes import run_command
from tests.serving.conftest import in_process
from tests.serving.test_tf_serving import call, example

FLAGS = """
allow_version_labels_for_unavailable_models batching_parameters_file enable_batching enable_grpc_healthcheck_service
enable_model_warmup enable_per_model_batching_parameters enable_profiler enable_serialization_as_tensor_content
enable_signature_method_name_check file_system_poll_wait_seconds flush_filesystem_caches
force_allow_any_version_labels_for_unavailable_models grpc_channel_arguments grpc_max_threads grpc_socket_path
load_retry_interval_micros max_num_load_retries mixed_precision model_base_path model_config_file
model_config_file_poll_wait_seconds model_name monitoring_config_file num_load_threads
num_request_iterations_for_warmup num_tflite_interpreters_per_pool num_tflite_pools num_unload_threads
per_process_gpu_memory_fraction platform_config_file port prefer_tflite_model
remove_unused_fields_from_bundle_metagraph rest_api_enable_cors_support rest_api_num_threads rest_api_port
rest_api_timeout_in_ms saved_model_tags skip_initialize_tpu ssl_config_file tensorflow_inter_op_parallelism
tensorflow_intra_op_parallelism tensorflow_session_config_file tensorflow_session_parallelism
thread_pool_factory_config_file use_alts_credentials version xla_cpu_compilation_enabled
"""


def test_flags_that_change_the_server(half_plus_two):
    predict = protocol.PredictRequest(
        model_spec={"name": "hp"},
        inputs={"x": {"dtype": 1, "float_val": [2], "tensor_shape": {"dim": [{"size": 1}]}}},
    )
    classify = protocol.message("tensorflow.serving.ClassificationRequest")(
        model_spec={"name": "hp", "signature_name": "regress_x_to_y"},
        input={"example_list": {"examples": [example(x=2)]}},
    )
    flags = {
        "model_name": "hp",
        "model_base_path": str(half_plus_two),
        "saved_model_tags": "serve",
        "enable_serialization_as_tensor_content": True,
        "enable_signature_method_name_check": True,
        "grpc_channel_arguments": "grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
    }
    with in_process(**flags) as (server, _):
        _, _, content = call(server, PREDICTION + "Predict", predict.SerializeToString())
        assert protocol.PredictResponse.FromString(content).outputs["y"].tensor_content
        assert call(server, PREDICTION + "Classify", classify.SerializeToString())[:2] == (
            "INVALID_ARGUMENT",
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/regress",
        )


def test_all_flags_of_tf_serving_are_known():
    obeyed = {field.name for field in dataclasses.fields(ServerSettings)}
    names = FLAGS.split()
    assert len(names) == 48
    assert set(names) == set(IGNORED) | (obeyed - {"host", "auth_token_file", "workers"}) | {"version"}
    assert not obeyed & set(IGNORED)
    spelt, lines = spell_flags([f"--{name}=1" for name in IGNORED])
    assert (spelt, len(lines)) == ([], len(IGNORED))
    with pytest.raises(ValueError, match="--use_alts_credentials is not supported"):
        ServerSettings(use_alts_credentials=True)


def test_the_version_is_printed():
    done = run_command("serving", "serve", "--version")
    assert re.fullmatch(r"TensorFlow Library: [0-9.]+\n", done.stdout)
