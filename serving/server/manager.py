"""Which versions of which models are served: found, loaded, warmed up, swapped, dropped.

A new version is loaded and warmed up before the old one is dropped, and the old one is closed
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
from typing import Any

import grpc
import tensorflow as tf

from serving.server.errors import ConfigError, StatusError, failed_precondition, invalid_argument, not_found
from serving.server.metrics import Metrics
from serving.server.servable import Servable

log = logging.getLogger("serving")

LARGEST_VERSION = 2**63 - 1
START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50
Loader = Callable[[str, int, Path], Servable]


@dataclass
class Version:
    """A version of a model and what has become of it.

    Attributes:
            state: As GetModelStatus gives it: LARGEST_VERSION = 2**63 - 1
    START, LOADING, AVAILABLE, UNLOADING, END.
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
        """Serve what a ModelServerConfig lists, and nothing else; or, where it is refused, what is served now.

        Raises:
            StatusError: FAILED_PRECONDITION for a label of a version that is not available, or for a
                model that would move to a folder without a version that can be loaded.
            ConfigError: A base path that is not there.
        """
        for model in config.model_config_list.config:
            if not Path(model.base_path).is_dir():
                raise ConfigError(f"Could not find base path {model.base_path} for servable {model.name}")
        async with self._lock:
            staged = {model.name: self._stage(model) for model in config.model_config_list.config}
            try:
                for model in staged.values():
                    await self._load_wanted(model)
                for name, model in staged.items():
                    self._check_labels(name, model)
                    self._check_move(name, model)
            except BaseException:  # the caller's leaving too: what was loaded for it is closed
                for name, model in staged.items():
                    served = self.models[name].versions if name in self.models else {}
                    self._drop(model, keep=[n for n, v in model.versions.items() if served.get(n) is v])
                raise
            # All changes in one step: no caller sees a label without its version, or a model gone for a moment.
            before = dict(self.models)
            self.models.clear()
            self.models.update(staged)
            for name, model in before.items():
                if name not in staged or model.config.base_path != staged[name].config.base_path:
                    self._drop(model)
            for model in staged.values():
                self._drop_unwanted(model)

    def _stage(self, config: Any) -> Model:
        """Return a model as it is to be: with the loaded versions of the one that is served, where it stays."""
        served = self.models.get(config.name)
        if served is None or served.config.base_path != config.base_path:
            return Model(config)
        versions = {
            number: version if version.servable else dataclasses.replace(version)
            for number, version in served.versions.items()
        }
        return Model(config, versions, warned=served.warned)

    def _check_labels(self, name: str, model: Model) -> None:
        for version in model.config.version_labels.values():
            if not self._free_labels and version not in model.available():
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
        """Look for new versions of all models, load them, and drop what they replace."""
        async with self._lock:
            for model in self.models.values():
                await self._load_wanted(model)
                self._drop_unwanted(model)

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
        """Drop old versions when a wanted one serves; until then they are better than nothing."""
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
        except Exception as error:  # whatever a broken folder makes TensorFlow raise
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


def _load_error(error: Exception) -> StatusError:
    if isinstance(error, StatusError):
        return error
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    code = grpc.StatusCode.INTERNAL if isinstance(error, tf.errors.OpError) else grpc.StatusCode.UNKNOWN
    return StatusError(code, text.strip().splitlines()[0])


def versions_on_disk(base: Path) -> dict[int, Path]:
    """Return a model's version folders by number; names that are not decimal numbers of 63 bits are no versions.

    Leading zeros count for nothing, as in TF Serving; of two folders of one number the shorter name wins.
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
    """Apply a version policy (latest, the default, with the newest 1; all; specific) to what there is."""
    policy, numbers = config.model_version_policy, sorted(on_disk)
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return numbers
    if kind == "specific":
        return [number for number in numbers if number in policy.specific.versions]
    return numbers[-max(policy.latest.num_versions, 1) :]
