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
from serving.server import examples
from serving.server.batching import Batcher
from serving.server.calls import Call, GenerateCall
from serving.server.configs import Batching, check_model_config
from serving.server.errors import failed_precondition, invalid_argument
from serving.server.inputs import choose_outputs, order_inputs
from serving.server.manager import ModelManager
from serving.server.metrics import Metrics
from serving.server.servable import DEFAULT_SIGNATURE, GENERATE, Servable
from serving.server.settings import ConfigError
from serving.server.text_batch import TextBatch
from serving.tensors import Array, Arrays, Signature


@dataclass(frozen=True)
class Prediction:
    """The outputs of a signature.

    Attributes:
        model, version, signature: What gave them.
        outputs: Arrays by alias.
        rows: First dimension of the first input; 0 for a scalar.
    """

    model: str
    version: int
    signature: str
    outputs: Arrays
    rows: int


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
        self._text_batches: dict[Servable, TextBatch] = {}

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

    def text_batch(self, servable: Servable) -> TextBatch:
        """Return the batch of the texts that a servable generates.

        Raises:
            StatusError: FAILED_PRECONDITION for a model that can't.
        """
        if servable not in self._text_batches:
            if servable.text_steps is None:
                raise failed_precondition(
                    f"Model {servable.name} version {servable.version} can't stream text: it is not a language "
                    "model, or it was exported before streaming was added; export its run again"
                )
            self._text_batches[servable] = TextBatch(servable, servable.text_steps, self._metrics)
        return self._text_batches[servable]

    def forget(self, servable: Servable) -> None:
        """Remove the batchers of a servable that is closed."""
        for key in [key for key in self._batchers if key[0] is servable]:
            del self._batchers[key]
        if servable in self._text_batches:
            self._text_batches.pop(servable).close()


def _can_share(signature: Signature, inputs: Sequence[Array]) -> bool:
    """Return whether a request can share a batch. An empty request can't: alone it is refused."""
    sizes = {array.shape[0] if array.ndim else 0 for array in inputs} if signature.batched else set()
    return len(sizes) == 1 and sizes != {0}


class Inference:
    """Returns the results of decoded calls.

    Args:
        manager: The models.
        runner: Runs their signatures.
        check_methods: Whether Classify and Regress need signatures with their method_name.
        can_reload: Whether a call may change the models.
    """

    def __init__(
        self, manager: ModelManager, runner: Runner, *, check_methods: bool = False, can_reload: bool = True
    ) -> None:
        self._can_reload = can_reload
        self._manager = manager
        self._runner = runner
        self._check_methods = check_methods

    async def run(self, call: Call) -> Any:
        """Return the result of a call.

        Returns:
            A Prediction, for Generate the last part that was sent; a list of them for MultiInference; the models
            by name for ListModels; otherwise the response message.

        Raises:
            StatusError: The call asks for something that is not served, or the model refuses its inputs.
        """
        if isinstance(call, GenerateCall):
            return await self._generate(call)
        match call.api:
            case "GetModelStatus":
                return self._status(call)
            case "GetModelMetadata":
                return self._metadata(call)
            case "HandleReloadConfigRequest":
                return await self._reload(call.config)
            case "MultiInference":
                return await self._infer_all(call)
            case "ListModels":
                return self._text_models()
            case _:
                with self._manager.use(call) as servable:
                    return await self._predict(call, servable, _find_signature(servable, call))

    async def _predict(self, call: Call, servable: Servable, signature: Signature) -> Prediction:
        key = call.signature or DEFAULT_SIGNATURE
        if call.api == "Predict":
            arrays = await call.read_inputs(signature, servable.max_rows)
            outputs = choose_outputs(signature, call.output_filter)
        else:
            definition = servable.definitions[key]
            outputs = examples.choose_outputs(
                call.api, signature, definition, check_method=self._check_methods
            )
            arrays = await call.read_inputs(signature, servable.max_rows)
        inputs = order_inputs(signature, arrays, any_shape=servable.any_shape)
        results = await self._runner.run(servable, key, inputs, outputs)
        return Prediction(
            servable.name,
            servable.version,
            key,
            dict(zip(outputs, results, strict=True)),
            inputs[0].shape[0] if inputs and inputs[0].ndim else 0,
        )

    async def _generate(self, call: GenerateCall) -> Prediction:
        """Send the texts of a call while they are generated, and return the last part."""
        with self._manager.use(call) as servable:
            batch = self._runner.text_batch(servable)
            signature = servable.signatures[GENERATE]
            inputs = await call.read_inputs(signature, servable.max_rows)
            order_inputs(signature, inputs, any_shape=False)
            async with batch.generate(inputs, call.stop) as generation:
                async for outputs in generation.parts():
                    part = Prediction(
                        servable.name, servable.version, GENERATE, outputs, len(outputs["text"])
                    )
                    await call.send(part)
            return part

    def _text_models(self) -> dict[str, float]:
        """Return the models that can stream text, with the time of their latest version's folder.

        Raises:
            StatusError: INVALID_ARGUMENT if there are none, as TF Serving answers.
        """
        latest = {
            name: model.versions[model.available()[-1]].servable
            for name, model in self._manager.models.items()
            if model.available()
        }
        models = {
            name: servable.path.stat().st_mtime
            for name, servable in latest.items()
            if servable is not None and servable.text_steps is not None
        }
        if not models:
            raise invalid_argument("Missing model name in request.")
        return models

    async def _infer_all(self, call: Call) -> list[Prediction]:
        """Return the predictions of the tasks of a MultiInference, all by the version of the first."""
        with self._manager.use(call) as servable:
            signatures: dict[str, Signature] = {}
            for task in call.tasks:
                key = task.signature or DEFAULT_SIGNATURE
                if not task.model:
                    raise invalid_argument("Found ModelSpec with an empty model name.")
                if task.model != call.model:
                    raise invalid_argument(
                        "All ModelSpecs in a MultiInferenceRequest must access the same model name."
                    )
                if key in signatures:
                    raise invalid_argument(f"Duplicate evaluation of signature: {key}")
                if key not in servable.signatures:
                    raise invalid_argument(f"Requested signature not found in model graph: {key}")
                signatures[key] = servable.signatures[key]
                if len({_feed_names(signature) for signature in signatures.values()}) > 1:
                    raise invalid_argument("Input tensor must be the same for all Signatures.")
            return [
                await self._predict(task, servable, signature)
                for task, signature in zip(call.tasks, signatures.values(), strict=True)
            ]

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
        if not self._can_reload:
            raise failed_precondition(
                "a reload would reach one of several --workers; all of them read a changed --model_config_file"
            )
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


def _feed_names(signature: Signature) -> tuple[str, ...]:
    return tuple(spec.name for spec in signature.inputs.values())


def _find_signature(servable: Servable, call: Call) -> Signature:
    key = call.signature or DEFAULT_SIGNATURE
    if key in servable.signatures:
        return servable.signatures[key]
    if call.api != "Predict":
        raise invalid_argument(f"No signature was found with the name: {key}")
    if call.entrypoint == "REST":
        raise invalid_argument(f'Serving signature name: "{key}" not found in signature def')
    raise failed_precondition(f'Serving signature key "{key}" not found.')
