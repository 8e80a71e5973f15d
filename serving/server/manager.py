"""The models and versions that are served: found on disk, loaded, warmed up, swapped, unloaded.

A new version is loaded and warmed up before the old one is unloaded, and the old one is closed
only when its last request has been answered. All of this runs in one event loop; only the
loading itself runs in a thread.
"""

import asyncio
import contextlib
import dataclasses
import logging
import re
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import grpc
import tensorflow as tf

from serving.server.calls import Call
from serving.server.configs import check_base_paths
from serving.server.errors import StatusError, failed_precondition, invalid_argument, not_found
from serving.server.metrics import Metrics
from serving.server.servable import Servable

log = logging.getLogger("serving")

LARGEST_VERSION = 2**63 - 1
START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50
Loader = Callable[[str, int, Path], Servable]


@dataclass
class Version:
    """A version of a model and its state.

    Attributes:
        state: START, LOADING, AVAILABLE, UNLOADING or END, as in GetModelStatus.
        error: Why it could not be loaded.
        servable: The loaded model while it is AVAILABLE or UNLOADING.
        users: Requests that are using it.
        attempts: Attempts to load it since it was last available.
        retry_at: Time of the next attempt, in seconds of the monotonic clock.
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
        versions: Its versions by number.
        wanted: The numbers that its policy chooses from the versions on disk.
        warned: Whether the log says that there are none.
    """

    config: Any
    versions: dict[int, Version] = field(default_factory=dict)
    wanted: list[int] = field(default_factory=list)
    warned: bool = False

    def available(self) -> list[int]:
        """Return the version numbers that serve, increasing."""
        return sorted(number for number, version in self.versions.items() if version.state == AVAILABLE)


class ModelManager:
    """Serves the models of the config with the versions of the file system.

    Args:
        load: Loads and warms up a version; runs in a thread.
        executor: Runs `load`.
        metrics: Counts the loads.
        forget: Called with a servable before it is closed.
        retries: Attempts to load a version again after it failed.
        retry_seconds: Pause before each of them.
        unavailable: Which labels may be of versions that are not available: none, those that are new, or any.

    Attributes:
        models: The models by name.
        ready: Whether every model has had a version that serves. A model that loses its last version later must not
            take the others out of a load balancer.
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
        unavailable: Literal["none", "new", "any"] = "none",
    ) -> None:
        self.models: dict[str, Model] = {}
        self.ready = False
        self._ended: dict[str, dict[int, Version]] = {}
        self._load = load
        self._executor = executor
        self._metrics = metrics
        self._forget = forget
        self._retries = retries
        self._retry_seconds = retry_seconds
        self._unavailable = unavailable
        self._lock = asyncio.Lock()

    async def apply(self, config: Any) -> None:
        """Serve exactly the models of a ModelServerConfig. If it is refused, nothing changes.

        Raises:
            StatusError: FAILED_PRECONDITION for a label of a version that is not available, or for a
                model that would move to a folder without a version that can be loaded.
            ConfigError: A base path that does not exist.
        """
        check_base_paths(config)
        async with self._lock:
            staged = {model.name: self._stage(model) for model in config.model_config_list.config}
            try:
                for model in staged.values():
                    await self._load_wanted(model)
                for name, model in staged.items():
                    self._check_labels(name, model)
                    self._check_move(name, model)
            except BaseException:  # also a caller that left: what was loaded for it is closed
                for name, model in staged.items():
                    served = self.models[name].versions if name in self.models else {}
                    self._drop(model, keep=[n for n, v in model.versions.items() if served.get(n) is v])
                raise
            # All changes in one step: no caller sees a label without its version or misses a model for a moment.
            before = dict(self.models)
            self.models.clear()
            self.models.update(staged)
            for name, model in before.items():
                if name not in staged or model.config.base_path != staged[name].config.base_path:
                    self._drop(model)
                    self._ended.setdefault(name, {}).update(model.versions)
            for model in staged.values():
                self._drop_unwanted(model)
            self._become_ready()

    def _stage(self, config: Any) -> Model:
        """Return the model of a new config, with the loaded versions of the current one in the same folder."""
        served = self.models.get(config.name)
        if served is None or served.config.base_path != config.base_path:
            return Model(config)
        versions = {
            number: version if version.servable else dataclasses.replace(version)
            for number, version in served.versions.items()
        }
        return Model(config, versions, warned=served.warned)

    def _check_labels(self, name: str, model: Model) -> None:
        before = self.models[name].config.version_labels if name in self.models else {}
        for label, version in model.config.version_labels.items():
            is_new = before.get(label, version) == version
            allowed = self._unavailable == "any" or (self._unavailable == "new" and is_new)
            if version not in model.available() and not allowed:
                raise failed_precondition(
                    f"Request to assign label to version {version} of model {name}, "
                    "which is not currently available for inference"
                )

    def _check_move(self, name: str, model: Model) -> None:
        if name in self.models and self.models[name].available() and not model.available():
            raise failed_precondition(
                f"No version of model {name} under base path {model.config.base_path} could be loaded"
            )

    async def poll(self) -> None:
        """Look for new versions of all models, load them, and unload those they replace."""
        async with self._lock:
            for model in self.models.values():
                await self._load_wanted(model)
                self._drop_unwanted(model)
            self._become_ready()

    def _become_ready(self) -> None:
        self.ready = self.ready or all(model.available() for model in self.models.values())

    async def _load_wanted(self, model: Model) -> None:
        name, base = model.config.name, Path(model.config.base_path)
        loop = asyncio.get_running_loop()
        on_disk = await loop.run_in_executor(self._executor, versions_on_disk, base)
        model.wanted = wanted_versions(model.config, on_disk)
        if not model.wanted and not model.warned:
            log.warning("No versions of servable %s found under base path %s", name, base)
        model.warned = not model.wanted
        for number in model.wanted:
            version = model.versions.setdefault(number, Version())
            await self._load_version(name, number, version, on_disk[number])

    def _drop_unwanted(self, model: Model) -> None:
        """Unload old versions once a wanted one is available; until then they continue to serve."""
        if any(number in model.wanted for number in model.available()):
            self._drop(model, keep=model.wanted)

    async def _load_version(self, name: str, number: int, version: Version, path: Path) -> None:
        if version.state in (AVAILABLE, UNLOADING):
            return
        if version.attempts > self._retries or time.monotonic() < version.retry_at:
            return
        version.state, version.error = LOADING, None
        version.attempts += 1
        started = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            version.servable = await loop.run_in_executor(self._executor, self._load, name, number, path)
        except Exception as error:  # TensorFlow raises almost anything for a corrupt folder
            version.state, version.error = END, _load_error(error)
            version.retry_at = time.monotonic() + self._retry_seconds
            self._metrics.load(str(path), "fail", time.monotonic() - started)
            log.error("model %s version %d is not served: %s", name, number, version.error.text)
            return
        version.state, version.attempts = AVAILABLE, 0
        self._metrics.load(str(path), "success", time.monotonic() - started)
        log.info("model %s version %d is served, after %.1f s", name, number, time.monotonic() - started)

    def _drop(self, model: Model, keep: Collection[int] = ()) -> None:
        for number in [number for number in model.versions if number not in keep]:
            version = model.versions[number]
            if version.state == AVAILABLE:
                version.state = UNLOADING
                log.info("model %s version %d is unloaded", model.config.name, number)
                self._close_if_idle(version)
            elif version.state == END:  # a version that returns to the disk is loaded as if it were new
                version.attempts, version.retry_at = 0, 0.0

    def _close_if_idle(self, version: Version) -> None:
        if version.state == UNLOADING and version.users == 0 and version.servable is not None:
            servable, version.servable, version.state = version.servable, None, END
            self._forget(servable)
            self._executor.submit(servable.close)

    @contextlib.contextmanager
    def use(self, call: Call) -> Iterator[Servable]:
        """Give the servable that a call asks for, and keep it loaded until the end of the context.

        Raises:
            StatusError: The call asks for something that is not served.
        """
        number = self.resolve(call)
        version = self.models[call.model].versions[number]
        if version.servable is None:
            raise not_found(f"Servable not found for request: Specific({call.model}, {number})")
        version.users += 1
        try:
            yield version.servable
        finally:
            version.users -= 1
            self._close_if_idle(version)

    def resolve(self, call: Call) -> int:
        """Return the number of the version that a call asks for.

        Raises:
            StatusError: NOT_FOUND or INVALID_ARGUMENT, in TF Serving's words.
        """
        if not call.model:
            raise invalid_argument("ModelSpec has no name specified.")
        model = self.models.get(call.model)
        available = model.available() if model else []
        if call.label is not None:
            if model is None or call.label not in model.config.version_labels:
                raise invalid_argument(f"Unrecognized servable version label: {call.label}")
            number = int(model.config.version_labels[call.label])
        elif call.version is not None:
            number = call.version
        elif available:
            return available[-1]
        else:
            raise not_found(f"Servable not found for request: Latest({call.model})")
        if number not in available:
            raise not_found(f"Servable not found for request: Specific({call.model}, {number})")
        return number

    def states(self, call: Call) -> dict[int, Version]:
        """Return the versions that a call asks for, highest first, with those that have ended.

        A label is ignored, as in TF Serving.

        Raises:
            StatusError: NOT_FOUND, in TF Serving's words.
        """
        versions = dict(self._ended.get(call.model, {}))
        if call.model in self.models:
            versions |= self.models[call.model].versions
        if call.version is not None:
            if call.version not in versions:
                raise not_found(f"Could not find version {call.version} of model {call.model}")
            return {call.version: versions[call.version]}
        if not versions:
            raise not_found(f"Could not find any versions of model {call.model}")
        return dict(sorted(versions.items(), reverse=True))


def _load_error(error: Exception) -> StatusError:
    if isinstance(error, StatusError):
        return error
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    code = grpc.StatusCode.INTERNAL if isinstance(error, tf.errors.OpError) else grpc.StatusCode.UNKNOWN
    return StatusError(code, text.strip().splitlines()[0])


def versions_on_disk(base: Path) -> dict[int, Path]:
    """Return a model's version folders by number; other names than decimal numbers of 63 bits are ignored.

    As in TF Serving, leading zeros are allowed. Of two folders with one number the shorter name wins.
    """
    try:
        folders = sorted((path for path in base.iterdir() if path.is_dir()), key=lambda path: len(path.name))
    except OSError as error:
        log.error("base path %s can't be read: %s", base, error)
        return {}
    versions: dict[int, Path] = {}
    for folder in folders:
        if re.fullmatch("0*[0-9]{1,19}", folder.name) and int(folder.name) <= LARGEST_VERSION:
            versions.setdefault(int(folder.name), folder)
    return versions


def wanted_versions(config: Any, on_disk: Collection[int]) -> list[int]:
    """Return the numbers that a model's version policy chooses: latest (the default, 1 version), all or specific."""
    policy, numbers = config.model_version_policy, sorted(on_disk)
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return numbers
    if kind == "specific":
        return [number for number in numbers if number in policy.specific.versions]
    return numbers[-max(policy.latest.num_versions, 1) :]
