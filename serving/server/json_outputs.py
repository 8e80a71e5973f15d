"""Output tensors → JSON values: `predictions` is a list of examples, `outputs` has a value for each tensor."""

import base64
from typing import Any

import numpy as np

from serving.server.errors import invalid_argument
from serving.server.json_text import decimals
from serving.tensors import Array, Arrays


def as_rows(outputs: Arrays) -> list[Any]:
    """Return `predictions`: for each example an object of all outputs, or the value of the only output.

    Raises:
        StatusError: INVALID_ARGUMENT for outputs without a common first dimension.
    """
    rows = 0
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if not len(array):
            raise invalid_argument(f"Tensor name: {name} has invalid batch size: 0")
        if rows and len(array) != rows:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}"
            )
        rows = len(array)
    columns = {name: as_json(array, name) for name, array in outputs.items()}
    if len(columns) == 1:
        return list(next(iter(columns.values())))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def as_columns(outputs: Arrays) -> Any:
    """Return `outputs`: an object of all outputs, or the value of the only output."""
    columns = {name: as_json(array, name) for name, array in outputs.items()}
    return next(iter(columns.values())) if len(columns) == 1 else columns


def as_json(array: Array, name: str) -> Any:
    """Return an array as JSON values; strings of an output named *_bytes as base64, others as text."""
    if array.dtype != np.object_:
        return decimals(array)

    def text(item: bytes) -> Any:
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(item).decode()}
        return item.decode(errors="replace")

    return np.vectorize(text, otypes=[np.object_])(array).tolist() if array.size else array.tolist()
