"""Prune while training: the smallest weights become 0, the others learn.

Keras 3 has no pruning. A mask is a constraint of its variable, which Keras applies right after each
update, inside the compiled step: no step and no validation ever sees a pruned weight that is not 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from recipes.config.errors import UserError, nearest
from recipes.models import Tensor
from recipes.models.parameters import is_matrix
from recipes.training.callbacks.stateful import StatefulCallback, check_built
from recipes.training.optimizers import finished_steps


class KeepZeros(keras.constraints.Constraint):
    """Keeps the zeros of a variable at 0."""

    def __init__(self, variable: keras.Variable) -> None:
        self.mask = ops.cast(ops.not_equal(variable, 0), "float32")

    def __call__(self, updated: Tensor) -> Tensor:
        """Return the variable's new value from its updated one."""
        return updated * self.mask


def keep_zeros(model: keras.Model) -> None:
    """Keep the zeros of a pruned model in further training."""
    for variable in model.trainable_variables:
        if is_matrix(variable) or variable.name == "bias":
            variable.constraint = KeepZeros(variable)


class Mask(keras.constraints.Constraint):
    """Keeps the pruned weights of a variable at 0, and applies the constraint that it had before.

    Pruned weights are trained further in a dense copy. Weights are ranked by its magnitudes, and a weight that was
    pruned too early returns with its value (Guo et al. 2016, "Dynamic Network Surgery for Efficient DNNs",
    arXiv:1608.04493).

    Args:
        variable: The variable to prune.
    """

    def __init__(self, variable: keras.Variable) -> None:
        self.variable = variable
        before = variable.constraint  # the Mask of an interrupted fit is replaced
        self.before: Callable[[Tensor], Tensor] | None = before.before if isinstance(before, Mask) else before
        self.mask = keras.Variable(ops.ones(variable.shape), trainable=False, name="mask")
        copy = ops.convert_to_numpy(variable)  # the value itself would be shared
        self.dense = keras.Variable(copy, trainable=False, name="dense")

    def __call__(self, updated: Tensor) -> Tensor:
        """Return the variable's new value from its updated one."""
        # Before the update the variable was mask * dense: the difference is the update.
        dense = updated + (1.0 - self.mask) * self.dense
        self.dense.assign(dense if self.before is None else self.before(dense))
        return self.mask * self.dense

    def choose(self, keep: npt.NDArray[np.bool_]) -> None:
        """Keep the weights where `keep` is true, and prune the others."""
        self.mask.assign(keep.astype(np.float32))
        self.variable.assign(self.mask * self.dense)


@dataclass(eq=False)
class Prune(StatefulCallback):
    """Prune the weights of smallest magnitude, every `frequency` steps while the sparsity grows.

    The polynomial schedule is sparsity * (1 - (1 - t)^3) with t from 0 at begin_step to 1 at end_step (Zhu & Gupta
    2017, "To prune, or not to prune", arXiv:1710.01878). Steps are the optimizer's iterations.

    >>> history = model.fit(x, y, epochs=4, callbacks=[Prune(sparsity=0.5, end_step=4, frequency=1)], verbose=0)
    >>> sum(float(weight) == 0 for weight in model.get_weights()[0].flat)
    2

    Args:
        sparsity: Final fraction of the prunable weights that are 0, in [0, 1).
        end_step: Step at which the sparsity is reached, after begin_step.
        begin_step: Step of the first pruning.
        settle_step: Step after which the masks do not change, not before end_step; None for end_step.
        frequency: Steps between two updates of the masks.
        schedule: "polynomial", or "constant" for the final sparsity from begin_step on.
        leave_out: Names of layers that are not pruned.
        biases: Whether biases are pruned too.

    Raises:
        ValueError: Steps in another order; from `fit`, a model that is not built.
        UserError: From `fit`, a layer that the model does not have, or no prunable weights.

    Attributes:
        masks: One for each pruned variable.
    """

    sparsity: float
    _: KW_ONLY
    end_step: int
    begin_step: int = 0
    settle_step: int | None = None
    frequency: int = 100
    schedule: Literal["polynomial", "constant"] = "polynomial"
    leave_out: Sequence[str] = ()
    biases: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.last_step = self.end_step if self.settle_step is None else self.settle_step
        if not self.begin_step < self.end_step <= self.last_step:
            raise ValueError(
                "end_step must come after begin_step, and settle_step not before end_step. "
                f"Received: begin_step={self.begin_step}, end_step={self.end_step}, settle_step={self.settle_step}"
            )
        self.masks: list[Mask] = []
        self.chosen_at: int | None = None

    def sparsity_at(self, step: int) -> float:
        """Return the sparsity of a step."""
        if step < self.begin_step:
            return 0.0
        if self.schedule == "constant":
            return self.sparsity
        t = min((step - self.begin_step) / (self.end_step - self.begin_step), 1.0)
        return self.sparsity * (1 - (1 - t) ** 3)

    def choice_at(self, step: int) -> int | None:
        """Return the last step, up to this one, at which the masks are due; None before the first."""
        if step < self.begin_step:
            return None
        if step >= self.last_step:
            return self.last_step
        due = step - (step - self.begin_step) % self.frequency
        return max(due, self.end_step) if step >= self.end_step else due

    def set_model(self, model: keras.Model) -> None:
        """Put a mask on each prunable variable of the model."""
        super().set_model(model)
        check_built(self, model)
        variables = prunable(model, self.leave_out, biases=self.biases)
        self.masks = [Mask(variable) for variable in variables]
        for mask in self.masks:
            mask.variable.constraint = mask
        model.train_function = None  # of an earlier fit, compiled without the masks

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Prune before the first step, if the schedule begins there."""
        self.chosen_at = None
        self.choose(finished_steps(self.model.optimizer))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Update the masks when they are due."""
        self.choose(finished_steps(self.model.optimizer))

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Prune moving averages of the weights, in which pruned weights are not 0."""
        for mask in self.masks:
            # A weight that has just returned has an average of 0.
            averages = ops.where(mask.variable == 0, mask.dense, mask.variable)
            mask.variable.assign(averages * mask.mask)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Remove the masks and leave the zeros."""
        for mask in self.masks:
            mask.variable.constraint = mask.before
        self.model.train_function = None

    def choose(self, step: int) -> None:
        """Update the masks that are due at a step, unless they have been."""
        due = self.choice_at(step)
        if due is None or due == self.chosen_at:
            return
        self.chosen_at = due
        magnitudes = [np.abs(ops.convert_to_numpy(mask.dense)) for mask in self.masks]
        for mask, keep in zip(self.masks, largest(magnitudes, self.sparsity_at(due)), strict=True):
            mask.choose(keep)

    def state(self) -> dict[str, Any]:
        """Return the masks, the dense copies, and the step of the masks."""
        return {
            "chosen_at": self.chosen_at,
            "masks": [ops.convert_to_numpy(mask.mask) for mask in self.masks],
            "dense": [ops.convert_to_numpy(mask.dense) for mask in self.masks],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.chosen_at = state["chosen_at"]
        for mask, keep, dense in zip(self.masks, state["masks"], state["dense"], strict=True):
            mask.mask.assign(keep)
            mask.dense.assign(dense)


def largest(magnitudes: Sequence[npt.NDArray[np.float32]], sparsity: float) -> list[npt.NDArray[np.bool_]]:
    """Return which weights stay: the largest of all arrays together; of equal ones the first."""
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
    """Return the values that a variable would have without its mask, if it has one."""
    mask = variable.constraint
    return mask.dense if isinstance(mask, Mask) else variable


def prunable(
    model: keras.Model, leave_out: Sequence[str] = (), *, biases: bool = False
) -> list[keras.Variable]:
    """Return the weight matrices and kernels of a model, without the scales of norms and heads.

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
