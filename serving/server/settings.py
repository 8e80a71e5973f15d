"""TF Serving's flags, under their names; those of them that this server gives a meaning to."""

import dataclasses
from dataclasses import dataclass

MAX_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of the server. Exactly one of `model_base_path` and `model_config_file` says what it serves."""

    host: str = "127.0.0.1"
    """Address to listen on: this machine alone is answered by default; 0.0.0.0 answers every network."""
    port: int = 8500
    """TCP port of gRPC; 0 turns it off where there is a grpc_socket_path."""
    grpc_socket_path: str = ""
    """Unix socket to listen on for gRPC, besides the port."""
    rest_api_port: int | None = None
    """TCP port of the REST API and the demo page; 0 turns it off (None: 8501, where that is free; off where
    an ssl_config_file encrypts gRPC, for REST is plain text)."""
    rest_api_timeout_in_ms: int = 30000
    """Longest time a REST request may take, in milliseconds."""
    rest_api_enable_cors_support: bool = False
    """Let pages of other origins call the REST API."""
    model_name: str = "default"
    """Name of the model in model_base_path."""
    model_base_path: str = ""
    """Folder with a sub-folder for each version of one model."""
    model_config_file: str = ""
    """ModelServerConfig in text format: several models, version policies, version labels."""
    model_config_file_poll_wait_seconds: int = 0
    """How often to read model_config_file again, in seconds; 0 reads it once."""
    file_system_poll_wait_seconds: int = 1
    """How often to look for new versions, in seconds; 0 looks once."""
    allow_version_labels_for_unavailable_models: bool = False
    """Accept a label of a version that is not available yet."""
    enable_batching: bool = False
    """Run requests that wait at the same time as one batch."""
    batching_parameters_file: str = ""
    """BatchingParameters in text format: sizes, time limit, queue."""
    monitoring_config_file: str = ""
    """MonitoringConfig in text format: whether and where the REST port shows Prometheus metrics."""
    ssl_config_file: str = ""
    """SSLConfig in text format: encrypt gRPC, and ask for client certificates or not."""
    grpc_max_threads: int = 0
    """Calls served at the same time before others get RESOURCE_EXHAUSTED; 0 for any number."""
    tensorflow_session_parallelism: int = 0
    """Threads that an operation may use; 0 for one per core."""
    enable_model_warmup: bool = True
    """Replay a version's warm-up requests before it serves."""
    max_num_load_retries: int = 5
    """How often to try again to load a version that failed."""
    load_retry_interval_micros: int = 60_000_000
    """Pause before that, in microseconds."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{name} must be at least 0. Received: {name}={value}")
            if name in ("port", "rest_api_port") and value is not None and value > MAX_PORT:
                raise ValueError(f"{name} must be 0 to {MAX_PORT}. Received: {name}={value}")
