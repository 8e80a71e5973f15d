"""JSON values ↔ the tensors and tf.Examples of a signature.

`instances` and `predictions` are lists of examples, `inputs` and `outputs` have a value for each tensor
(https://www.tensorflow.org/tfx/serving/api_rest#predict_api).
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.protocol import message
from serving.server.errors import invalid_argument
from serving.server.inputs import check_names, check_rows, order_inputs
from serving.tensors import DATA_TYPES, DT_STRING, Array, Arrays, Signature

Example = message("tensorflow.Example")


def read_tensors(body: Mapping[str, Any], signature: Signature, max_rows: int | None) -> list[Array]:
    """Return the arrays of a :predict body in the order of the signature's inputs.

    Args:
        body: Has either `instances` or `inputs`.
        signature: The signature.
        max_rows: Most rows of a request; None for any number.

    Raises:
        StatusError: INVALID_ARGUMENT for inputs that the signature or the limit of rows does not allow.
    """
    if "instances" in body:
        columns = _columns_of_rows(body["instances"], signature)
    else:
        columns = _columns(body["inputs"], signature)
    for name, column in columns.items():
        check_rows(name, len(column) if isinstance(column, list | np.ndarray) else 0, max_rows)
    arrays = {
        name: _array(column, signature.inputs[name].data_type, name) for name, column in columns.items()
    }
    return order_inputs(signature, arrays)


def _columns_of_rows(rows: Any, signature: Signature) -> Mapping[str, Any]:
    """Read `instances`: a list of objects with all inputs, or of values of the only input."""
    if not isinstance(rows, list) or not rows:
        raise invalid_argument("JSON Value: 'instances' must be a list with at least one example")
    if all(isinstance(row, dict) and set(row) != {"b64"} for row in rows):
        given = set(rows[0])
        if any(set(row) != given for row in rows):
            raise invalid_argument("JSON Value: every example must have the same inputs")
        check_names(signature, sorted(given))
        return {name: [row[name] for row in rows] for name in signature.inputs}
    return _column_of_only_input(rows, signature)


def _columns(value: Any, signature: Signature) -> Mapping[str, Any]:
    """Read `inputs`: an object with all inputs, or the value of the only input."""
    if isinstance(value, dict) and set(value) != {"b64"}:
        check_names(signature, sorted(value))
        return value
    return _column_of_only_input(value, signature)


def _column_of_only_input(value: Any, signature: Signature) -> Mapping[str, Any]:
    if len(signature.inputs) != 1:
        check_names(signature, [])
    return dict.fromkeys(signature.inputs, value)


def _array(value: Any, data_type: int, name: str) -> Array:
    """Return a JSON value as an array of a signature's type."""
    kind = DATA_TYPES[data_type]
    try:
        if data_type == DT_STRING:
            return np.array(_encode_strings(value), np.object_)
        for item in value if isinstance(value, list) else []:
            if not isinstance(item, int | float | np.ndarray):
                raise ValueError(f"{type(item).__name__} where numbers of one shape belong")
        array = np.array(value)
        if array.dtype.kind not in ("biuf" if np.dtype(kind.dtype).kind == "f" else "biu") and array.size:
            raise ValueError(f"{array.dtype} where {kind.name} belongs")
        if np.dtype(kind.dtype).kind in "iu" and array.size:
            limits = np.iinfo(kind.dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise ValueError(f"numbers outside of {kind.name}")
        return array.astype(kind.dtype)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise invalid_argument(f"JSON Value: input {name} is not a tensor of {kind.name}: {error}") from error


def _encode_strings(value: Any) -> Any:
    """Return text as UTF-8 and {"b64": ...} as the bytes it encodes, in lists of any depth."""
    if isinstance(value, list):
        return [_encode_strings(item) for item in value]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"b64: {error}") from error
    raise ValueError(f"{type(value).__name__} where a string or {{'b64': ...}} belongs")


def as_rows(outputs: Arrays) -> list[Any]:
    """Return `predictions`: for each example an object of all outputs, or the value of the only output.

    Raises:
        StatusError: INVALID_ARGUMENT for outputs without a common first dimension.
    """
    sizes = {array.shape[0] if array.ndim else None for array in outputs.values()}
    if None in sizes or len(sizes) != 1:
        raise invalid_argument(
            "The outputs have no common first dimension: use 'inputs' instead of 'instances'"
        )
    columns = {name: _plain(array, name) for name, array in outputs.items()}
    if len(columns) == 1:
        return list(next(iter(columns.values())))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def as_columns(outputs: Arrays) -> Any:
    """Return `outputs`: an object of all outputs, or the value of the only output."""
    columns = {name: _plain(array, name) for name, array in outputs.items()}
    return next(iter(columns.values())) if len(columns) == 1 else columns


def _plain(array: Array, name: str) -> Any:
    """Return an array as JSON values; strings of an output named *_bytes as base64, others as text."""
    if array.dtype != np.object_:
        return array.tolist()

    def text(item: bytes) -> Any:
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(item).decode()}
        return item.decode(errors="replace")

    return np.vectorize(text, otypes=[np.object_])(array).tolist() if array.size else []


def read_examples(body: Mapping[str, Any]) -> list[Any]:
    """Return the tf.Examples of a :classify or :regress body.

    Raises:
        StatusError: INVALID_ARGUMENT for anything but a list of objects of features.
    """
    examples = body.get("examples")
    if not isinstance(examples, list) or not examples:
        raise invalid_argument("JSON Value: 'examples' must be a list with at least one example")
    return [_example(values) for values in examples]


def _example(values: Any) -> Any:
    if not isinstance(values, dict):
        raise invalid_argument("JSON Value: an example must be an object of features")
    example = Example()
    for name, value in values.items():
        items: Sequence[Any] = np.atleast_1d(value).tolist() if isinstance(value, np.ndarray) else [value]
        items = value if isinstance(value, list) else items
        try:
            feature = example.features.feature[name]
            if all(isinstance(item, int) for item in items):
                feature.int64_list.value.extend(items)
            elif all(isinstance(item, int | float) for item in items):
                feature.float_list.value.extend(items)
            else:
                feature.bytes_list.value.extend(_encode_strings(list(items)))
        except (ValueError, TypeError) as error:
            raise invalid_argument(f"JSON Value: feature {name}: {error}") from error
    return example
