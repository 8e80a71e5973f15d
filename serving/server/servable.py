"""One version of a model, loaded: its signatures, and a way to run them."""

import functools
import gc
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.eager import context, execute
from tensorflow.python.eager.cancellation import CancellationManager
from tensorflow_serving.apis import prediction_log_pb2

from serving.server.errors import from_tensorflow, invalid_argument
from serving.server.limits import check_rows, read_max_rows
from serving.tensors import DT_BFLOAT16, data_type_name, read_proto

Arrays = list[npt.NDArray[Any]]

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_WARMUP_RECORDS = 1000
SLOTS = os.cpu_count() or 1
"""Runs of a model at the same time. TensorFlow's own threads are more (`app.GRAPH_THREADS`): a graph that
generates text keeps one of them to its last token, and without a free one no other graph begins."""
MAX_REPEATED_BYTES = 16 * 2**20
"""A value list of one value may stand for a tensor of this size: more is taken for an attack."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature.

    Attributes:
        name: Name of the tensor in the graph.
        data_type: DataType number.
        shape: Sizes, -1 where any size goes; None where any rank does.
    """

    name: str
    data_type: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """A SignatureDef, read once: looking into a message for every request takes longer than a small model.

    Attributes:
        method_name: Which API it is for: tensorflow/serving/predict, .../classify, .../regress.
        inputs, outputs: Tensors by alias, in the order of the aliases.
        definition: The SignatureDef itself.
        max_rows: Most rows of a request, None for any number.
    """

    method_name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    definition: Any
    max_rows: int | None = None

    @classmethod
    def read(cls, definition: Any, max_rows: int | None = None) -> "Signature":
        """Read a SignatureDef."""
        return cls(
            definition.method_name,
            _read_tensors(definition.inputs),
            _read_tensors(definition.outputs),
            definition,
            max_rows,
        )

    @functools.cached_property
    def all_outputs(self) -> tuple[str, ...]:
        """The aliases of all outputs."""
        return tuple(self.outputs)

    @functools.cached_property
    def batched(self) -> bool:
        """Whether all inputs and outputs have a free first dimension, so that requests can be put together."""
        tensors = (*self.inputs.values(), *self.outputs.values())
        return bool(self.inputs) and all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors)


def _read_tensors(tensors: Any) -> dict[str, TensorInfo]:
    return {
        alias: TensorInfo(
            tensors[alias].name,
            tensors[alias].dtype,
            None
            if tensors[alias].tensor_shape.unknown_rank
            else tuple(dim.size for dim in tensors[alias].tensor_shape.dim),
        )
        for alias in sorted(tensors)
    }


class Servable:
    """A loaded SavedModel, with threads of its own: no other model waits for it.

    Args:
        name: Name of the model.
        version: Version number.
        path: The version's folder.

    Raises:
        OSError, ValueError, RuntimeError, tf.errors.OpError: The folder is no whole SavedModel.
    """

    def __init__(self, name: str, version: int, path: Path) -> None:
        self.name = name
        self.version = version
        self.path = path
        loaded = tf.saved_model.load(str(path), tags=["serve"])
        self.definitions: Mapping[str, Any] = _read_definitions(path)
        max_rows = read_max_rows(path)
        self.signatures = {key: Signature.read(self.definitions[key], max_rows) for key in loaded.signatures}
        self._functions = {key: Function(function) for key, function in loaded.signatures.items()}
        self._loaded = loaded  # its functions live as long as it does
        self.threads = ThreadPoolExecutor(SLOTS, f"{name}-{version}")

    def run(
        self,
        signature: str,
        inputs: Arrays,
        outputs: tuple[str, ...],
        cancellation: CancellationManager | None = None,
    ) -> Arrays:
        """Run a signature.

        Args:
            signature: Its name.
            inputs: Arrays in the order of the aliases.
            outputs: Aliases of the outputs wanted.
            cancellation: Ends the run, from another thread, at the next turn of a loop.

        Raises:
            StatusError: What TensorFlow raised, with its code.
        """
        try:
            answers = self._functions[signature](inputs, cancellation or CancellationManager())
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        named = dict(zip(self.signatures[signature].outputs, answers, strict=True))
        return [named[alias].numpy() for alias in outputs]

    def warm_up(self) -> int:
        """Replay the recorded requests, and return how many there were.

        Raises:
            StatusError: A recorded request that the model refuses.
        """
        path = self.path / WARMUP_FILE
        if not path.exists():
            return 0
        count = 0
        for record in tf.data.TFRecordDataset(str(path)).take(MAX_WARMUP_RECORDS).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.WhichOneof("log_type") != "predict_log":
                continue
            request = log.predict_log.request
            key = request.model_spec.signature_name or "serving_default"
            signature = self.signatures[key]
            self.run(key, read_inputs(signature, request.inputs), signature.all_outputs)
            count += 1
        return count

    def close(self) -> None:
        """Give the memory back."""
        self.threads.shutdown(wait=False)
        self._functions.clear()
        self._loaded = None
        gc.collect()  # a loaded model is full of circles


def _read_definitions(path: Path) -> Mapping[str, Any]:
    """Return the SignatureDefs of the graph that is served, by name."""
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = next(graph for graph in saved.meta_graphs if list(graph.meta_info_def.tags) == ["serve"])
    return dict(graph.signature_def)


class Function:
    """A signature's function, called so that another thread can end its run at the next turn of a loop.

    Generated text ends at the next token, scores at the next window; a graph without loops runs to its end.
    TensorFlow's public API can't end a run: a call whose caller left would go on to its last token. Its
    own `CancellationManager.get_cancelable_function` keeps the manager in a global variable, which calls
    in several threads take from each other; so the operation is called as that would call it.

    Args:
        concrete: The function, from a loaded SavedModel.
    """

    def __init__(self, concrete: Any) -> None:
        self._context = context.context()
        self._name = concrete._inference_function.name.decode()
        self._num_outputs = len(concrete.outputs)
        self._captured = list(concrete.captured_inputs)
        options = self._context.function_call_options.as_attrs()
        self._attributes = tuple(part for attribute in options.items() for part in attribute)

    def __call__(self, inputs: Arrays, cancellation: CancellationManager) -> list[Any]:
        """Return the outputs for inputs, both in the order of their aliases."""
        outputs: list[Any] = execute.execute_with_cancellation(
            self._name,
            num_outputs=self._num_outputs,
            inputs=[*map(tf.convert_to_tensor, inputs), *self._captured],
            attrs=self._attributes,
            ctx=self._context,
            cancellation_manager=cancellation,
        )
        return outputs


def read_inputs(signature: Signature, protos: Any) -> Arrays:
    """Check a request's tensors against a signature and return them in the order of the aliases.

    A tensor whose type, rank or sizes the signature does not allow is refused here, before it can
    reach the graph. The texts are TF Serving's.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    check_names(signature, list(protos))
    arrays = []
    for number, (alias, wanted) in enumerate(signature.inputs.items()):
        proto = protos[alias]
        for first in proto.tensor_shape.dim[:1]:
            check_rows(alias, first.size, signature.max_rows)
        try:
            array = read_proto(proto, MAX_REPEATED_BYTES)
        except (ValueError, OverflowError, MemoryError) as error:
            raise invalid_argument(f"tensor parsing error: {alias}") from error
        _check_type(number, proto.dtype, wanted.data_type)
        _check_shape(alias, array.shape, wanted.shape)
        if proto.dtype == DT_BFLOAT16:  # it was read as float32
            array = tf.cast(array, tf.bfloat16).numpy()
        arrays.append(array)
    return arrays


def order_inputs(signature: Signature, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Check arrays of the signature's types, and return them in the order of the aliases."""
    for alias, wanted in signature.inputs.items():
        _check_shape(alias, arrays[alias].shape, wanted.shape)
    return [arrays[alias] for alias in signature.inputs]


def check_names(signature: Signature, given: Sequence[str]) -> None:
    """Refuse missing and extra inputs."""
    if len(given) == len(signature.inputs) and all(alias in signature.inputs for alias in given):
        return
    wanted = list(signature.inputs)
    given = sorted(given)
    extra = sorted(set(given) - set(wanted))
    missing = sorted(set(wanted) - set(given))
    if len(given) != len(wanted):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({{{','.join(given)}}}) != len({{{','.join(wanted)}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )
    raise invalid_argument(
        f"Signature input alias: {missing[0]}(feed name: {signature.inputs[missing[0]].name}) not found in "
        f"request and no default value provided. Inputs expected to be in the request "
        f"{{{','.join(given)}}}, or default input alias set: "
    )


def _check_type(number: int, given: int, wanted: int) -> None:
    if given != wanted:
        raise invalid_argument(
            f"Expects arg[{number}] to be {data_type_name(wanted)} but {data_type_name(given)} is provided"
        )


def _check_shape(alias: str, given: tuple[int, ...], wanted: tuple[int, ...] | None) -> None:
    if wanted is None:
        return
    if len(given) != len(wanted) or any(
        size not in (-1, got) for size, got in zip(wanted, given, strict=True)
    ):
        expected = ",".join("?" if size == -1 else str(size) for size in wanted)
        raise invalid_argument(
            f"Shape of tensor {alias} [{','.join(map(str, given))}] is not compatible with expected shape [{expected}]."
        )


def choose_outputs(signature: Signature, output_filter: Sequence[str]) -> tuple[str, ...]:
    """Return the aliases of the outputs wanted, all of them where none is named.

    Raises:
        StatusError: INVALID_ARGUMENT for an unknown or a repeated alias.
    """
    if not output_filter:
        return signature.all_outputs
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{','.join(signature.outputs)}}}."
            )
    if len(set(output_filter)) != len(output_filter):
        raise invalid_argument("duplicate output tensor alias in the output filter")
    return tuple(sorted(output_filter))
