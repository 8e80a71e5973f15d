"""JSON values → the tensors of a signature.

`instances` is a list of examples, `inputs` has a value for each tensor
(https://www.tensorflow.org/tfx/serving/api_rest#predict_api). What TF Serving refuses is refused in its words.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.server.errors import invalid_argument
from serving.server.inputs import check_rows
from serving.server.json_body import as_array
from serving.server.json_text import show, type_name
from serving.tensors import (
    DATA_TYPES,
    DT_BFLOAT16,
    DT_BOOL,
    DT_DOUBLE,
    DT_FLOAT,
    DT_STRING,
    Array,
    Arrays,
    Signature,
    TensorSpec,
)

MANTISSA_BITS = {DT_FLOAT: 24, DT_DOUBLE: 53}
"""Integers of more bits are not exact as numbers of these types, and are refused."""


def read_tensors(body: Mapping[str, Any], signature: Signature, max_rows: int | None) -> Arrays:
    """Return the arrays of a :predict body by name.

    Args:
        body: The request.
        signature: The signature.
        max_rows: Most rows of a request; None for any number.

    Raises:
        StatusError: INVALID_ARGUMENT for values that the signature or the limit of rows does not allow.
    """
    if "instances" not in body and "inputs" not in body:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    if "instances" in body and "inputs" in body:
        raise _refused(
            body, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if "inputs" in body:
        return _read_columns(body["inputs"], signature.inputs, max_rows)
    rows = body["instances"]
    if not isinstance(rows, list):
        raise _refused(body, "Excepting 'instances' to be an list/array")
    if not rows:
        raise _refused(body, "No values in 'instances' array")
    for name in signature.inputs:
        check_rows(name, len(rows), max_rows)
    return _read_rows(rows, signature.inputs)


def _refused(value: Any, why: str) -> Exception:
    return invalid_argument(f"JSON Value: {show(value)} {why}")


def is_base64(value: Any) -> bool:
    """Return whether a value is an object that stands for bytes: {"b64": ...}."""
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _read_columns(value: Any, inputs: Mapping[str, TensorSpec], max_rows: int | None) -> Arrays:
    """Read `inputs`: an object with all inputs, or the value of the only input."""
    if not _is_object(value):
        if len(inputs) != 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        value = dict.fromkeys(inputs, value)
    arrays = {}
    for name, spec in inputs.items():
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        column = value[name]
        check_rows(name, len(column) if isinstance(column, list | np.ndarray) else 0, max_rows)
        try:
            arrays[name] = read_tensor(column, spec.data_type)
        except ValueError as error:
            raise invalid_argument(str(error)) from error
        except RecursionError as error:
            raise invalid_argument(f"tensor parsing error: {name}") from error
    return arrays


def _read_rows(rows: list[Any], inputs: Mapping[str, TensorSpec]) -> Arrays:
    """Read `instances`: a list of objects with all inputs, or of values of the only input."""
    as_objects = _is_object(rows[0])
    if not as_objects and len(inputs) != 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    only = next(iter(inputs))
    if not as_objects:
        numbers = _read_numbers(_joined(rows), inputs[only].data_type)
        if numbers is not None:
            return {only: numbers}
    columns: dict[str, list[Array]] = {name: [] for name in inputs}
    for number, row in enumerate(rows):
        if _is_object(row) != as_objects:
            expected, got = ("object", "list") if as_objects else ("value/list", "object")
            raise invalid_argument(f"Expecting {expected} but got {got} at item {number} of input list")
        for name, value in (row if as_objects else {only: row}).items():
            try:
                _add(columns, name, value, inputs)
            except (ValueError, RecursionError) as error:
                place = f"{number} key: {name}" if as_objects else str(number)
                raise invalid_argument(
                    f"Failed to process element: {place} of 'instances' list. Error: INVALID_ARGUMENT: {error}"
                ) from error
        if as_objects and set(row) != set(inputs):
            raise invalid_argument(
                f"Failed to process element: {number} of 'instances' list. JSON object: {show(row)} "
                f"must only have keys: {','.join(inputs)}"
            )
    return {name: np.stack(values) for name, values in columns.items()}


def _add(columns: dict[str, list[Array]], name: str, value: Any, inputs: Mapping[str, TensorSpec]) -> None:
    """Append the value of an example to its column.

    Raises:
        ValueError: It is not a tensor of the input's type and of the shape of the others.
    """
    if name not in inputs:
        raise ValueError(f"JSON object: does not have named input: {name}")
    array, others = read_tensor(value, inputs[name].data_type), columns[name]
    if others and array.size != others[0].size:
        raise ValueError(f"Expecting tensor size: {others[0].size} but got: {array.size}")
    if others and array.shape != others[0].shape:
        raise ValueError(f"Expecting shape {_shown(others[0])} but got: {_shown(array)}")
    others.append(array)


def _shown(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def read_tensor(value: Any, data_type: int) -> Array:
    """Return a JSON value as an array of a type.

    Raises:
        ValueError: It is not a tensor of this type.
    """
    if isinstance(value, list):
        value = _joined(value)
    numbers = _read_numbers(value, data_type)
    if numbers is not None:
        return numbers
    value = _as_lists(value)
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    leaves: list[Any] = []
    _read_leaves(value, shape, 0, data_type, leaves)
    array = np.empty(len(leaves), DATA_TYPES[data_type].dtype)
    array[:] = leaves
    return array.reshape(shape)


def _joined(values: list[Any]) -> Any:
    """Return a list of numbers, or of arrays of one shape, as one array; any other list unchanged."""
    kinds = set(map(type, values))
    if kinds == {np.ndarray}:
        same = len({(array.shape, array.dtype) for array in values}) == 1
        return np.stack(values) if same else values
    return as_array(values) if kinds <= {int, float} else values


def _as_lists(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_as_lists(item) for item in value] if isinstance(value, list) else value


def _read_numbers(value: Any, data_type: int) -> Array | None:
    """Return an array of JSON numbers as one of a type; None if the type does not allow all of them."""
    if not isinstance(value, np.ndarray):
        return None
    dtype = np.dtype(DATA_TYPES[data_type].dtype)
    integers = value.dtype.kind in "iu"
    if data_type in MANTISSA_BITS and integers:
        limit = 2 ** MANTISSA_BITS[data_type] - 1
        allowed = -limit <= value.min() and value.max() <= limit
    elif data_type in MANTISSA_BITS:
        finite = value[np.isfinite(value)]
        allowed = not finite.size or abs(finite).max() <= np.finfo(dtype).max
    elif dtype.kind in "iu" and integers and data_type != DT_BFLOAT16:
        allowed = np.iinfo(dtype).min <= value.min() and value.max() <= np.iinfo(dtype).max
    else:
        allowed = False
    return value.astype(dtype) if allowed else None


def _read_leaves(value: Any, shape: Sequence[int], level: int, data_type: int, leaves: list[Any]) -> None:
    """Append the values of nested lists of a shape.

    Raises:
        ValueError: Lists of another shape, or a value of another type.
    """
    if not isinstance(value, list):
        if level != len(shape):
            raise ValueError(
                f"JSON Value: {show(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        leaves.append(_read_leaf(value, data_type))
        return
    if level >= len(shape):
        raise ValueError(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise ValueError(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _read_leaves(item, shape, level + 1, data_type, leaves)


def _read_leaf(value: Any, data_type: int) -> Any:
    kind = DATA_TYPES[data_type]
    if data_type == DT_STRING and isinstance(value, dict):
        return decode_base64(value)
    if data_type == DT_STRING and isinstance(value, str):
        return as_bytes(value)
    if data_type == DT_BOOL and isinstance(value, bool):
        return value
    if type(value) in (int, float):
        if type(value) is int and not -(2**63) <= value < 2**64:
            value = _as_double(value)  # RapidJSON reads integers of more than 64 bits as such
        number = _read_numbers(np.array(value), data_type)
        if number is not None:
            return number
        if data_type in MANTISSA_BITS:
            raise ValueError(
                f"Cannot convert JSON value: {show(value)} to {kind.name} without loss of precision."
            )
    raise ValueError(
        f"JSON Value: {show(value)} Type: {type_name(value)} is not of expected type: {kind.name}"
    )


def _as_double(value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("JSON Parse error: Number too big to be stored in double.") from error


def as_bytes(text: str) -> bytes:
    """Return text in UTF-8, with the bytes of the request that were not UTF-8.

    Raises:
        ValueError: Half of a surrogate pair.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError("JSON Parse error: The surrogate pair in string is invalid.") from error


def decode_base64(value: Any) -> bytes:
    """Return the bytes that {"b64": ...} encodes, with or without padding.

    Raises:
        ValueError: Another object, or no base64.
    """
    if not is_base64(value):
        raise ValueError(f"JSON Value: {show(value)} not formatted correctly for base64 data")
    content = re.sub(r"\s", "", value["b64"]).rstrip("=")
    try:
        return base64.b64decode(content + "=" * (-len(content) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("Unable to base64 decode") from error
