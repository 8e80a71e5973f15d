"""TF Serving's config files: protocol buffers in text format.

tensorflow-serving-api has ModelServerConfig, but not SSLConfig, MonitoringConfig and
BatchingParameters: these are described here as in TF Serving's sources.
"""

import re
import ssl
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from serving.protocol import ModelServerConfig
from serving.server.ports import listen
from serving.server.settings import ConfigError, ServerSettings
from serving.server.tokens import Tokens

PACKAGE = "tensorflow.serving"
_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64_VALUE = ".google.protobuf.Int64Value"
_MESSAGES: dict[str, dict[str, Any]] = {
    "PrometheusConfig": {"enable": _FIELD.TYPE_BOOL, "path": _FIELD.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": f".{PACKAGE}.PrometheusConfig"},
    "SSLConfig": {
        "server_key": _FIELD.TYPE_STRING,
        "server_cert": _FIELD.TYPE_STRING,
        "custom_ca": _FIELD.TYPE_STRING,
        "client_verify": _FIELD.TYPE_BOOL,
    },
    "BatchingParameters": {
        "max_batch_size": _INT64_VALUE,
        "batch_timeout_micros": _INT64_VALUE,
        "max_enqueued_batches": _INT64_VALUE,
        "num_batch_threads": _INT64_VALUE,
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": [_FIELD.TYPE_INT64],
        "pad_variable_length_inputs": _FIELD.TYPE_BOOL,
    },
}


def _build_messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="config.proto", package=PACKAGE, syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields.items(), start=1):
            field = message.field.add(name=field_name, number=number)
            field.label = _FIELD.LABEL_REPEATED if isinstance(kind, list) else _FIELD.LABEL_OPTIONAL
            kind = kind[0] if isinstance(kind, list) else kind
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, kind
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _build_messages()


@dataclass(frozen=True)
class Batching:
    """How requests are batched.

    Attributes:
        max_batch_size: Most examples in a batch, and in a request.
        timeout: Longest time that a batch waits for more requests, in seconds.
        max_enqueued_batches: Most full batches that may wait; above that requests are refused.
        threads: Batches that run at the same time. TF Serving runs one per core. Here one in all gave 1.5
            times as many requests per second, because the rest of the server needs the other cores.
        allowed_batch_sizes: Sizes that batches are padded to, increasing; empty for any.
    """

    max_batch_size: int = 1000
    timeout: float = 0.0
    max_enqueued_batches: int = 10
    threads: int = 1
    allowed_batch_sizes: tuple[int, ...] = ()

    def within(self, max_rows: int | None) -> "Batching":
        """Return the settings for a model that accepts batches of at most `max_rows` rows."""
        if max_rows is None or max_rows >= self.max_batch_size:
            return self
        sizes = tuple(size for size in self.allowed_batch_sizes if size <= max_rows)
        return replace(self, max_batch_size=max_rows, allowed_batch_sizes=sizes)


def read_text_message(path: str, message: Any) -> Any:
    """Read a message in text format.

    Raises:
        ConfigError: The file can't be read, or a syntax error, with its line.
    """
    try:
        text_format.Parse(Path(path).read_text(), message)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    except text_format.ParseError as error:
        raise ConfigError(
            f"Invalid protobuf file: '{path}'. Error parsing text-format {message.DESCRIPTOR.full_name}: {error}"
        ) from error
    return message


def check(settings: ServerSettings) -> None:
    """Refuse at once what the server can't start with: TensorFlow, which it imports then, takes seconds.

    Raises:
        ConfigError: Invalid flags or config files, a folder that does not exist, a port in use.
    """
    check_base_paths(read_model_config(settings))
    read_batching(settings)
    read_metrics_path(settings)
    read_channel_arguments(settings)
    read_ssl_config(settings)  # no credentials: gRPC would start threads, and workers are forked
    read_auth_tokens(settings)
    for flag in ("port", "rest_api_port"):
        if getattr(settings, flag):
            listen(settings, flag).close()


def read_model_config(settings: ServerSettings) -> Any:
    """Return the ModelServerConfig of the file, or with the one model that the flags name.

    Raises:
        ConfigError: No model is named, or an invalid config.
    """
    config = ModelServerConfig()
    if settings.model_config_file:
        read_text_message(settings.model_config_file, config)
    elif settings.model_base_path:
        base_path = str(Path(settings.model_base_path).absolute())
        config.model_config_list.config.add(
            name=settings.model_name, base_path=base_path, model_platform="tensorflow"
        )
    else:
        raise ConfigError("--model_base_path or --model_config_file must name the models")
    check_model_config(config)
    return config


def check_model_config(config: Any) -> None:
    """Refuse a model config that TF Serving refuses, in its words.

    Raises:
        ConfigError: The same name twice, a path that is not absolute, another platform than TensorFlow.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise ConfigError("custom_model_config is not supported; use model_config_list")
    names = set()
    for model in config.model_config_list.config:
        if model.name in names:
            raise ConfigError(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
    for model in config.model_config_list.config:
        if not Path(model.base_path).is_absolute():
            raise ConfigError(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
        if not model.model_platform:
            raise ConfigError(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) "
                "nor ModelServerConfig::model_platform."
            )
        if model.model_platform != "tensorflow":
            raise ConfigError(f"Model {model.name} requests unsupported platform {model.model_platform}")


def check_base_paths(config: Any) -> None:
    """Refuse a model whose folder does not exist, in TF Serving's words.

    Raises:
        ConfigError: A base path that does not exist.
    """
    for model in config.model_config_list.config:
        if not Path(model.base_path).is_dir():
            raise ConfigError(f"Could not find base path {model.base_path} for servable {model.name}")


def read_batching(settings: ServerSettings) -> Batching | None:
    """Return the batching parameters, or None if batching is off.

    Raises:
        ConfigError: Parameters without --enable_batching, or out of their range.
    """
    if not settings.enable_batching:
        if settings.batching_parameters_file:
            raise ConfigError("--batching_parameters_file needs --enable_batching")
        return None
    if not settings.batching_parameters_file:
        return Batching()
    parameters = read_text_message(settings.batching_parameters_file, _CLASSES["BatchingParameters"]())
    defaults = Batching()

    def value(name: str, default: int) -> int:
        return getattr(parameters, name).value if parameters.HasField(name) else default

    batching = Batching(
        max_batch_size=value("max_batch_size", defaults.max_batch_size),
        timeout=value("batch_timeout_micros", 0) / 1e6,
        max_enqueued_batches=value("max_enqueued_batches", defaults.max_enqueued_batches),
        threads=value("num_batch_threads", defaults.threads),
        allowed_batch_sizes=tuple(parameters.allowed_batch_sizes),
    )
    sizes = batching.allowed_batch_sizes
    if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != batching.max_batch_size):
        raise ConfigError(
            f"{settings.batching_parameters_file}: allowed_batch_sizes must increase and end with max_batch_size. "
            f"Received: {list(sizes)}, max_batch_size={batching.max_batch_size}"
        )
    if (
        batching.max_batch_size < 1
        or batching.threads < 1
        or batching.max_enqueued_batches < 1
        or batching.timeout < 0
    ):
        raise ConfigError(
            f"{settings.batching_parameters_file}: sizes must be at least 1. Received: {batching}"
        )
    return batching


def read_metrics_path(settings: ServerSettings) -> str | None:
    """Return the path of the Prometheus metrics, or None if they are off."""
    if not settings.monitoring_config_file:
        return None
    config = read_text_message(
        settings.monitoring_config_file, _CLASSES["MonitoringConfig"]()
    ).prometheus_config
    return (config.path or "/monitoring/prometheus/metrics") if config.enable else None


def read_channel_arguments(settings: ServerSettings) -> tuple[tuple[str, Any], ...]:
    """Return the options of the gRPC server, whose values are numbers where they can be.

    Raises:
        ConfigError: An option without a value.
    """
    options = []
    for argument in filter(None, settings.grpc_channel_arguments.split(",")):
        name, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"--grpc_channel_arguments must be name=value,... Received: {argument!r}")
        options.append((name, int(value) if re.fullmatch("-?[0-9]+", value) else value))
    return tuple(options)


def read_auth_tokens(settings: ServerSettings) -> Tokens | None:
    """Return the valid tokens, or None to let everybody call.

    Raises:
        ConfigError: A file that can't be read, without a token, or with an invalid line.
    """
    return Tokens(settings.auth_token_file) if settings.auth_token_file else None


def read_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """Return the server's credentials, or None for an unencrypted connection.

    Raises:
        ConfigError: As `read_ssl_config`.
    """
    config = read_ssl_config(settings)
    if config is None:
        return None
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def read_ssl_config(settings: ServerSettings) -> Any:
    """Return the SSLConfig, or None without one.

    Raises:
        ConfigError: An invalid key or certificate.
    """
    if not settings.ssl_config_file:
        return None
    config = read_text_message(settings.ssl_config_file, _CLASSES["SSLConfig"]())
    _check_certificate(settings.ssl_config_file, config.server_key, config.server_cert)
    if config.client_verify and not config.custom_ca:
        raise ConfigError(
            f"{settings.ssl_config_file}: client_verify needs a custom_ca to verify clients with"
        )
    return config


def _check_certificate(path: str, key: str, certificate: str) -> None:
    """Load key and certificate as gRPC will, whose error only says that binding failed."""
    if "ENCRYPTED" in key:
        raise ConfigError(f"{path}: server_key is encrypted; the server can't ask for its password")
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # readable by its owner only
        file.write(f"{key}\n{certificate}\n")
        file.flush()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file.name)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"{path}: server_key and server_cert are not a PEM key and certificate that belong together: {error}"
            ) from error
