"""A deep ensemble in one model, each member trained independently."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_recipes")
class AverageOfMembers(layers.Average):
    """Average the logits of the ensemble members, each (batch, classes) (Lakshminarayanan et al. 2017, arXiv:1612.01474).

    Members that are trained with the loss of their mean learn differences that do not generalise (Jeffares
    et al. 2023, arXiv:2301.11323). The mean of the members' cross-entropies equals the cross-entropy of their
    mean plus their disagreement, for any labels (Wood et al. 2023, arXiv:2301.03962). This layer adds the
    disagreement to the training loss, so each member is trained independently. Its gradient is its own
    divided by the number of members; Adam and other optimizers that normalise gradients are not affected.
    Label smoothing and distillation replace part of this loss by a loss of the mean: for that part the
    members are trained jointly.
    """

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        """Return the mean, (batch, classes)."""
        mean = super().call(inputs)
        if training:
            self.add_loss(ops.mean(disagreement(inputs, mean)))
        return mean

    def compute_output_spec(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        """Return the mean's shape and dtype; Keras's own takes no `training`."""
        return super().compute_output_spec(inputs)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> layers.Average:
        """Return a plain Average: a saved model does not depend on this project.

        When such a model is trained further, as in pruning, its members are trained with the loss of their mean.
        """
        return layers.Average(**config)


def disagreement(logits: Sequence[Tensor], mean: Tensor) -> Tensor:
    """Return the mean of the log-sum-exp of each member's logits less that of their mean, (batch,), at least 0."""
    each = ops.logsumexp(ops.stack(logits), axis=-1)  # (members, batch)
    return ops.mean(each, axis=0) - ops.logsumexp(mean, axis=-1)
