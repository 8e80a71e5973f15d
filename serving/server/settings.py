"""The flags of TF Serving that this server supports, under the same names."""

import dataclasses
from dataclasses import dataclass

MAX_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of the server. Exactly one of `model_base_path` and `model_config_file` names the models."""

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
    """ModelServerConfig in text format: several models, version policies, version labels."""
    model_config_file_poll_wait_seconds: int = 0
    """Interval at which model_config_file is read again, in seconds; 0 reads it once."""
    file_system_poll_wait_seconds: int = 1
    """Interval at which the server looks for new versions, in seconds; 0 looks once."""
    allow_version_labels_for_unavailable_models: bool = False
    """Accept labels of versions that are not available yet."""
    enable_batching: bool = False
    """Run requests that wait at the same time as one batch."""
    batching_parameters_file: str = ""
    """BatchingParameters in text format: sizes, timeout, queue."""
    monitoring_config_file: str = ""
    """MonitoringConfig in text format: path of the Prometheus metrics on the REST port."""
    ssl_config_file: str = ""
    """SSLConfig in text format: certificates that encrypt gRPC; whether clients need one too."""
    grpc_max_threads: int = 0
    """Most calls at the same time, by gRPC and REST together; others get RESOURCE_EXHAUSTED; 0 for any number."""
    tensorflow_session_parallelism: int = 0
    """Threads of an operation; 0 for one per core."""
    enable_model_warmup: bool = True
    """Replay a version's warm-up requests before it serves."""
    max_num_load_retries: int = 5
    """Attempts to load a version again after it failed."""
    load_retry_interval_micros: int = 60_000_000
    """Pause before each of them, in microseconds."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{name} must be at least 0. Received: {name}={value}")
            if name in ("port", "rest_api_port") and value is not None and value > MAX_PORT:
                raise ValueError(f"{name} must be 0 to {MAX_PORT}. Received: {name}={value}")
