"""Classify and Regress: tf.Examples as input, classes with scores or values as results."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.server.errors import invalid_argument
from serving.server.json_text import decimals
from serving.tensors import DT_FLOAT, DT_STRING, Array, Arrays, Signature, type_number

METHOD_NAMES = {"Classify": "tensorflow/serving/classify", "Regress": "tensorflow/serving/regress"}
"""The method_name of the signatures that are made for each API."""
DEBUG_STRING = "goo.gle/debugstr    \n"
"""How protobuf's C++ library begins the messages that it shows."""
KINDS = {"Classify": "classification", "Regress": "regression"}
INPUT = "inputs"
CLASSES, SCORES, VALUES = "classes", "scores", "outputs"
"""Aliases of the input and of the outputs that each API reads."""


def choose_outputs(api: str, signature: Signature, definition: Any, *, check_method: bool) -> tuple[str, ...]:
    """Return the aliases of the outputs that an API reads.

    Args:
        api: Classify or Regress.
        signature: The signature.
        definition: Its SignatureDef.
        check_method: Whether its method_name must be that of the API.

    Raises:
        StatusError: INVALID_ARGUMENT for a signature of another API.
    """
    kind, outputs, shown = KINDS[api], signature.outputs, f"{DEBUG_STRING}{definition}"
    if check_method and signature.method_name != METHOD_NAMES[api]:
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {METHOD_NAMES[api]}. Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if api == "Classify" and len(outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(outputs)}")
    if api == "Regress" and len(outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if INPUT not in signature.inputs:
        raise invalid_argument(f"No {kind} inputs found in SignatureDef: {shown}")
    if api == "Regress" and VALUES not in outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {shown}")
    chosen = tuple(alias for alias in (CLASSES, SCORES, VALUES) if alias in outputs)
    if api == "Classify" and not {CLASSES, SCORES} & set(chosen):
        raise invalid_argument(
            "Expected classification signature outputs to contain at least one of "
            f'"{CLASSES}" or "{SCORES}". Signature was: {shown}'
        )
    return tuple(alias for alias in chosen if (alias == VALUES) == (api == "Regress"))


def serialize(examples: Sequence[Any]) -> Array:
    """Return tf.Examples as a tensor, string (n,).

    Raises:
        StatusError: INVALID_ARGUMENT for no examples.
    """
    if not examples:
        raise invalid_argument("Input is empty.")
    array = np.empty(len(examples), np.object_)
    array[:] = [example.SerializeToString() for example in examples]
    return array


def merge(context: Any, examples: Sequence[Any]) -> None:
    """Add the features of a context to each tf.Example that lacks them."""
    for example in examples:
        for name, feature in context.features.feature.items():
            if name not in example.features.feature:
                example.features.feature[name].CopyFrom(feature)


def classifications(outputs: Arrays, rows: int) -> list[list[tuple[str, float]]]:
    """Return the label and score of each class, for each example.

    Args:
        outputs: `classes` string (n, classes), `scores` float32 (n, classes), or one of them.
        rows: Number of examples.

    Raises:
        StatusError: INVALID_ARGUMENT for outputs of another shape or type.
    """
    for alias, data_type, name in ((CLASSES, DT_STRING, "DT_STRING"), (SCORES, DT_FLOAT, "DT_FLOAT")):
        array = outputs.get(alias)
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shown(array)}")
        if type_number(array.dtype) != data_type:
            raise invalid_argument(f"Expected {alias} Tensor of {name}. Got: {array.dtype}")
        if len(array) != rows:
            raise invalid_argument(f"Expected {alias} output batch size of {rows}. Got: {len(array)}")
    sizes = [array.shape[1] for array in outputs.values()]
    if len(set(sizes)) > 1:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {sizes[0]} vs. {sizes[1]}"
        )
    labels = outputs.get(CLASSES, np.full((rows, sizes[0]), b"", np.object_))
    scores = outputs.get(SCORES, np.zeros((rows, sizes[0]), np.float32))
    return [
        [(label.decode(errors="replace"), score) for label, score in zip(*row, strict=True)]
        for row in zip(labels.tolist(), decimals(scores), strict=True)
    ]


def regressions(outputs: Arrays, rows: int) -> list[float]:
    """Return the value of each example.

    Args:
        outputs: `outputs` float32 (n,) or (n, 1).
        rows: Number of examples.

    Raises:
        StatusError: INVALID_ARGUMENT for an output of another shape or type.
    """
    values = outputs[VALUES]
    if values.ndim != 1 and values.shape[1:] != (1,):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
            f"but got {_shown(values)}"
        )
    if len(values) != rows:
        raise invalid_argument(f"Input batch size did not match output batch size: {rows} vs. {len(values)}")
    if type_number(values.dtype) != DT_FLOAT:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    numbers: list[float] = decimals(values.reshape(-1))
    return numbers


def _shown(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"
