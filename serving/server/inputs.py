"""Checks of a request against a signature: what the signature does not allow never reaches the graph.

The messages are TF Serving's. The graph checks the limits of its export itself, but only once its inputs are
in memory, and a message with one value can stand for any number of rows. So rows are checked first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from serving.server.errors import invalid_argument
from serving.tensors import DT_BFLOAT16, Array, Signature, data_type_name, read_proto

MAX_REPEATED_BYTES = 16 * 2**20
"""Largest tensor that a single value may stand for; a larger one is taken for an attack."""


def read_inputs(signature: Signature, protos: Any, max_rows: int | None = None) -> list[Array]:
    """Return the arrays of TensorProtos in the order of the signature's inputs.

    Args:
        signature: The signature.
        protos: TensorProtos by input name.
        max_rows: Most rows of a request; None for any number.

    Raises:
        StatusError: INVALID_ARGUMENT for a missing or extra input, a malformed tensor, or a type, rank or
            size that the signature does not allow.
    """
    check_names(signature, list(protos))
    arrays = []
    for number, (alias, spec) in enumerate(signature.inputs.items()):
        proto = protos[alias]
        for first in proto.tensor_shape.dim[:1]:
            check_rows(alias, first.size, max_rows)
        try:
            array = read_proto(proto, MAX_REPEATED_BYTES)
        except (ValueError, OverflowError, MemoryError) as error:
            raise invalid_argument(f"tensor parsing error: {alias}") from error
        if proto.dtype != spec.data_type:
            expected, received = data_type_name(spec.data_type), data_type_name(proto.dtype)
            raise invalid_argument(f"Expects arg[{number}] to be {expected} but {received} is provided")
        _check_shape(alias, array.shape, spec.shape)
        if proto.dtype == DT_BFLOAT16:  # read_proto returned float32
            array = tf.cast(array, tf.bfloat16).numpy()
        arrays.append(array)
    return arrays


def order_inputs(signature: Signature, arrays: Mapping[str, Array]) -> list[Array]:
    """Return arrays of the signature's types in the order of its inputs.

    Raises:
        StatusError: INVALID_ARGUMENT for a rank or size that the signature does not allow.
    """
    for alias, spec in signature.inputs.items():
        _check_shape(alias, arrays[alias].shape, spec.shape)
    return [arrays[alias] for alias in signature.inputs]


def check_rows(alias: str, rows: int, max_rows: int | None) -> None:
    """Refuse an input of more rows than the limit.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if max_rows is not None and rows > max_rows:
        raise invalid_argument(
            f"a request may have at most {max_rows} rows. Received: {rows} in input {alias}"
        )


def check_names(signature: Signature, given: Sequence[str]) -> None:
    """Refuse missing and extra inputs.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if len(given) == len(signature.inputs) and all(alias in signature.inputs for alias in given):
        return
    expected = list(signature.inputs)
    given = sorted(given)
    extra = sorted(set(given) - set(expected))
    missing = sorted(set(expected) - set(given))
    if len(given) != len(expected):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(expected)} "
            f"len({{{','.join(given)}}}) != len({{{','.join(expected)}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )
    raise invalid_argument(
        f"Signature input alias: {missing[0]}(feed name: {signature.inputs[missing[0]].name}) not found in "
        f"request and no default value provided. Inputs expected to be in the request "
        f"{{{','.join(given)}}}, or default input alias set: "
    )


def _check_shape(alias: str, received: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    if expected is None:
        return
    if len(received) != len(expected) or any(
        size not in (-1, got) for size, got in zip(expected, received, strict=True)
    ):
        sizes = ",".join("?" if size == -1 else str(size) for size in expected)
        raise invalid_argument(
            f"Shape of tensor {alias} [{','.join(map(str, received))}] is not compatible with expected shape [{sizes}]."
        )


def choose_outputs(signature: Signature, output_filter: Sequence[str]) -> tuple[str, ...]:
    """Return the aliases of the requested outputs in their order; an empty filter requests all.

    Raises:
        StatusError: INVALID_ARGUMENT for an unknown or repeated alias.
    """
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{','.join(signature.outputs)}}}."
            )
    if len(set(output_filter)) != len(output_filter):
        raise invalid_argument("duplicate output tensor alias in the output filter")
    return tuple(sorted(output_filter or signature.outputs))
