"""The flags of TF Serving, under the same names."""

import dataclasses
from dataclasses import dataclass

MAX_PORT = 65535
IGNORED = {
    "enable_grpc_healthcheck_service": "the health service is always on",
    "enable_per_model_batching_parameters": "all models have the parameters of --batching_parameters_file",
    "enable_profiler": "there is no profiler service",
    "flush_filesystem_caches": "the operating system decides",
    "mixed_precision": "a model runs in the precision of its export",
    "num_load_threads": "models are loaded one after the other, beside requests",
    "num_tflite_interpreters_per_pool": "TensorFlow Lite models are not served",
    "num_tflite_pools": "TensorFlow Lite models are not served",
    "num_unload_threads": "a model is unloaded beside requests",
    "per_process_gpu_memory_fraction": "TensorFlow takes memory of a GPU as it needs it",
    "platform_config_file": "the only platform is tensorflow",
    "prefer_tflite_model": "TensorFlow Lite models are not served",
    "remove_unused_fields_from_bundle_metagraph": "they are always removed",
    "rest_api_num_threads": "REST has no threads of its own",
    "skip_initialize_tpu": "there is no TPU",
    "tensorflow_inter_op_parallelism": "graphs of different models never wait for each other",
    "tensorflow_session_config_file": "there is no session",
    "thread_pool_factory_config_file": "TensorFlow's own thread pools are used",
    "xla_cpu_compilation_enabled": "a model is compiled as its export says",
}
"""Flags that TF Serving has and that do nothing here, and why."""


class ConfigError(ValueError):
    """A flag or config file that the server can't start with."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of the server. `model_base_path` or `model_config_file` names the models."""

    workers: int = 1
    """Processes that share the ports and add up their metrics, for a machine with more than two cores (Linux)."""
    host: str = "127.0.0.1"
    """Address to listen on: by default this machine only; 0.0.0.0 for all network interfaces."""
    port: int = 8500
    """TCP port of gRPC; 0 turns it off if there is a grpc_socket_path."""
    grpc_socket_path: str = ""
    """Unix socket of gRPC, besides the port."""
    rest_api_port: int | None = None
    """TCP port of the REST API and the demo page; 0 turns it off (None: 8501 if it is free; off if an
    ssl_config_file encrypts gRPC, because REST is not encrypted)."""
    rest_api_timeout_in_ms: int = 30000
    """Deadline of a REST request, in milliseconds."""
    rest_api_enable_cors_support: bool = False
    """Let pages of other origins call the REST API."""
    model_name: str = "default"
    """Name of the model in model_base_path."""
    model_base_path: str = ""
    """Folder with a sub-folder for each version of one model."""
    model_config_file: str = ""
    """ModelServerConfig in text format: several models, version policies, version labels. With it, `model_name`
    and `model_base_path` are ignored."""
    model_config_file_poll_wait_seconds: int = 0
    """Interval at which model_config_file is read again, in seconds; 0 reads it once."""
    file_system_poll_wait_seconds: int = 1
    """Interval at which the server looks for new versions, in seconds; 0 looks once."""
    allow_version_labels_for_unavailable_models: bool = False
    """Accept new labels of versions that are not available yet."""
    force_allow_any_version_labels_for_unavailable_models: bool = False
    """Accept labels that move to such versions, too."""
    saved_model_tags: str = "serve"
    """Tags of the graph to load from each SavedModel, separated by commas."""
    enable_signature_method_name_check: bool = False
    """Let Classify and Regress use only signatures whose method_name is theirs."""
    enable_serialization_as_tensor_content: bool = False
    """Write numbers of gRPC responses to `tensor_content`, which is faster to read, instead of value lists."""
    enable_batching: bool = False
    """Run requests that wait at the same time as one batch."""
    batching_parameters_file: str = ""
    """BatchingParameters in text format: sizes, timeout, queue."""
    monitoring_config_file: str = ""
    """MonitoringConfig in text format: path of the Prometheus metrics on the REST port."""
    ssl_config_file: str = ""
    """SSLConfig in text format: certificates that encrypt gRPC; whether clients need one too."""
    auth_token_file: str = ""
    """File of bearer tokens, one a line, of which a call needs one; read again when it changes. Health checks,
    metrics and the demo page need none."""
    grpc_max_threads: int = 0
    """Most calls at the same time, by gRPC and REST together; others get RESOURCE_EXHAUSTED; 0 for any number."""
    grpc_channel_arguments: str = ""
    """Options of the gRPC server: name=value, separated by commas."""
    use_alts_credentials: bool = False
    """Not supported: the server does not start with it."""
    tensorflow_session_parallelism: int = 0
    """Threads of an operation; 0 for one per core."""
    tensorflow_intra_op_parallelism: int = 0
    """The same; this flag is used if both are set."""
    enable_model_warmup: bool = True
    """Replay a version's warm-up requests before it serves."""
    num_request_iterations_for_warmup: int = 1
    """Times that each of them is replayed."""
    max_num_load_retries: int = 5
    """Attempts to load a version again after it failed."""
    load_retry_interval_micros: int = 60_000_000
    """Pause before each of them, in microseconds."""

    def __post_init__(self) -> None:
        if self.use_alts_credentials:
            raise ValueError("--use_alts_credentials is not supported; --ssl_config_file encrypts gRPC")
        if self.workers != 1 and (self.workers < 1 or not self.port or self.grpc_socket_path):
            raise ValueError(
                "--workers must be at least 1; several share a --port, no --grpc_socket_path. "
                f"Received: workers={self.workers}, port={self.port}, grpc_socket_path={self.grpc_socket_path!r}"
            )
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{name} must be at least 0. Received: {name}={value}")
            if name in ("port", "rest_api_port") and value is not None and value > MAX_PORT:
                raise ValueError(f"{name} must be 0 to {MAX_PORT}. Received: {name}={value}")
