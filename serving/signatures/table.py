"""The signature of a model that reads rows of a table: an input for each column."""

import re
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from recipes.data.table import Column, Schema
from serving.signatures.guards import Tensor, guard, guard_batch, guard_finite

MAX_ROWS = 16_384
LIMITS = {"rows": MAX_ROWS}


def input_names(columns: Sequence[Column]) -> list[str]:
    """Return the name of each column's input: TensorFlow allows letters, digits and _, and no digit at the start."""
    names = [re.sub(r"[^a-zA-Z0-9_]", "_", column.name) for column in columns]
    return [
        name if re.match(r"[a-zA-Z]", name) and names.count(name) == 1 else f"column_{place}"
        for place, name in enumerate(names, 1)
    ]


def table_model(model: keras.Model, schema: Schema) -> tf.Module:
    """Wrap a table's model for serving.

    Args:
        model: float32 (n, columns) → (n, 1), or class probabilities (n, classes).
        schema: The columns.

    Returns:
        A module with the function `serving_default`, which takes 1 to MAX_ROWS rows of each column: float32 (n,) for
        numbers (NaN where one is missing, if the training table missed some), string (n,) for categories (empty where one is missing). It returns
        `prediction` float32 (n,), or `probabilities` float32 (n, classes), `label` int64 (n,) and `class_name`
        string (n,).
    """
    specs = [
        tf.TensorSpec((None,), tf.string if column.categories else tf.float32, name=name)
        for column, name in zip(schema.columns, input_names(schema.columns), strict=True)
    ]
    module = tf.Module()
    # Only the variables are tracked: with the Keras model every weight would be stored twice (keras#23553).
    module.weights = [variable.value for variable in model.variables]

    @tf.function(input_signature=specs)
    def serving_default(*inputs: Any) -> dict[str, Tensor]:
        columns = [guard_batch(tf.ensure_shape(values, (None,)), MAX_ROWS) for values in inputs]
        rows = tf.shape(columns[0])[0]
        same = tf.reduce_all([tf.shape(values)[0] == rows for values in columns])
        columns[0] = guard(columns[0], same, "the inputs must have the same number of rows")
        encoded = [_encode(values, column) for values, column in zip(columns, schema.columns, strict=True)]
        outputs = model(tf.stack(encoded, axis=1), training=False)
        if not schema.target.categories:
            return {"prediction": tf.identity(outputs[:, 0], "prediction")}
        labels = tf.argmax(outputs, axis=-1, name="label")
        return {
            "probabilities": tf.identity(outputs, "probabilities"),
            "label": labels,
            "class_name": tf.gather(tf.constant(schema.target.categories), labels, name="class_name"),
        }

    module.serving_default = serving_default
    return module


def _encode(values: Tensor, column: Column) -> Tensor:
    """Return a column as the model reads it, float32 (n,); see `recipes.data.table.Rows`."""
    if not column.categories:
        if not column.missing:
            return guard_finite(values)
        return guard(values, ~tf.math.is_inf(values), "an input has a value that is infinite")
    same = tf.strings.strip(values)[:, tf.newaxis] == tf.constant(column.categories)  # (n, categories)
    return tf.cast(
        tf.reduce_max(tf.where(same, tf.range(1, len(column.categories) + 1), 0), axis=1), tf.float32
    )
