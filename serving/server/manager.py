"""Which versions of which models are served: found, loaded, warmed up, swapped, dropped.

A new version is loaded and warmed up before the old one is dropped, and the old one is closed
only when its last request has been answered. All of this runs in one event loop; only the
loading itself runs in a thread.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf

from serving.server.errors import ConfigError, StatusError, failed_precondition, invalid_argument, not_found
from serving.server.metrics import Metrics
from serving.server.servable import Servable

log = logging.getLogger("serving")

START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50
Loader = Callable[[str, int, Path], Servable]


@dataclass
class Version:
    """A version of a model and what has become of it.

    Attributes:
        state: As GetModelStatus gives it: START, LOADING, AVAILABLE, UNLOADING, END.
        error: Why it could not be loaded.
        servable: The loaded model while it is AVAILABLE or UNLOADING.
        users: Requests that are using it.
        attempts: How often it was tried to load.
        retry_at: When it may be tried again, in seconds of the monotonic clock.
    """

    state: int = START
    error: StatusError | None = None
    servable: Servable | None = None
    users: int = 0
    attempts: int = 0
    retry_at: float = 0.0


@dataclass
class Model:
    """A model's config and versions.

    Attributes:
        config: Its ModelConfig.
        versions: What has become of each version, by number.
        wanted: The versions that its policy chooses from what is on disk.
        warned: Whether it was said that there are none.
    """

    config: Any
    versions: dict[int, Version] = field(default_factory=dict)
    wanted: list[int] = field(default_factory=list)
    warned: bool = False

    def available(self) -> list[int]:
        """Return the version numbers that serve, increasing."""
        return sorted(number for number, version in self.versions.items() if version.state == AVAILABLE)


class ModelManager:
    """Keeps what is served in step with the config and the file system.

    Args:
        load: Loads and warms up a version; runs in a thread.
        executor: Where it runs.
        metrics: Counts the loads.
        forget: Called with a servable that is about to be closed.
        retries: How often a version that failed is tried again.
        retry_seconds: Pause before that.
        free_labels: Whether labels of versions that are not available are accepted.
    """

    def __init__(
        self,
        load: Loader,
        executor: Executor,
        metrics: Metrics,
        forget: Callable[[Servable], None],
        *,
        retries: int = 5,
        retry_seconds: float = 60.0,
        free_labels: bool = False,
    ) -> None:
        self.models: dict[str, Model] = {}
        self._load = load
        self._executor = executor
        self._metrics = metrics
        self._forget = forget
        self._retries = retries
        self._retry_seconds = retry_seconds
        self._free_labels = free_labels
        self._lock = asyncio.Lock()

    async def apply(self, config: Any) -> None:
        """Serve what a ModelServerConfig lists, and nothing else.

        Raises:
            StatusError: FAILED_PRECONDITION for a label of a version that is not available.
            ConfigError: A base path that is not there.
        """
        listed = {model.name: model for model in config.model_config_list.config}
        for model in listed.values():
            if not Path(model.base_path).is_dir():
                raise ConfigError(f"Could not find base path {model.base_path} for servable {model.name}")
        async with self._lock:
            before = {name: model.config for name, model in self.models.items()}
            for name in set(self.models) - set(listed):
                self._drop(self.models.pop(name))
            for name, model_config in listed.items():
                if name in before and before[name].base_path != model_config.base_path:
                    self._drop(self.models.pop(name))
                model = self.models.setdefault(name, Model(model_config))
                labels = dict(before[name].version_labels) if name in before else {}
                model.config = _with_labels(model_config, labels)
                await self._load_wanted(model)
            for name, model_config in listed.items():
                self._check_labels(name, model_config)
            # Labels move and old versions go in one step: no caller sees a label without its version.
            for name, model_config in listed.items():
                self.models[name].config = model_config
                self._drop_unwanted(self.models[name])

    def _check_labels(self, name: str, config: Any) -> None:
        for version in config.version_labels.values():
            if not self._free_labels and version not in self.models[name].available():
                raise failed_precondition(
                    f"Request to assign label to version {version} of model {name}, "
                    "which is not currently available for inference"
                )

    async def poll(self) -> None:
        """Look for new versions of all models, load them, and drop what they replace."""
        async with self._lock:
            for model in self.models.values():
                await self._load_wanted(model)
                self._drop_unwanted(model)

    async def _load_wanted(self, model: Model) -> None:
        base = Path(model.config.base_path)
        loop = asyncio.get_running_loop()
        on_disk = await loop.run_in_executor(self._executor, versions_on_disk, base)
        model.wanted = wanted_versions(model.config, on_disk)
        if not model.wanted and not model.warned:
            log.warning("No versions of servable %s found under base path %s", model.config.name, base)
        model.warned = not model.wanted
        for number in model.wanted:
            await self._load_version(
                model.config.name, number, model.versions.setdefault(number, Version()), base
            )

    def _drop_unwanted(self, model: Model) -> None:
        """Drop old versions when a wanted one serves; until then they are better than nothing."""
        if any(number in model.wanted for number in model.available()):
            self._drop(model, keep=model.wanted)

    async def _load_version(self, name: str, number: int, version: Version, base: Path) -> None:
        if version.state in (AVAILABLE, UNLOADING):
            return
        if version.attempts > self._retries or time.monotonic() < version.retry_at:
            return
        path = base / str(number)
        version.state, version.error = LOADING, None
        version.attempts += 1
        started = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            version.servable = await loop.run_in_executor(self._executor, self._load, name, number, path)
        except Exception as error:  # whatever a broken folder makes TensorFlow raise
            version.state, version.error = END, _load_error(error)
            version.retry_at = time.monotonic() + self._retry_seconds
            self._metrics.load(str(path), "fail", time.monotonic() - started)
            log.error("model %s version %d is not served: %s", name, number, version.error.text)
            return
        version.state, version.attempts = AVAILABLE, 0
        self._metrics.load(str(path), "success", time.monotonic() - started)
        log.info("model %s version %d is served, after %.1f s", name, number, time.monotonic() - started)

    def _drop(self, model: Model, keep: Sequence[int] = ()) -> None:
        for number in [number for number in model.versions if number not in keep]:
            version = model.versions[number]
            if version.state == AVAILABLE:
                version.state = UNLOADING
                log.info("model %s version %d is dropped", model.config.name, number)
                self._close_if_idle(version)
            elif version.state == END and version.error is not None:
                del model.versions[number]

    def _close_if_idle(self, version: Version) -> None:
        if version.state == UNLOADING and version.users == 0 and version.servable is not None:
            servable, version.servable, version.state = version.servable, None, END
            self._forget(servable)
            self._executor.submit(servable.close)

    @contextlib.contextmanager
    def use(self, spec: Any) -> Iterator[Servable]:
        """Give the servable of a ModelSpec, and keep it loaded until it is given back.

        Raises:
            StatusError: A spec that names nothing that is served.
        """
        number = self.resolve(spec)
        version = self.models[spec.name].versions[number]
        servable = version.servable
        if servable is None:
            raise not_found(f"Servable not found for request: {_describe(spec)}")
        version.users += 1
        try:
            yield servable
        finally:
            version.users -= 1
            self._close_if_idle(version)

    def resolve(self, spec: Any) -> int:
        """Return the version number of a ModelSpec.

        Raises:
            StatusError: NOT_FOUND or INVALID_ARGUMENT, in TF Serving's words.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        model = self.models.get(spec.name)
        available = model.available() if model else []
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            if model is None or spec.version_label not in model.config.version_labels:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            number = model.config.version_labels[spec.version_label]
        elif choice == "version":
            number = spec.version.value
        else:
            number = available[-1] if available else -1
        if number not in available:
            raise not_found(f"Servable not found for request: {_describe(spec, number if choice else None)}")
        return int(number)

    def states(self, spec: Any) -> dict[int, Version]:
        """Return the versions of a ModelSpec with their states, highest first.

        Raises:
            StatusError: NOT_FOUND.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        model = self.models.get(spec.name)
        versions = model.versions if model else {}
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label" and model is not None:
            versions = {self.resolve(spec): versions[self.resolve(spec)]}
        elif choice == "version":
            number = spec.version.value
            if number not in versions:
                raise not_found(f"Could not find version {number} of model {spec.name}")
            versions = {number: versions[number]}
        if not versions:
            raise not_found(f"Could not find any versions of model {spec.name}")
        return dict(sorted(versions.items(), reverse=True))


def _describe(spec: Any, number: int | None = None) -> str:
    return f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"


def _with_labels(config: Any, labels: Mapping[str, int]) -> Any:
    copy = type(config)()
    copy.CopyFrom(config)
    copy.version_labels.clear()
    copy.version_labels.update(labels)
    return copy


def _load_error(error: Exception) -> StatusError:
    if isinstance(error, StatusError):
        return error
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    code = grpc.StatusCode.INTERNAL if isinstance(error, tf.errors.OpError) else grpc.StatusCode.UNKNOWN
    return StatusError(code, text.strip().splitlines()[0])


def versions_on_disk(base: Path) -> list[int]:
    """Return the version numbers in a model's folder, increasing; other names are no versions."""
    try:
        return sorted(int(path.name) for path in base.iterdir() if path.name.isdecimal() and path.is_dir())
    except OSError as error:
        log.error("base path %s can't be read: %s", base, error)
        return []


def wanted_versions(config: Any, on_disk: list[int]) -> list[int]:
    """Apply a version policy (latest, the default, with the newest 1; all; specific) to what there is."""
    policy = config.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return on_disk
    if kind == "specific":
        return [number for number in on_disk if number in policy.specific.versions]
    return on_disk[-max(policy.latest.num_versions, 1) :]
