"""JSON objects → the tf.Examples of :classify and :regress (https://www.tensorflow.org/tfx/serving/api_rest)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.protocol import message
from serving.server.errors import invalid_argument
from serving.server.examples import merge
from serving.server.json_tensors import as_bytes, decode_base64, is_base64
from serving.server.json_text import show, type_name

Example = message("tensorflow.Example")
KINDS = {"int64_list": "int64", "float_list": "float", "bytes_list": "bytes"}
LARGEST_FLOAT = float(np.finfo(np.float32).max)


def read_examples(body: Mapping[str, Any]) -> list[Any]:
    """Return the tf.Examples of a body, each with the features of its context.

    Raises:
        StatusError: INVALID_ARGUMENT for anything but a list of objects of features.
    """
    context = _read_example(body["context"]) if "context" in body else Example()
    examples = body.get("examples", "")
    refused = ""
    if "examples" not in body:
        refused = "When method is classify, key 'examples' is expected and was not found"
    elif not isinstance(examples, list):
        refused = "Expecting 'examples' value to be an list/array"
    elif not examples:
        refused = "'examples' value is an empty array"
    if refused:
        raise invalid_argument(f"JSON Value: {show(body)} {refused}")
    read = [_read_example(values) for values in examples]
    merge(context, read)
    return read


def _read_example(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(values)}")
    example = Example()
    try:
        for name, value in values.items():
            feature = example.features.feature[as_bytes(name).decode()]
            value = value.tolist() if isinstance(value, np.ndarray) else value
            for item in value if isinstance(value, list) else [value]:
                _add(feature, name, item)
    except ValueError as error:
        raise invalid_argument(str(error)) from error
    return example


def _add(feature: Any, name: str, item: Any) -> None:
    """Append a value to a feature, which has the type of its first value.

    Raises:
        ValueError: A value of another type, or of a type that features do not have.
    """
    kind, value = _kind_and_value(name, item)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise ValueError(f"Unexpected element type in feature: {name} expecting type: {KINDS[present]}")
    getattr(feature, kind).value.append(value)


def _kind_and_value(name: str, item: Any) -> tuple[str, Any]:
    if isinstance(item, bool | int):
        if not -(2**63) <= item < 2**63:
            raise ValueError(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", int(item)
    if isinstance(item, float):
        if np.isfinite(item) and abs(item) > LARGEST_FLOAT:
            raise ValueError(f"Cannot convert JSON value: {show(item)} to float without loss of precision.")
        return "float_list", item
    if isinstance(item, str):
        return "bytes_list", as_bytes(item)
    if is_base64(item):
        return "bytes_list", decode_base64(item)
    raise ValueError(f"Feature: {name} has element with unexpected JSON type: {type_name(item)}")
