"""Classify and Regress: tf.Examples as inputs, classes with scores or values as results."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.server.errors import invalid_argument
from serving.tensors import Array

METHOD_NAMES = {"Classify": "tensorflow/serving/classify", "Regress": "tensorflow/serving/regress"}
"""The method_name of the signatures that each API needs."""


def serialize(examples: Sequence[Any]) -> Array:
    """Return the single input of a classification or regression signature, string (n,), from tf.Examples.

    Raises:
        StatusError: INVALID_ARGUMENT for no examples.
    """
    if not examples:
        raise invalid_argument("Input is empty")
    array = np.empty(len(examples), np.object_)
    array[:] = [example.SerializeToString() for example in examples]
    return array


def classifications(outputs: Mapping[str, Array]) -> list[list[tuple[str, float]]]:
    """Return the label and score of each class, for each example.

    Args:
        outputs: `classes` string (n, classes), `scores` float32 (n, classes), or one of them.
    """
    shape = next(iter(outputs.values())).shape
    labels = outputs.get("classes", np.full(shape, b"", np.object_))
    scores = outputs.get("scores", np.zeros(shape))
    return [
        [(label.decode(errors="replace"), float(score)) for label, score in zip(*row, strict=True)]
        for row in zip(labels, scores, strict=True)
    ]


def regressions(outputs: Mapping[str, Array]) -> list[float]:
    """Return the value of each example.

    Args:
        outputs: `outputs` float32 (n,) or (n, 1).
    """
    values = outputs["outputs"]
    first: list[float] = values.reshape(len(values), -1)[:, 0].tolist()
    return first
