"""Signatures and their tensors, for client and server, without TensorFlow: NumPy arrays ↔ TensorProto messages.

The field numbers and value lists are those of tensorflow/core/framework/tensor.proto.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
"""Arrays by the name of the input or output."""

DT_FLOAT, DT_DOUBLE, DT_STRING, DT_BOOL = 1, 2, 7, 10
DT_BFLOAT16 = 14
DT_HALF = 19
MAX_RANK = 64
"""Dimensions of a NumPy array; TensorFlow allows 254."""


@dataclass(frozen=True)
class DataType:
    """A TensorFlow data type: its NumPy dtype, its name in error messages, its value list."""

    dtype: Any
    name: str
    values: str


DATA_TYPES: dict[int, DataType] = {
    DT_FLOAT: DataType(np.float32, "float", "float_val"),
    DT_DOUBLE: DataType(np.float64, "double", "double_val"),
    3: DataType(np.int32, "int32", "int_val"),
    4: DataType(np.uint8, "uint8", "int_val"),
    5: DataType(np.int16, "int16", "int_val"),
    6: DataType(np.int8, "int8", "int_val"),
    DT_STRING: DataType(np.object_, "string", "string_val"),
    8: DataType(np.complex64, "complex64", "scomplex_val"),
    9: DataType(np.int64, "int64", "int64_val"),
    DT_BOOL: DataType(np.bool_, "bool", "bool_val"),
    DT_BFLOAT16: DataType(np.uint16, "bfloat16", "half_val"),
    17: DataType(np.uint16, "uint16", "int_val"),
    18: DataType(np.complex128, "complex128", "dcomplex_val"),
    DT_HALF: DataType(np.float16, "half", "half_val"),
    22: DataType(np.uint32, "uint32", "uint32_val"),
    23: DataType(np.uint64, "uint64", "uint64_val"),
}
_NUMBERS = {np.dtype(kind.dtype): number for number, kind in DATA_TYPES.items() if number != DT_BFLOAT16}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a signature.

    Attributes:
        data_type: DataType number.
        shape: Sizes, -1 for any size; None for any rank.
        name: Name of the tensor in the graph.
    """

    data_type: int
    shape: tuple[int, ...] | None
    name: str = ""


@dataclass(frozen=True)
class Signature:
    """A signature of a model.

    Attributes:
        method_name: The API it is for: tensorflow/serving/predict, .../classify or .../regress.
        inputs, outputs: Tensors by alias, in the order of the aliases.
    """

    method_name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def from_definition(cls, definition: Any) -> "Signature":
        """Return the signature that a SignatureDef message describes."""
        return cls(definition.method_name, _specs(definition.inputs), _specs(definition.outputs))

    @functools.cached_property
    def batched(self) -> bool:
        """Whether the first dimension of all inputs and outputs is free, so that requests can share a batch."""
        tensors = (*self.inputs.values(), *self.outputs.values())
        return bool(self.inputs) and all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors)


def _specs(tensors: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        alias: TensorSpec(
            tensors[alias].dtype,
            None
            if tensors[alias].tensor_shape.unknown_rank
            else tuple(dim.size for dim in tensors[alias].tensor_shape.dim),
            tensors[alias].name,
        )
        for alias in sorted(tensors)
    }


def data_type_name(number: int) -> str:
    """Return the name of a data type in TensorFlow's error messages."""
    return DATA_TYPES[number].name if number in DATA_TYPES else f"type {number}"


def type_number(dtype: np.dtype[Any]) -> int:
    """Return the DataType number of a NumPy dtype; text and bytes are DT_STRING.

    Raises:
        ValueError: A dtype that tensors do not have.
    """
    if dtype in _NUMBERS:
        return _NUMBERS[dtype]
    if dtype.kind in "US":
        return DT_STRING
    if dtype.name == "bfloat16":
        return DT_BFLOAT16
    raise ValueError(f"tensors can't hold {dtype}. Possible: {', '.join(map(str, _NUMBERS))}")


def as_array(value: Any) -> Array:
    """Return a value as an array; bytes and text as objects, because NumPy's string types drop trailing zeros."""
    leaf = value
    while isinstance(leaf, list | tuple) and leaf:
        leaf = leaf[0]
    return np.array(value, np.object_) if isinstance(leaf, str | bytes) else np.asarray(value)


def fill_proto(proto: Any, array: Any, *, as_values: bool = False) -> None:
    """Write an array into an empty TensorProto.

    Args:
        proto: The message.
        array: Numbers, bytes or text (encoded as UTF-8) of any shape.
        as_values: Whether to write numbers to the typed value list, as TF Serving does, instead of
            `tensor_content`, which is many times faster to read.
    """
    array = as_array(array)
    number = proto.dtype = type_number(array.dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_shape.SetInParent()
    if number == DT_STRING:
        proto.string_val.extend(
            item.encode() if isinstance(item, str) else bytes(item) for item in array.flat
        )
    elif as_values:
        _values(proto, number).extend(_as_list(array, number))
    else:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        proto.tensor_content = little.tobytes()


def _values(proto: Any, number: int) -> Any:
    return getattr(proto, DATA_TYPES[number].values)


def _as_list(array: Array, number: int) -> Sequence[Any]:
    flat = np.ascontiguousarray(array).reshape(-1)
    if number in (DT_HALF, DT_BFLOAT16):
        flat = flat.view(np.uint16)
    elif flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    values: list[Any] = flat.tolist()
    return values


def read_proto(proto: Any, max_bytes: int = 2**31 - 1) -> Array:
    """Return the array of a TensorProto; a bfloat16 tensor as float32.

    As in TensorFlow, the last value of a list shorter than the shape is repeated, an empty list stands for zeros
    or empty strings, more values than the shape has are ignored, and an unknown rank is 0.

    Args:
        proto: The message.
        max_bytes: Largest array that a short value list may be repeated to.

    Raises:
        ValueError: An invalid message: an unknown type, an impossible shape, or bytes that do not fit the shape.
    """
    number = proto.dtype
    if number not in DATA_TYPES:
        raise ValueError(f"unknown data type {number}")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape) or len(shape) > MAX_RANK:
        raise ValueError(f"impossible shape {shape}")
    kind = DATA_TYPES[number]
    count = math.prod(shape)
    if proto.tensor_content:
        array = _read_content(proto.tensor_content, kind, count)
    else:
        array = _read_values(_values(proto, number), number, count, max_bytes)
    array = array.reshape(shape)
    if number == DT_BFLOAT16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _read_content(content: bytes, kind: DataType, count: int) -> Array:
    if kind.dtype is np.object_:
        raise ValueError("strings can't be in tensor_content")
    size = np.dtype(kind.dtype).itemsize
    if len(content) != count * size:
        raise ValueError(f"{len(content)} bytes for {count} values of {size} bytes")
    return np.frombuffer(content, np.dtype(kind.dtype).newbyteorder("<"))


def _read_values(values: Any, number: int, count: int, max_bytes: int) -> Array:
    dtype = DATA_TYPES[number].dtype
    if number == DT_STRING:
        array: Array = np.empty(len(values), np.object_)
        array[:] = list(values)
    elif number in (DT_HALF, DT_BFLOAT16):
        array = np.array(values, np.int64).astype(np.uint16).view(dtype)
    elif number in (8, 18):
        array = np.array(values, np.float32 if number == 8 else np.float64)
        array = array[: len(array) // 2 * 2].view(dtype)
    else:
        array = np.array(values).astype(dtype)
    if len(array) >= count:
        return array[:count]
    if count * array.itemsize > max_bytes:
        raise ValueError(f"one value repeated {count} times")
    last = array[-1:] if len(array) else np.array([b""] if number == DT_STRING else [0], array.dtype)
    return np.concatenate([array, np.repeat(last, count - len(array))])
