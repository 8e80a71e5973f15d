"""Nonzero parameters and sparsity of a model."""

import keras
import numpy as np


def count_nonzero(model: keras.Model) -> int:
    """Return the number of weights that are not exactly 0, of all that `model.count_params()` counts."""
    return sum(int(np.count_nonzero(weight)) for weight in model.get_weights())


def is_matrix(variable: keras.Variable) -> bool:
    """Return whether a variable is a matrix or kernel: not a bias or scale.

    Weight decay, penalties and pruning apply to these variables. The shape is not sufficient: a GRU's bias is
    (2, 3 * units), the kernel of a single output (units, 1), the temperature of attention (heads, 1, 1).
    """
    if variable.name.endswith(("kernel", "embeddings")):
        return True
    return variable.name != "bias" and sum(size > 1 for size in variable.shape) > 1


def sparsity(model: keras.Model) -> float:
    """Return the fraction of the entries of matrices and kernels that are 0, in [0, 1]."""
    kernels = [
        keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables if is_matrix(variable)
    ]
    zeros = sum(int(np.count_nonzero(kernel == 0)) for kernel in kernels)
    return zeros / sum(kernel.size for kernel in kernels)
