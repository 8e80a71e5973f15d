"""Decoded calls → results: Predict, Classify, Regress, MultiInference, metadata, status and reload."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensorflow.python.eager.cancellation import CancellationManager

from serving.protocol import (
    GetModelMetadataResponse,
    GetModelStatusResponse,
    ReloadConfigResponse,
    SignatureDefMap,
)
from serving.server.batching import Batcher
from serving.server.calls import Call
from serving.server.configs import Batching, check_model_config
from serving.server.errors import ConfigError, failed_precondition, invalid_argument
from serving.server.examples import METHOD_NAMES
from serving.server.inputs import choose_outputs
from serving.server.manager import ModelManager
from serving.server.metrics import Metrics
from serving.server.servable import DEFAULT_SIGNATURE, Servable
from serving.tensors import Array, Arrays, Signature


@dataclass(frozen=True)
class Prediction:
    """The outputs of a signature by alias, with the model, version and signature that gave them."""

    model: str
    version: int
    signature: str
    outputs: Arrays


class Runner:
    """Runs signatures in the threads of their models, in batches or one request at a time.

    Args:
        batching: How to batch requests; None to run each alone.
        metrics: Counts the runs.
    """

    def __init__(self, batching: Batching | None, metrics: Metrics) -> None:
        self._batching = batching
        self._metrics = metrics
        self._batchers: dict[tuple[Servable, str, tuple[str, ...]], Batcher] = {}

    async def run(
        self, servable: Servable, signature: str, inputs: list[Array], outputs: tuple[str, ...]
    ) -> list[Array]:
        """Run a signature on the inputs of a request; the run ends when its caller leaves.

        Raises:
            StatusError: From the graph, or UNAVAILABLE for a full queue.
        """

        def run(arrays: list[Array], cancellation: CancellationManager) -> list[Array]:
            started = time.perf_counter()
            results = servable.run(signature, arrays, outputs, cancellation)
            self._metrics.run(servable.name, time.perf_counter() - started)
            return results

        if self._batching is None or not _can_share(servable.signatures[signature], inputs):
            cancellation = CancellationManager()
            try:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(servable.threads, run, inputs, cancellation)
            finally:
                cancellation.start_cancel()
        key = (servable, signature, outputs)
        if key not in self._batchers:
            batching = self._batching.within(servable.max_rows)
            self._batchers[key] = Batcher(run, batching, servable.threads)
        return await self._batchers[key].submit(inputs)

    def forget(self, servable: Servable) -> None:
        """Remove the batchers of a servable that is closed."""
        for key in [key for key in self._batchers if key[0] is servable]:
            del self._batchers[key]


def _can_share(signature: Signature, inputs: Sequence[Array]) -> bool:
    """Return whether a request can share a batch. An empty request can't: alone it is refused."""
    sizes = {len(array) for array in inputs} if signature.batched else set()
    return len(sizes) == 1 and sizes != {0}


class Inference:
    """Returns the results of decoded calls.

    Args:
        manager: The models.
        runner: Runs their signatures.
    """

    def __init__(self, manager: ModelManager, runner: Runner) -> None:
        self._manager = manager
        self._runner = runner

    async def run(self, call: Call) -> Any:
        """Return the result of a call.

        Returns:
            A Prediction; a list of them for MultiInference; otherwise the response message.

        Raises:
            StatusError: The call asks for something that is not served, or the model refuses its inputs.
        """
        match call.api:
            case "GetModelStatus":
                return self._status(call)
            case "GetModelMetadata":
                return self._metadata(call)
            case "HandleReloadConfigRequest":
                return await self._reload(call.config)
            case "MultiInference":
                return [await self._predict(task) for task in call.tasks]
            case _:
                return await self._predict(call)

    async def _predict(self, call: Call) -> Prediction:
        with self._manager.use(call) as servable:
            key = call.signature or DEFAULT_SIGNATURE
            signature = _find_signature(servable, key, call.api)
            outputs = choose_outputs(signature, call.output_filter)
            inputs = await call.read_inputs(signature, servable.max_rows)
            results = await self._runner.run(servable, key, inputs, outputs)
            return Prediction(servable.name, servable.version, key, dict(zip(outputs, results, strict=True)))

    def _metadata(self, call: Call) -> Any:
        number = self._manager.resolve(call)
        servable = self._manager.models[call.model].versions[number].servable
        response = GetModelMetadataResponse()
        response.model_spec.name = call.model
        response.model_spec.version.value = number
        signatures = SignatureDefMap()
        for key, definition in (servable.definitions if servable else {}).items():
            signatures.signature_def[key].CopyFrom(definition)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _status(self, call: Call) -> Any:
        response = GetModelStatusResponse()
        for number, version in self._manager.states(call).items():
            status = response.model_version_status.add(version=number, state=version.state)
            status.status.SetInParent()
            if version.error is not None:
                status.status.error_code = version.error.code.value[0]
                status.status.error_message = version.error.text
        return response

    async def _reload(self, config: Any) -> Any:
        if config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest."
                " Only ModelConfigList is currently supported"
            )
        try:
            check_model_config(config)
            await self._manager.apply(config)
        except ConfigError as error:
            raise invalid_argument(str(error)) from error
        response = ReloadConfigResponse()
        response.status.SetInParent()
        return response


def _find_signature(servable: Servable, key: str, api: str) -> Signature:
    signature = servable.signatures.get(key)
    if api == "Predict":
        if signature is None:
            raise failed_precondition(f'Serving signature key "{key}" not found.')
        return signature
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {key}")
    if signature.method_name != METHOD_NAMES[api]:
        kind = {"Classify": "classification", "Regress": "regression"}[api]
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {METHOD_NAMES[api]}. Was: {signature.method_name}"
        )
    return signature
