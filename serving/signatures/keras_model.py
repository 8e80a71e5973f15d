"""The signature of any Keras model with tensors as inputs and outputs."""

from typing import Any

import keras
import tensorflow as tf

from serving.signatures.guards import guard_batch, guard_finite

AUTOMATIC = ("keras_tensor", "input_layer")
"""Prefixes of the names that Keras gives to unnamed inputs."""
MAX_ROWS = 1024
LIMITS = {"rows": MAX_ROWS}


def input_names(model: keras.Model) -> list[str]:
    """Return the names of the inputs: the user's, otherwise `inputs`, or `inputs_0`, `inputs_1`, ..."""
    single = len(model.inputs) == 1
    return [
        ("inputs" if single else f"inputs_{number}") if tensor.name.startswith(AUTOMATIC) else tensor.name
        for number, tensor in enumerate(model.inputs)
    ]


def output_names(model: keras.Model) -> list[str]:
    """Return the names of the outputs: `outputs` for a single one, otherwise the model's."""
    return ["outputs"] if len(model.outputs) == 1 else list(model.output_names)


def keras_model(model: keras.Model) -> tf.Module:
    """Wrap a functional or Sequential model for serving.

    Returns:
        A module with the function `serving_default`, which takes 1 to MAX_ROWS rows of each input, with the
        shapes and types of the model, and returns its outputs.
    """
    names = input_names(model)
    specs = [
        tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)
        for name, tensor in zip(names, model.inputs, strict=True)
    ]
    module = tf.Module()
    # Only the variables are tracked: with the Keras model every weight would be stored twice (keras#23553).
    module.weights = [variable.value for variable in model.variables]

    def guarded(values: Any, spec: tf.TensorSpec) -> Any:
        rows = guard_batch(tf.ensure_shape(values, spec.shape), MAX_ROWS)
        return guard_finite(rows) if spec.dtype.is_floating else rows

    @tf.function(input_signature=specs)
    def serving_default(*inputs: Any) -> dict[str, Any]:
        checked = [guarded(values, spec) for values, spec in zip(inputs, specs, strict=True)]
        outputs = model(checked[0] if len(checked) == 1 else checked, training=False)
        return {
            name: tf.identity(values, name)
            for name, values in zip(output_names(model), tf.nest.flatten(outputs), strict=True)
        }

    module.serving_default = serving_default
    return module
