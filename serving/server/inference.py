"""Requests → answers: Predict, Classify, Regress, MultiInference, metadata and status."""

import asyncio
import time
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tensorflow.python.eager.cancellation import CancellationManager
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server.batching import Batcher
from serving.server.configs import Batching, check_model_config
from serving.server.errors import ConfigError, StatusError, failed_precondition, invalid_argument
from serving.server.manager import ModelManager
from serving.server.metrics import Metrics
from serving.server.servable import Servable, Signature, choose_outputs, read_inputs
from serving.tensors import fill_proto

Arrays = list[npt.NDArray[Any]]

DEFAULT_SIGNATURE = "serving_default"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


class Runner:
    """Runs signatures in their models' threads, requests put together or each alone.

    Args:
        batching: How to put requests together; None for not at all.
        metrics: Counts the runs.
    """

    def __init__(self, batching: Batching | None, metrics: Metrics) -> None:
        self._batching = batching
        self._metrics = metrics
        self._batchers: dict[tuple[Servable, str, tuple[str, ...]], Batcher] = {}

    async def run(
        self, servable: Servable, signature: str, inputs: Arrays, outputs: tuple[str, ...]
    ) -> Arrays:
        """Run a signature on a request's inputs; where its caller leaves, the run ends.

        Raises:
            StatusError: What the graph, or a full queue, answers.
        """

        def run(arrays: Arrays, cancellation: CancellationManager) -> Arrays:
            started = time.perf_counter()
            answers = servable.run(signature, arrays, outputs, cancellation)
            self._metrics.run(servable.name, time.perf_counter() - started)
            return answers

        if self._batching is None or not _can_share(servable.signatures[signature], inputs):
            cancellation = CancellationManager()
            try:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(servable.threads, run, inputs, cancellation)
            finally:
                cancellation.start_cancel()
        key = (servable, signature, outputs)
        if key not in self._batchers:
            batching = self._batching.within(servable.signatures[signature].max_rows)
            self._batchers[key] = Batcher(run, batching, servable.threads)
        return await self._batchers[key].submit(inputs)

    def forget(self, servable: Servable) -> None:
        """Drop what is kept for a servable that is closed."""
        for key in [key for key in self._batchers if key[0] is servable]:
            del self._batchers[key]


def _can_share(signature: Signature, inputs: Arrays) -> bool:
    """Tell whether a request may be put beside others; an empty one would be answered, which alone is refused."""
    sizes = {len(array) for array in inputs} if signature.batched else set()
    return len(sizes) == 1 and sizes != {0}


class Inference:
    """Answers the messages of TensorFlow Serving's services."""

    def __init__(self, manager: ModelManager, runner: Runner) -> None:
        self._manager = manager
        self._runner = runner

    async def predict(self, request: Any) -> Any:
        """Answer a PredictRequest with the outputs it asks for."""
        _need_spec(request)
        with self._manager.use(request.model_spec) as servable:
            key = request.model_spec.signature_name or DEFAULT_SIGNATURE
            signature = prediction_signature(servable, key)
            outputs = choose_outputs(signature, request.output_filter)
            inputs = read_inputs(signature, request.inputs)
            answers = await self._runner.run(servable, key, inputs, outputs)
            response = predict_pb2.PredictResponse()
            _fill_spec(response.model_spec, servable, key)
            for alias, answer in zip(outputs, answers, strict=True):
                fill_proto(response.outputs[alias], answer, as_values=True)
            return response

    async def run_arrays(self, spec: Any, read: Any) -> dict[str, npt.NDArray[Any]]:
        """Run a signature on arrays that `read` makes of its definition; what the REST API calls.

        Returns:
            Outputs by name.
        """
        with self._manager.use(spec) as servable:
            key = spec.signature_name or DEFAULT_SIGNATURE
            signature = prediction_signature(servable, key)
            outputs = choose_outputs(signature, ())
            arrays = await asyncio.to_thread(read, signature)
            answers = await self._runner.run(servable, key, arrays, outputs)
            return dict(zip(outputs, answers, strict=True))

    async def classify(self, request: Any) -> Any:
        """Answer a ClassificationRequest: classes and scores of each tf.Example."""
        _need_spec(request)
        response = classification_pb2.ClassificationResponse()
        response.result.CopyFrom(await self._classify(request.model_spec, request.input, response.model_spec))
        return response

    async def _classify(self, spec: Any, examples: Any, answer_spec: Any) -> Any:
        outputs, count = await self._run_examples(spec, examples, answer_spec, CLASSIFY, "classification")
        result = classification_pb2.ClassificationResult()
        columns = next(iter(outputs.values())).shape[1]
        for row in range(count):
            classification = result.classifications.add()
            for column in range(columns):
                chosen = classification.classes.add()
                if "classes" in outputs:
                    chosen.label = outputs["classes"][row, column]
                if "scores" in outputs:
                    chosen.score = outputs["scores"][row, column]
        return result

    async def regress(self, request: Any) -> Any:
        """Answer a RegressionRequest: a value of each tf.Example."""
        _need_spec(request)
        response = regression_pb2.RegressionResponse()
        response.result.CopyFrom(await self._regress(request.model_spec, request.input, response.model_spec))
        return response

    async def _regress(self, spec: Any, examples: Any, answer_spec: Any) -> Any:
        outputs, count = await self._run_examples(spec, examples, answer_spec, REGRESS, "regression")
        result = regression_pb2.RegressionResult()
        for value in outputs["outputs"].reshape(count, -1)[:, 0]:
            result.regressions.add(value=value)
        return result

    async def multi_inference(self, request: Any) -> Any:
        """Answer a MultiInferenceRequest: several classifications and regressions of the same tf.Examples."""
        if not request.tasks:
            raise invalid_argument("Inference request must have at least one task.")
        if len({task.model_spec.name for task in request.tasks}) > 1:
            raise invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        response = inference_pb2.MultiInferenceResponse()
        for task in request.tasks:
            result = response.results.add()
            if task.method_name == CLASSIFY:
                answer = await self._classify(task.model_spec, request.input, result.model_spec)
                result.classification_result.CopyFrom(answer)
            elif task.method_name == REGRESS:
                answer = await self._regress(task.model_spec, request.input, result.model_spec)
                result.regression_result.CopyFrom(answer)
            else:
                raise StatusError(
                    grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
                )
        return response

    async def _run_examples(
        self, spec: Any, examples: Any, answer_spec: Any, method: str, kind: str
    ) -> tuple[dict[str, npt.NDArray[Any]], int]:
        with self._manager.use(spec) as servable:
            key = spec.signature_name or DEFAULT_SIGNATURE
            if key not in servable.signatures:
                raise invalid_argument(f"No signature was found with the name: {key}")
            signature = servable.signatures[key]
            if signature.method_name != method:
                raise invalid_argument(
                    f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
                )
            serialized = _serialized_examples(examples)
            outputs = signature.all_outputs
            answers = await self._runner.run(servable, key, [serialized], outputs)
            _fill_spec(answer_spec, servable, key)
            return dict(zip(outputs, answers, strict=True)), len(serialized)

    def metadata(self, request: Any) -> Any:
        """Answer a GetModelMetadataRequest; the one field there is is signature_def."""
        _need_spec(request)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid_argument(f"Metadata field {name} is not supported")
        number = self._manager.resolve(request.model_spec)
        servable = self._manager.models[request.model_spec.name].versions[number].servable
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = number
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, definition in (servable.definitions if servable else {}).items():
            signatures.signature_def[key].CopyFrom(definition)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request: Any) -> Any:
        """Answer a GetModelStatusRequest with the state of each version."""
        _need_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, version in self._manager.states(request.model_spec).items():
            status = response.model_version_status.add(version=number, state=version.state)
            status.status.SetInParent()
            if version.error is not None:
                status.status.error_code = version.error.code.value[0]
                status.status.error_message = version.error.text
        return response

    async def reload(self, request: Any) -> Any:
        """Answer a ReloadConfigRequest once the new config is served, or say why it can't be."""
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest."
                " Only ModelConfigList is currently supported"
            )
        try:
            check_model_config(request.config)
            await self._manager.apply(request.config)
        except ConfigError as error:
            raise invalid_argument(str(error)) from error
        return response


def prediction_signature(servable: Servable, key: str) -> Signature:
    """Return a signature's definition.

    Raises:
        StatusError: FAILED_PRECONDITION.
    """
    if key not in servable.signatures:
        raise failed_precondition(f'Serving signature key "{key}" not found.')
    return servable.signatures[key]


def _need_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def _fill_spec(spec: Any, servable: Servable, signature: str) -> None:
    spec.name = servable.name
    spec.version.value = servable.version
    spec.signature_name = signature


def _serialized_examples(message: Any) -> npt.NDArray[np.object_]:
    kind = message.WhichOneof("kind")
    examples = list(getattr(message, kind).examples) if kind else []
    if not examples:
        raise invalid_argument("Input is empty")
    if kind == "example_list_with_context":
        for example in examples:
            for name, feature in message.example_list_with_context.context.features.feature.items():
                if name not in example.features.feature:
                    example.features.feature[name].CopyFrom(feature)
    array = np.empty(len(examples), np.object_)
    array[:] = [example.SerializeToString() for example in examples]
    return array
