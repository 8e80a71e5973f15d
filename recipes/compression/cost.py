"""Static cost of a model: multiply-adds, and sparsity by layer."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from recipes.compression.units import nodes_of
from recipes.models.attention import Attention
from recipes.models.configured import ConfiguredModel
from recipes.models.parameters import is_matrix


def multiply_adds(model: keras.Model) -> int:
    """Return the multiply-adds of one example: of its layers' kernels, and of attention's products.

    A weight of a convolution counts once for each position it is applied to, and zeros count as well: a mask
    does not make a model faster. An example of a language model is a whole window.
    """
    if isinstance(model, ConfiguredModel):
        return _of_sequence(model)
    total = 0
    for node in nodes_of(model):
        kernel = getattr(node.operation, "kernel", None)
        if kernel is not None:
            total += math.prod(kernel.shape) * math.prod(node.outputs[0].shape[1:-1])
    return total


def _of_sequence(model: Any) -> int:
    places = getattr(model, "block_size", 0) or model.target_length
    matrices = [
        variable
        for variable in model.weights
        if len(variable.shape) == 2 and variable.name not in ("embeddings", "bias", "kernel_scale")
    ]
    total: int = places * sum(math.prod(variable.shape) for variable in matrices)
    if getattr(model.settings, "tied_head", True):
        total += places * math.prod(model.token_embedding.embeddings.shape)
    for layer in model._flatten_layers():
        if isinstance(layer, Attention):  # scores and weighted values
            total += 2 * places * places * layer.joined_width
    return total


def sparsity_by_layer(model: keras.Model) -> list[dict[str, Any]]:
    """Return for each matrix and kernel: `layer`, `weights`, `nonzero`, `sparsity`."""
    rows = []
    for variable in model.weights:
        if is_matrix(variable):
            nonzero = int(np.count_nonzero(ops.convert_to_numpy(variable)))
            size = math.prod(variable.shape)
            name = variable.path.removeprefix(f"{model.name}/").removesuffix("/kernel")
            rows.append(
                {"layer": name, "weights": size, "nonzero": nonzero, "sparsity": round(1 - nonzero / size, 4)}
            )
    return rows
