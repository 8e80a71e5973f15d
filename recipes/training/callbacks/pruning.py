"""Prune while training: the smallest weights are 0, the others learn.

Keras 3 has no pruning. A mask is a constraint of its variable, which Keras applies right after each
update, inside the compiled step: no step and no validation ever sees a pruned weight that is not 0.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from recipes.config import Pruning, UserError, nearest
from recipes.models.parameters import is_matrix
from recipes.training.optimizers import finished_steps
from recipes.training.schedules import Sparsity

Tensor = Any


class KeepZeros(keras.constraints.Constraint):
    """Keeps the weights of a variable at 0 that are 0 now."""

    def __init__(self, variable: keras.Variable) -> None:
        self.mask = ops.cast(ops.not_equal(variable, 0), "float32")

    def __call__(self, updated: Tensor) -> Tensor:
        """Return the variable's new value, given what the update made of it."""
        return updated * self.mask


def keep_zeros(model: keras.Model) -> None:
    """Let a model that was pruned train on without getting denser, whether it is pruned further or not."""
    for variable in model.trainable_variables:
        if is_matrix(variable) or variable.name == "bias":
            variable.constraint = KeepZeros(variable)


class Mask(keras.constraints.Constraint):
    """Keeps the pruned weights of a variable at 0.

    With regrowth the update of a pruned weight is not lost: it goes to a dense copy, by whose size
    weights are chosen, and a weight that is chosen again comes back with it (Guo et al. 2016,
    "Dynamic Network Surgery for Efficient DNNs", arXiv:1608.04493). What `keep_zeros` holds never does.

    Args:
        variable: What is pruned.
        regrow: Whether pruned weights learn on.
    """

    def __init__(self, variable: keras.Variable, *, regrow: bool) -> None:
        self.variable = variable
        self.held = (
            variable.constraint if isinstance(variable.constraint, KeepZeros) else lambda values: values
        )
        self.mask = keras.Variable(ops.ones(variable.shape), trainable=False, name="mask")
        copy = ops.convert_to_numpy(variable)  # the value itself would be shared
        self.dense = keras.Variable(copy, trainable=False, name="dense") if regrow else None

    def __call__(self, updated: Tensor) -> Tensor:
        """Return the variable's new value, given what the update made of it."""
        if self.dense is None:
            return updated * self.mask
        # Before the update the variable was mask * dense: the difference is the update.
        self.dense.assign(self.held(updated + (1.0 - self.mask) * self.dense))
        return self.mask * self.dense

    def magnitudes(self) -> npt.NDArray[np.float32]:
        """Return by which weights are chosen."""
        values = self.variable if self.dense is None else self.dense
        return np.abs(ops.convert_to_numpy(values))

    def choose(self, keep: npt.NDArray[np.bool_]) -> None:
        """Keep these weights, and no others."""
        self.mask.assign(self.held(keep.astype(np.float32)))
        values = self.variable if self.dense is None else self.dense
        self.variable.assign(self.mask * values)


class Prune(keras.callbacks.Callback):
    """Choose the weights that stay, again and again while the sparsity grows.

    Args:
        settings: How much, when and which.
        sparsity: The sparsity of each step.

    Attributes:
        masks: By path of the variable.
    """

    def __init__(self, settings: Pruning, sparsity: Sparsity) -> None:
        super().__init__()
        self.settings = settings
        self.sparsity = sparsity
        self.masks: dict[str, Mask] = {}
        self.chosen_at = -1

    def set_model(self, model: keras.Model) -> None:
        """Put a mask on each prunable variable of the model that is to be trained."""
        super().set_model(model)
        self.masks = {
            variable.path: Mask(variable, regrow=self.settings.regrow)
            for variable in prunable(model, self.settings.leave_out, biases=self.settings.biases)
        }
        for mask in self.masks.values():
            mask.variable.constraint = mask

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Prune before the first step, where the schedule begins there."""
        self.chosen_at = -1
        self._choose(0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Choose anew when it is time."""
        self._choose(finished_steps(self.model.optimizer))

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Prune moving averages of the weights, which remember weights that have gone."""
        for mask in self.masks.values():
            averages = mask.variable
            if mask.dense is not None:  # a weight that has just come back has an average of 0
                averages = ops.where(averages == 0, mask.dense, averages)
            mask.variable.assign(averages * mask.mask)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Take the masks off: what is saved is a plain model with zeros."""
        for mask in self.masks.values():
            mask.variable.constraint = None

    def _choose(self, step: int) -> None:
        due = self.sparsity.choice_at(step)
        if due is None or due == self.chosen_at:
            return
        self.chosen_at = due
        sparsity = self.sparsity(due)
        magnitudes = [mask.magnitudes() for mask in self.masks.values()]
        if self.settings.ranking == "global":
            kept = _keep_largest(magnitudes, sparsity)
        else:
            kept = [_keep_largest([each], sparsity)[0] for each in magnitudes]
        for mask, keep in zip(self.masks.values(), kept, strict=True):
            mask.choose(keep)

    def state(self) -> dict[str, Any]:
        """Return the masks, the dense copies, and when the weights were chosen."""
        return {
            "chosen_at": self.chosen_at,
            "masks": [ops.convert_to_numpy(mask.mask) for mask in self.masks.values()],
            "dense": [
                ops.convert_to_numpy(mask.dense) for mask in self.masks.values() if mask.dense is not None
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.chosen_at = state["chosen_at"]
        for mask, values in zip(self.masks.values(), state["masks"], strict=True):
            mask.mask.assign(values)
        copies = [mask.dense for mask in self.masks.values() if mask.dense is not None]
        for copy, values in zip(copies, state["dense"], strict=True):
            copy.assign(values)


def _keep_largest(
    magnitudes: Sequence[npt.NDArray[np.float32]], sparsity: float
) -> list[npt.NDArray[np.bool_]]:
    """Return which weights stay: the largest of all together, ties in their order."""
    flat = np.concatenate([each.ravel() for each in magnitudes])
    count = round(flat.size * (1 - sparsity))
    if count == 0:
        return [np.zeros(each.shape, bool) for each in magnitudes]
    least = np.partition(flat, flat.size - count)[flat.size - count]  # a tenth of a sort's time
    keep = flat > least
    ties = np.flatnonzero(flat == least)
    keep[ties[: count - np.count_nonzero(keep)]] = True
    ends = np.cumsum([each.size for each in magnitudes])[:-1]
    return [part.reshape(each.shape) for part, each in zip(np.split(keep, ends), magnitudes, strict=True)]


def dense_values(variable: keras.Variable) -> Tensor:
    """Return a variable as it would be without its mask, if it has one that lets weights come back."""
    mask = variable.constraint
    return mask.dense if isinstance(mask, Mask) and mask.dense is not None else variable


def prunable(
    model: keras.Model, leave_out: Sequence[str] = (), *, biases: bool = False
) -> list[keras.Variable]:
    """Return the weight matrices and kernels of a model, no scales of a norm or a head.

    Args:
        model: The model.
        leave_out: Names of layers to leave out.
        biases: Whether biases are pruned too.

    Raises:
        UserError: A layer that the model does not have, or no prunable weights.
    """
    variables = [
        variable
        for variable in model.trainable_variables
        if is_matrix(variable) or (biases and variable.name == "bias")
    ]
    layers = {part for variable in variables for part in variable.path.split("/")[:-1]}
    for name in leave_out:
        if name not in layers:
            raise UserError(
                f"pruning.leave_out: there is no prunable layer {name!r}. {nearest(name, layers)}"
            )
    left = [variable for variable in variables if not set(variable.path.split("/")[:-1]) & set(leave_out)]
    if not left:
        raise UserError("pruning: the model has no prunable weights left")
    return left
