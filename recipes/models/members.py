"""Several networks in one model, each trained as if it were alone."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_recipes")
class AverageOfMembers(layers.Average):
    """The mean of the members' logits, each (batch, classes): a deep ensemble (Lakshminarayanan et al. 2017,
    arXiv:1612.01474) in one model.

    Members that learn by the loss of their mean make up differences that help on no new image (Jeffares
    et al. 2023, arXiv:2301.11323). The mean of their own cross-entropies is that of the softmax of their
    mean and how much they disagree, whatever the labels (Wood et al. 2023, arXiv:2301.03962). That is
    what this layer adds to the loss in training; no member then knows of the others. Each one's gradient
    is its own divided by their number, which Adam and all that scale their steps by it do not notice.
    Label smoothing and a teacher take a part of this loss away and judge the mean instead: by that part
    the members learn together.
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
        """Return a plain Average: a model that is saved needs nothing of this project.

        Members of such a model that are trained on, as in a pruning, learn by the loss of their mean.
        """
        return layers.Average(**config)


def disagreement(logits: Sequence[Tensor], mean: Tensor) -> Tensor:
    """Return the mean of the log-sum-exp of each member's logits less that of their mean, (batch,), at least 0."""
    each = ops.logsumexp(ops.stack(logits), axis=-1)  # (members, batch)
    return ops.mean(each, axis=0) - ops.logsumexp(mean, axis=-1)
