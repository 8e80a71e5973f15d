"""Checks of a request against a signature: what the signature does not allow never reaches the graph.

The messages are TF Serving's. The graph checks the limits of its export itself, but only once its inputs are
in memory, and a message with one value can stand for any number of rows. So rows are checked first.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from serving.server.errors import StatusError, invalid_argument
from serving.tensors import (
    DT_BFLOAT16,
    Array,
    Arrays,
    Signature,
    data_type_name,
    read_proto,
    type_number,
)

MAX_REPEATED_BYTES = 16 * 2**20
"""Largest tensor that a single value may stand for; a larger one is taken for an attack."""
OTHER_TYPES = {
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    20: "resource",
    21: "variant",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    29: "int4",
    30: "uint4",
}
"""Types of tensors that this server does not read."""


def read_protos(signature: Signature, protos: Any, max_rows: int | None = None) -> Arrays:
    """Return the arrays of TensorProtos by input name.

    Args:
        signature: The signature.
        protos: TensorProtos by input name.
        max_rows: Most rows of a request; None for any number.

    Raises:
        StatusError: INVALID_ARGUMENT for a missing or extra input, a malformed tensor, or too many rows.
    """
    check_names(signature, list(protos))
    arrays = {}
    for alias in signature.inputs:
        proto = protos[alias]
        for first in proto.tensor_shape.dim[:1]:
            check_rows(alias, first.size, max_rows)
        if proto.dtype in OTHER_TYPES:
            raise _wrong_type(signature, alias, OTHER_TYPES[proto.dtype])
        try:
            array = read_proto(proto, MAX_REPEATED_BYTES)
        except (ValueError, OverflowError, MemoryError) as error:
            raise invalid_argument(f"tensor parsing error: {alias}") from error
        if proto.dtype == DT_BFLOAT16:  # read_proto returned float32
            array = tf.cast(array, tf.bfloat16).numpy()
        arrays[alias] = array
    return arrays


def order_inputs(signature: Signature, arrays: Arrays, *, any_shape: bool) -> list[Array]:
    """Return arrays in the order of the signature's inputs.

    Args:
        signature: The signature.
        arrays: Arrays by input name.
        any_shape: Whether to leave the shapes to the graph.

    Raises:
        StatusError: INVALID_ARGUMENT for a type, rank or size that the signature does not allow.
    """
    for alias, spec in signature.inputs.items():
        received = type_number(arrays[alias].dtype)
        if received != spec.data_type:
            raise _wrong_type(signature, alias, data_type_name(received))
        if not any_shape:
            _check_shape(alias, arrays[alias].shape, spec.shape)
    return [arrays[alias] for alias in signature.inputs]


def _wrong_type(signature: Signature, alias: str, received: str) -> StatusError:
    number = list(signature.inputs).index(alias)
    expected = data_type_name(signature.inputs[alias].data_type)
    return invalid_argument(f"Expects arg[{number}] to be {expected} but {received} is provided")


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
    for place, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{','.join(signature.outputs)}}}."
            )
        if alias in output_filter[:place]:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
    return tuple(sorted(output_filter or signature.outputs))
