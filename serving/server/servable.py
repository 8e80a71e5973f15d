"""One version of a model, loaded: its signatures, and a way to run them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.server.errors import from_tensorflow, invalid_argument
from serving.tensors import data_type_name, read_proto, type_number

Arrays = list[npt.NDArray[Any]]

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_WARMUP_RECORDS = 1000
MAX_REPEATED_BYTES = 64 * 2**20
"""A value list of one value may stand for a tensor of this size: more is taken for an attack."""


class Servable:
    """A SavedModel in a session of its own, as TF Serving runs it.

    Args:
        name: Name of the model.
        version: Version number.
        path: The version's folder.
        parallelism: Threads an operation, and a graph, may use; 0 for one a core.

    Raises:
        OSError, ValueError, RuntimeError, tf.errors.OpError: The folder is no whole SavedModel.
    """

    def __init__(self, name: str, version: int, path: Path, parallelism: int = 0) -> None:
        self.name = name
        self.version = version
        self.path = path
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=parallelism, inter_op_parallelism_threads=parallelism
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with self._session.graph.as_default():
                loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        except BaseException:
            self._session.close()
            raise
        self.signatures: dict[str, Any] = dict(loaded.signature_def)
        self._callables: dict[tuple[str, tuple[str, ...]], Any] = {}

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run a signature.

        Args:
            signature: Its name.
            inputs: Arrays in the order of the sorted input names.
            outputs: Names of the outputs to compute.

        Raises:
            StatusError: What TensorFlow raised, with its code.
        """
        key = (signature, tuple(outputs))
        try:
            if key not in self._callables:
                self._callables[key] = self._make_callable(signature, outputs)
            answers: Arrays = self._callables[key](*inputs)
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        return answers

    def _make_callable(self, signature: str, outputs: Sequence[str]) -> Any:
        definition = self.signatures[signature]
        return self._session.make_callable(
            [definition.outputs[alias].name for alias in outputs],
            feed_list=[definition.inputs[alias].name for alias in sorted(definition.inputs)],
        )

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
            signature = request.model_spec.signature_name or "serving_default"
            inputs = read_inputs(self.signatures[signature], request.inputs)
            self.run(signature, inputs, sorted(self.signatures[signature].outputs))
            count += 1
        return count

    def close(self) -> None:
        """Give the memory back."""
        self._session.close()
        self._callables.clear()


def read_inputs(signature: Any, protos: Any) -> Arrays:
    """Check a request's tensors against a signature and return them in the order of the sorted names.

    A tensor whose type, rank or sizes the signature does not allow is refused here, before it can
    reach the graph. The texts are TF Serving's.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    check_names(signature, list(protos))
    arrays = {}
    for alias in signature.inputs:
        try:
            arrays[alias] = read_proto(protos[alias], MAX_REPEATED_BYTES)
        except (ValueError, OverflowError, MemoryError) as error:
            raise invalid_argument(f"tensor parsing error: {alias}") from error
    for number, alias in enumerate(sorted(arrays)):
        _check_type(number, protos[alias].dtype, signature.inputs[alias].dtype)
    return ordered_inputs(signature, arrays)


def ordered_inputs(signature: Any, arrays: dict[str, npt.NDArray[Any]]) -> Arrays:
    """Check arrays' types and shapes, and return them in the order of the sorted names."""
    ordered = []
    for number, alias in enumerate(sorted(arrays)):
        wanted, array = signature.inputs[alias], arrays[alias]
        if wanted.dtype == 14 and array.dtype == np.float32:  # bfloat16 is read as float32
            array = tf.cast(array, tf.bfloat16).numpy()
        _check_type(number, type_number(array.dtype), wanted.dtype)
        _check_shape(alias, array.shape, wanted.tensor_shape)
        ordered.append(array)
    return ordered


def check_names(signature: Any, given: Sequence[str]) -> None:
    """Refuse missing and extra inputs."""
    wanted = sorted(signature.inputs)
    extra = sorted(set(given) - set(wanted))
    missing = sorted(set(wanted) - set(given))
    if len(given) != len(wanted):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({{{','.join(sorted(given))}}}) != len({{{','.join(wanted)}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )
    if missing:
        raise invalid_argument(
            f"Signature input alias: {missing[0]}(feed name: {signature.inputs[missing[0]].name}) not found in "
            f"request and no default value provided. Inputs expected to be in the request "
            f"{{{','.join(sorted(given))}}}, or default input alias set: "
        )


def _check_type(number: int, given: int, wanted: int) -> None:
    if given != wanted:
        raise invalid_argument(
            f"Expects arg[{number}] to be {data_type_name(wanted)} but {data_type_name(given)} is provided"
        )


def _check_shape(alias: str, given: tuple[int, ...], wanted: Any) -> None:
    if wanted.unknown_rank:
        return
    sizes = [dim.size for dim in wanted.dim]
    if len(given) != len(sizes) or any(size not in (-1, got) for size, got in zip(sizes, given, strict=True)):
        expected = ",".join("?" if size == -1 else str(size) for size in sizes)
        raise invalid_argument(
            f"Shape of tensor {alias} [{','.join(map(str, given))}] is not compatible with expected shape [{expected}]."
        )


def choose_outputs(signature: Any, output_filter: Sequence[str]) -> list[str]:
    """Return the names of the outputs wanted, all of them where none is named.

    Raises:
        StatusError: INVALID_ARGUMENT for an unknown or a repeated name.
    """
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{','.join(sorted(signature.outputs))}}}."
            )
    if len(set(output_filter)) != len(output_filter):
        raise invalid_argument("duplicate output tensor alias in the output filter")
    return sorted(output_filter or signature.outputs)


def is_batched(signature: Any, outputs: Sequence[str]) -> bool:
    """Tell whether all inputs and outputs have a free first dimension, so that requests can be put together."""
    tensors = [*signature.inputs.values(), *(signature.outputs[alias] for alias in outputs)]
    return all(tensor.tensor_shape.dim and tensor.tensor_shape.dim[0].size == -1 for tensor in tensors)
