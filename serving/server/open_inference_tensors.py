"""Tensors of the Open Inference Protocol ↔ arrays, in JSON and in binary.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension:
binary data is little-endian and row-major; an element of BYTES is its length in 4 bytes and its content. The
binary data of all tensors follow the JSON object, in the order of the tensors.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from serving.server.errors import invalid_argument
from serving.server.inputs import check_names, check_rows
from serving.server.json_outputs import as_json
from serving.server.json_tensors import read_tensor
from serving.server.json_text import show
from serving.tensors import (
    DATA_TYPES,
    DT_BFLOAT16,
    DT_BOOL,
    DT_HALF,
    DT_STRING,
    MAX_RANK,
    Array,
    Arrays,
    Signature,
    data_type_name,
    type_number,
)

BINARY_SIZE = "binary_data_size"
LENGTH = struct.Struct("<I")
DATATYPES = {
    "BOOL": DT_BOOL,
    "UINT8": 4,
    "UINT16": 17,
    "UINT32": 22,
    "UINT64": 23,
    "INT8": 6,
    "INT16": 5,
    "INT32": 3,
    "INT64": 9,
    "FP16": DT_HALF,
    "FP32": 1,
    "FP64": 2,
    "BF16": DT_BFLOAT16,
    "BYTES": DT_STRING,
}
"""TensorFlow's data types by the names of the protocol."""
_NAMES = {number: name for name, number in DATATYPES.items()}
WITHOUT_JSON = (DT_HALF, DT_BFLOAT16)
"""Types that the protocol has in binary only."""


def datatype(name: str, number: int) -> str:
    """Return the protocol's name of the data type of a tensor.

    Raises:
        StatusError: INVALID_ARGUMENT for a type that the protocol does not have.
    """
    if number not in _NAMES:
        raise invalid_argument(
            f"tensor {name} has type {data_type_name(number)}, which this protocol does not have"
        )
    return _NAMES[number]


def read_tensors(
    tensors: list[Any], binary: memoryview, signature: Signature, max_rows: int | None
) -> Arrays:
    """Return the arrays of a request by name.

    Args:
        tensors: `inputs` of the request.
        binary: The bytes that follow the JSON object.
        signature: The signature.
        max_rows: Most rows of a request; None for any number.

    Raises:
        StatusError: INVALID_ARGUMENT for tensors that are malformed, or that the signature or the limit of rows
            does not allow.
    """
    names = [str(_member(tensor, "name", str)) for tensor in tensors]
    check_names(signature, names)
    arrays = {}
    for name, tensor in zip(names, tensors, strict=True):
        kind = _member(tensor, "datatype", str)
        if kind not in DATATYPES:
            raise invalid_argument(
                f"datatype of {name} must be one of {', '.join(DATATYPES)}. Received: {show(kind)}"
            )
        shape = _shape(tensor)
        check_rows(name, shape[0] if shape else 0, max_rows)
        size = _member(tensor, "parameters", dict, {}).get(BINARY_SIZE)
        try:
            if size is None:
                arrays[name] = _from_json(tensor, DATATYPES[kind], shape)
                continue
            if type(size) is not int or not 0 <= size <= len(binary):
                raise ValueError(
                    f"{BINARY_SIZE} must be 0 to {len(binary)}, the bytes that are left. Received: {show(size)}"
                )
            arrays[name] = _from_binary(binary[:size], DATATYPES[kind], shape)
            binary = binary[size:]
        except (ValueError, RecursionError) as error:
            raise invalid_argument(f"tensor parsing error: {name}: {error}") from error
    if binary:
        raise invalid_argument(f"{len(binary)} bytes of binary data belong to no input")
    return arrays


def _member(value: Any, name: str, kind: type, default: Any = None) -> Any:
    """Return a member of a JSON object.

    Raises:
        StatusError: INVALID_ARGUMENT for another value than an object, and for a member of another type.
    """
    member = value.get(name, default) if isinstance(value, dict) else None
    if not isinstance(member, kind):
        raise invalid_argument(f"{name} is missing or invalid in {show(value)}")
    return member


def _shape(tensor: Mapping[str, Any]) -> list[int]:
    sizes = tensor.get("shape")
    if isinstance(sizes, np.ndarray) and sizes.ndim == 1 and len(sizes) <= MAX_RANK:
        sizes = sizes.tolist()
    if not isinstance(sizes, list) or not all(type(size) is int and 0 <= size < 2**63 for size in sizes):
        raise invalid_argument(
            f"shape must be a list of at most {MAX_RANK} sizes of at least 0. Received: {show(sizes)}"
        )
    return sizes


def _from_json(tensor: Mapping[str, Any], number: int, shape: list[int]) -> Array:
    """Return the array of `data`, flat or nested.

    Raises:
        ValueError: Invalid data.
    """
    if number in WITHOUT_JSON:
        raise ValueError(f"{_NAMES[number]} must be sent as binary data")
    data = tensor.get("data")
    if not isinstance(data, list | np.ndarray):
        raise ValueError(f"data must be a list. Received: {show(data)}")
    array = read_tensor(data, number)
    if array.size != math.prod(shape):
        raise ValueError(f"shape {shape} has {math.prod(shape)} elements. Received: {array.size} in data")
    return array.reshape(shape)


def _from_binary(content: memoryview, number: int, shape: list[int]) -> Array:
    """Return the array of binary data.

    Raises:
        ValueError: Bytes that do not fit the shape.
    """
    count = math.prod(shape)
    if number == DT_STRING:
        array = np.empty(min(count, len(content) // LENGTH.size), np.object_)
        filled = 0
        for filled, item in enumerate(_strings(content), start=1):
            if filled > count:
                break
            array[filled - 1] = item
        if filled != count:
            raise ValueError(f"shape {shape} has {count} elements. Received: {filled} or more in binary data")
        return array.reshape(shape)
    dtype = np.dtype(DATA_TYPES[number].dtype).newbyteorder("<")
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes for {count} elements of {dtype.itemsize} bytes")
    if number == DT_BOOL:
        dtype = np.dtype(np.uint8)
    array = np.frombuffer(content, dtype).reshape(shape)
    if number == DT_BOOL:
        if array.size and array.max() > 1:
            raise ValueError(f"a byte of BOOL must be 0 or 1. Received: {array.max()}")
        return array.astype(np.bool_)
    return array.view(tf.bfloat16.as_numpy_dtype) if number == DT_BFLOAT16 else array


def _strings(content: memoryview) -> Any:
    start = 0
    while start < len(content):
        if len(content) - start < LENGTH.size:
            raise ValueError("the length of an element has 4 bytes")
        (length,) = LENGTH.unpack_from(content, start)
        start += LENGTH.size
        if length > len(content) - start:
            raise ValueError(f"an element of {length} bytes where {len(content) - start} are left")
        yield bytes(content[start : start + length])
        start += length


def write_tensor(name: str, array: Array, *, as_binary: bool) -> tuple[dict[str, Any], bytes]:
    """Return a tensor of a response, and its binary data.

    Raises:
        StatusError: INVALID_ARGUMENT for a type that the protocol does not have, or not in JSON.
    """
    number = type_number(array.dtype)
    tensor: dict[str, Any] = {
        "name": name,
        "datatype": datatype(name, number),
        "shape": list(array.shape),
    }
    if as_binary:
        content = _to_binary(array, number)
        return tensor | {"parameters": {BINARY_SIZE: len(content)}}, content
    if number in WITHOUT_JSON:
        raise invalid_argument(f"tensor {name} of type {tensor['datatype']} must be requested as binary data")
    return tensor | {"data": as_json(array.reshape(-1), name)}, b""


def _to_binary(array: Array, number: int) -> bytes:
    if number == DT_STRING:
        return b"".join(part for item in array.flat for part in (LENGTH.pack(len(item)), item))
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
